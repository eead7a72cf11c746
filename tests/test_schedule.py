"""A student of several sparse teachers in turn: whose turn it is, stops, its folder, and what reads the folder."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from conftest import refused, small_config
from safetensors.torch import load_file
from test_training import QUICK, fit_and_select, make_examples

import run_rewinding
import run_sparsification
from models.bert import PrunableBert
from models.losses import student_loss
from scripts import replay_halving
from scripts import report_data as data
from utils.evaluation import scheduled_logits_fn
from utils.folder import RunFolder

START = ["--teacher_model_path", "teacher", "--student_model_path", "teacher", "--student_layer", "2"]
SPARSE = ["--teacher_model_path", "outputs/stark/layer_dropped/kd_2_rte_0.5/ckpt", *START[2:]]
QUICKLY = ["--num_train_epochs", "3", "--learning_rate", "1e-3", "--log_interval", "2", "--num_patience_epochs", "0"]
IN_TURN = [*SPARSE, *QUICKLY, "--teacher_schedule", "90", "50", "90", "0", "50"]  # over 12 updates
FIXED = Path("outputs/rewind/layer_dropped/kd_2_rte_0.5")
FOLDER = Path("outputs/rewind/layer_dropped/kd_2_rte_0.5_schedule_90_50_90_0_50")


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("teachers", [1, 2, 3, 5, 8])
def test_each_teacher_has_an_equal_share_of_the_updates(tokenizer, teachers, accumulated):
    torch.manual_seed(0)
    model, examples = PrunableBert(small_config()), make_examples(tokenizer, 21)
    asked = []  # at each forward pass: which teacher, at which update

    def logits_fn_of(number):
        def logits_fn(batch):
            asked.append((number, batch.update))
            return torch.zeros(len(batch.example_ids), 2)

        return logits_fn

    recipe = QUICK._replace(num_train_epochs=4, num_patience_epochs=0, num_grad_accum_steps=accumulated)
    total = {1: 12, 2: 8}[accumulated]  # in each epoch of 8, 8 and 5 examples, or of 8 + 8 and 5
    loss = student_loss(scheduled_logits_fn(list(map(logits_fn_of, range(teachers))), total))
    assert fit_and_select(model, examples, loss, recipe).updates == total
    # teacher number k ends after the share (k + 1) / n of all updates
    ends = [Fraction(number + 1, teachers) for number in range(teachers)]
    turns = [sum(Fraction(update, total) >= end for end in ends) for update in range(total)]
    assert len(asked) == 12
    assert asked == sorted(asked)
    assert set(asked) == set(zip(turns, range(total), strict=True))
    shares = list(map(turns.count, range(teachers)))
    assert max(shares) - min(shares) <= 1


@pytest.fixture(scope="module")
def sparse_teacher(tmp_path_factory) -> list[Path]:
    """The run folder of a sparse teacher, once made in some `workplace`; the others' are the same."""
    return []


@pytest.fixture
def stark(workplace, sparse_teacher, tmp_path_factory) -> None:
    """The sparse teacher in the current folder."""
    if sparse_teacher:
        shutil.copytree(sparse_teacher[0], "outputs/stark")
    else:
        run_sparsification.main(START)
        sparse_teacher.append(shutil.copytree("outputs/stark", tmp_path_factory.mktemp("made") / "stark"))


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def without_seconds(content: dict) -> dict:
    return {key: value for key, value in content.items() if "seconds" not in key}


class Stopped(Exception):
    """Raised by a test to stop training."""


def test_a_stop_at_or_between_turns_changes_nothing(stark, monkeypatch):
    run_rewinding.main([*IN_TURN, "--output_dir", "whole"])
    whole = Path("whole", *FOLDER.parts[2:])
    assert read(whole / "metrics.json")["turns_begin"] == [0, 3, 5, 8, 10]  # 2.4, 4.8, 7.2 and 9.6 rounded up
    save = torch.save
    for update in (2, 3, 4, 10):  # two of them the last of a turn

        def stop(state, path, update=update):
            save(state, path)
            if state["progress"]["update"] == update + 1:  # which has not replaced the file of the update before
                raise Stopped

        monkeypatch.setattr(torch, "save", stop)
        with pytest.raises(Stopped):
            run_rewinding.main([*IN_TURN, "--save_interval", "1", "--overwrite"])
        monkeypatch.setattr(torch, "save", save)
        run_rewinding.main(IN_TURN)
        assert f"going on after update {update}\n" in (FOLDER / "log.txt").read_text()
        assert without_seconds(read(FOLDER / "metrics.json")) == without_seconds(read(whole / "metrics.json"))
        weights, expected = (load_file(path / "ckpt" / "model.safetensors") for path in (FOLDER, whole))
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_the_student_has_a_folder_of_its_own_that_names_the_schedule(stark, capsys):
    run_rewinding.main([*SPARSE, *QUICKLY, "--teacher_sparsity", "50"])
    before = (FIXED / "metrics.json").read_bytes()
    run_rewinding.main([*IN_TURN, "--do_test"])
    printed = capsys.readouterr().out
    metrics, made = read(FOLDER / "metrics.json"), read(FOLDER / "ckpt" / "metrics.json")
    assert metrics["teacher_schedule"] == made["teacher_schedule"] == [90, 50, 90, 0, 50]
    assert metrics["submission"]["checkpoint"] == "ckpt"
    cut = read(Path(SPARSE[1], "metrics.json"))["sparsity"]
    assert metrics["teachers"] == {s: cut[s] for s in ("90", "50", "0")}
    # the table and the card
    for sparsity, found in metrics["teachers"].items():
        assert f"teacher at {sparsity} %  {found['acc']:.4f}\n" in printed
    assert f"student of 90 50 90 0 50 % in turn  {metrics['report']['acc']:.4f}\n" in printed
    card = (FOLDER / "ckpt" / "README.md").read_text()
    assert "This is a student for RTE, distilled from sparse teachers in turn." in card
    assert "| teacher sparsities in turn | 90 %, 50 %, 90 %, 0 %, 50 % |" in card
    assert f"| its teacher's at 50 % | acc {cut['50']['acc']:.4f} |" in card
    # the same command trains nothing, and fixed sparsities have stayed apart
    run_rewinding.main(IN_TURN)
    assert "finished before with the same arguments" in capsys.readouterr().out
    assert (FIXED / "metrics.json").read_bytes() == before
    assert [RunFolder(path).names() for path in (FIXED, FOLDER)] == [["ckpt_50"], ["ckpt"]]
    run_rewinding.main([*SPARSE, *QUICKLY, "--teacher_sparsity", "0", "50"])
    assert list(read(FIXED / "metrics.json")["sparsity"]) == ["0", "50"]
    # nor does the replay of halving, or the report, take it for one of them
    [sweep] = replay_halving.sweeps([Path("outputs")])
    assert sorted(sweep.histories) == [0, 50]
    shutil.copytree(FOLDER / "ckpt", FOLDER / "ckpt_50")  # whatever it is called
    shutil.rmtree(FOLDER / "ckpt")
    rows = data.collect(data.checkpoints([Path("outputs/rewind")]))
    assert {(row.method, row.teacher_sparsity) for row in rows} == {
        *(("lam 0.5", 0), ("lam 0.5", 50), ("lam 0.5, 90 50 90 0 50 % in turn", None))
    }


def test_weights_from_before_a_teachers_turn_are_said_to_be(stark, capsys):
    flags = ["--learning_rate", "0", "--log_interval", "1", "--num_patience_epochs", "1"]  # nothing is better
    run_rewinding.main([*IN_TURN, *flags])
    metrics = read(FOLDER / "metrics.json")
    assert (metrics["updates"], metrics["best_update"]) == (5, 1)  # of 12; an epoch has 4
    assert "after update 1 of 5, before the turns of its teachers at 50 %, 90 %, 0 %, 50 %\n" in capsys.readouterr().out
    run_rewinding.main([*IN_TURN, "--learning_rate", "1e-2", "--log_interval", "12", "--overwrite"])
    assert read(FOLDER / "metrics.json")["best_update"] == 12
    assert "before the turns" not in capsys.readouterr().out


def test_text_without_labels_and_half_precision_go_with_a_schedule(stark):
    Path("more.jsonl").write_text('{"sentence1": "w1 w2", "sentence2": "w1"}\n{"sentence1": "w3", "sentence2": "w4"}\n')
    run_rewinding.main([*IN_TURN, "--unlabelled", "more.jsonl", "--use_bf16", "--num_grad_accum_steps", "2"])
    metrics = read(FOLDER / "metrics.json")
    assert (metrics["unlabelled_rows"], metrics["updates"]) == (2, 6)  # 52 rows, 16 + 16 to an update
    assert metrics["turns_begin"] == [0, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--teacher_sparsity", "0"], "--teacher_sparsity, which trains a student for each"),
        (["--halving"], "--halving, which compares several students"),
        (["--halving", "0", "50"], "--halving, which compares several students"),
        (["--no_teacher_cache"], "--no_teacher_cache, which runs the teacher in every step"),
        (["--minilm_weight", "0.5"], "--minilm_weight, which runs the teacher in every step"),
    ],
)
def test_what_a_schedule_does_not_go_with_is_refused(stark, capsys, flags, reason):
    capsys.readouterr()
    assert refused(run_rewinding, capsys, *IN_TURN, *flags).endswith(f"error: --teacher_schedule: not with {reason}")
