"""Runs that are stopped and started again end with the results of undisturbed ones."""

import copy
import json
import multiprocessing
import os
import re
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import forked, small_config, wait_until, write_task
from safetensors.torch import load_file
from test_training import QUICK, fit_and_select, make_examples

import run_distillation
import run_finetuning
import run_rewinding
import run_sparsification
from models.bert import PrunableBert
from models.losses import task_loss
from scripts import chaos
from utils.errors import InputError
from utils.resume import StateFile
from utils.settings import differences, run_id, settings
from utils.training import fit

FLAGS = ["--num_train_epochs", "1", "--learning_rate", "1e-3", "--log_interval", "2"]
SAVING = [*FLAGS, "--save_interval", "1"]


class Stopped(Exception):
    """Raised by a test to stop training."""


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PrunableBert(small_config())


@pytest.mark.parametrize(
    ("recipe", "stops"),  # intervals of saving, and updates after which training is stopped
    [
        (QUICK, [(1, 1), (1, 4), (2, 3), (2, 7)]),
        (QUICK._replace(num_grad_accum_steps=2, dtype=torch.bfloat16, exact_shortcuts=False), [(2, 7)]),
    ],
)
def test_training_goes_on_bit_for_bit(tmp_path, model, tokenizer, recipe, stops):
    examples = make_examples(tokenizer, 61)

    def train(model, saved=None, stop=None):
        seen = []

        def loss(logits, batch):
            seen.append(len(batch.example_ids))
            if stop and len(seen) > stop * recipe.num_grad_accum_steps:
                raise Stopped
            return task_loss(logits, batch)

        return fit_and_select(model, examples, loss, recipe, saved), len(seen)

    whole = copy.deepcopy(model)
    wanted, steps = train(whole)
    for interval, stop in stops:
        state = tmp_path / f"state_{interval}_{stop}"
        stopped, resumed = copy.deepcopy(model), copy.deepcopy(model)
        with pytest.raises(Stopped):
            train(stopped, StateFile(state, interval), stop)
        torch.rand(7)
        found, steps_left = train(resumed, StateFile(state, interval))
        assert found._replace(train_seconds=0) == wanted._replace(train_seconds=0)
        assert steps_left == steps - recipe.num_grad_accum_steps * (stop // interval * interval)
        for ours, other in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
            assert torch.equal(ours, other)


def test_a_damaged_state_is_named_and_a_pickle_is_never_loaded(tmp_path):
    path = tmp_path / ".ckpt.state"
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match="cannot be read; --overwrite starts afresh"):
        StateFile(path).load(torch.device("cpu"))
    torch.save({"random": [], "path": Path()}, path)
    with pytest.raises(InputError, match="cannot be read"):
        StateFile(path).load(torch.device("cpu"))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), MemoryError(), PermissionError("not yours")])
def test_a_sound_state_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch, error):
    def load(*_, **__):
        raise error

    path = tmp_path / ".ckpt.state"
    StateFile(path).save({"weight": torch.ones(3)}, torch.device("cpu"))
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(type(error)):
        StateFile(path).load(torch.device("cpu"))


def test_a_flag_that_an_update_of_the_code_adds_leaves_a_state_its_runs(tmp_path):
    before = {"seed": 1, "lam": 0.5, "inputs": {}}
    now = {**before, "match_spread": None}
    assert not differences(before, now)
    assert run_id(before) == run_id(now) != run_id({**before, "match_spread": 30})


def test_a_state_belongs_to_the_run_that_wrote_it(tmp_path, caplog):
    path = tmp_path / ".ckpt.state"
    cpu = torch.device("cpu")
    assert StateFile.run_id_of(path) is None
    StateFile(path, run_id="one").save({"weight": torch.ones(3)}, cpu)
    assert StateFile.run_id_of(path) == "one"
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert StateFile(path, run_id="another").load(cpu) is None
    assert "of another run or version of the code, so training begins anew" in caplog.text
    assert StateFile(path).load(cpu) is None
    assert torch.equal(torch.get_rng_state(), before)  # which another run's state would have changed
    assert torch.equal(StateFile(path, run_id="one").load(cpu)["weight"], torch.ones(3))
    assert not torch.equal(torch.get_rng_state(), before)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read; --overwrite starts afresh"):
        StateFile.run_id_of(path)


def test_a_run_on_the_cpu_leaves_a_gpu_alone(tmp_path, monkeypatch):
    def touched(*_):
        raise AssertionError("a run with --use_cpu has called the GPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", touched)
    monkeypatch.setattr(torch.cuda, "set_rng_state", touched)
    state = StateFile(tmp_path / ".ckpt.state")
    state.save({"update": 3}, torch.device("cpu"))
    assert state.load(torch.device("cpu"))["update"] == 3
    # nor does one that goes on from what a run on a GPU has saved
    saved = torch.load(state.path)
    saved["random"][0]["cuda"] = torch.zeros(16, dtype=torch.uint8)
    torch.save(saved, state.path)
    assert state.load(torch.device("cpu"))["update"] == 3


def test_without_an_interval_states_are_saved_at_evaluations_once_a_minute(tmp_path, monkeypatch, model, tokenizer):
    now, saved_at = [1000.0], []

    def evaluate_slowly():
        now[0] += 25
        return {"acc": 0.5}

    def loss(logits, batch):
        if (tmp_path / "state").exists():
            saved_at.append(torch.load(tmp_path / "state")["progress"]["update"])
        return task_loss(logits, batch)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    recipe = QUICK._replace(num_train_epochs=12, num_patience_epochs=0, log_interval=2)
    fit(
        model,
        make_examples(tokenizer, 16),
        loss,
        recipe,
        eval_fn=evaluate_slowly,
        selection_metric="acc",
        train_state=StateFile(tmp_path / "state"),
    )
    assert sorted(set(saved_at)) == [6, 12, 18]  # every third evaluation, of 24 updates; nothing comes after the last
    assert saved_at.count(6) == 6


def results(folder: Path) -> dict:
    metrics = json.loads((folder / "metrics.json").read_text())
    return {key: value for key, value in metrics.items() if "seconds" not in key}


TEACHER = ["--teacher_model_path", "teacher"]
STUDENT = ["--student_model_path", "teacher", "--student_layer", "2"]
PATHS = [*TEACHER, *STUDENT]


def test_a_finished_teacher_is_not_made_again(workplace, capsys):
    flags = [*FLAGS, "--model_path", "teacher"]
    run_finetuning.main(flags)
    assert "weights loaded" in capsys.readouterr().out
    run_finetuning.main(flags)
    printed = capsys.readouterr().out
    assert "finished before with the same arguments" in printed
    assert "weights loaded" not in printed


def test_finished_work_is_reused_and_overwrite_starts_afresh(workplace, capsys):
    run_distillation.main([*FLAGS, *PATHS])
    folder = Path("outputs/distil/layer_dropped/kd_2_rte")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    run_distillation.main([*FLAGS, *PATHS, "--save_interval", "7"])  # which changes no result
    assert "finished before with the same arguments" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    run_distillation.main([*FLAGS, *PATHS, "--overwrite", "--seed", "1"])
    assert json.loads((folder / "args.json").read_text())["seed"] == 1
    assert (folder / "metrics.json").stat().st_mtime_ns > before[folder / "metrics.json"]


def test_inputs_under_another_path_are_the_same_run(workplace):
    Path("more.jsonl").write_text('{"sentence1": "w1", "sentence2": "w2"}\n')
    words = [*PATHS, "--unlabelled", "more.jsonl"]
    paths = {"teacher": str(Path("teacher").absolute()), "more.jsonl": "./more.jsonl"}
    before, now = (
        settings(run_distillation.parse_args(flags)) for flags in (words, [paths.get(word, word) for word in words])
    )
    assert before["unlabelled"] != now["unlabelled"]
    assert not differences(before, now)
    assert run_id(before) == run_id(now)
    Path("more.jsonl").write_text('{"sentence1": "w1", "sentence2": "w3"}\n')
    assert run_id(settings(run_distillation.parse_args(words))) != run_id(before)


def test_other_arguments_and_changed_inputs_are_refused_by_name(workplace, capsys):
    run_distillation.main([*FLAGS, *PATHS])
    labels = {0: "not_entailment", 1: "entailment"}
    changes = [
        (lambda: None, ["--seed", "1", "--alpha", "0.25"], "--alpha 0.5, now 0.25; --seed 776, now 1; --overwrite"),
        (
            lambda: PrunableBert(small_config(id2label=labels)).save_pretrained("teacher"),
            [],
            "the content of teacher_model_path has changed; the content of student_model_path has changed",
        ),
        (
            lambda: write_task(Path("other"), "rte", (30, 21, 9)),
            ["--data_dir", "other"],
            "the content of train has changed",
        ),
    ]
    for change, flags, message in changes:
        change()
        with pytest.raises(SystemExit) as stop:
            run_distillation.main([*FLAGS, *PATHS, *flags])
        error = capsys.readouterr().err
        assert (stop.value.code, error.count("\n")) == (2, 1)
        assert message in error


def test_a_run_that_never_began_does_not_hold_its_folder(workplace):
    Path("outputs/distil/layer_dropped/kd_2_rte").mkdir(parents=True)
    Path("outputs/distil/layer_dropped/kd_2_rte/args.json").write_text('{"seed": 5}')
    run_distillation.main([*FLAGS, *PATHS])
    assert json.loads(Path("outputs/distil/layer_dropped/kd_2_rte/args.json").read_text())["seed"] == 776


def test_a_second_run_on_a_folder_is_refused_and_a_dead_one_does_not_block(workplace, capfd):
    folder = Path("outputs/distil/layer_dropped/kd_2_rte")
    flags = [*SAVING, *PATHS, "--num_train_epochs", "500", "--num_patience_epochs", "0"]
    first = forked(run_distillation.main, flags)
    wait_until((folder / ".ckpt.state").exists)
    with pytest.raises(SystemExit) as stop:
        run_distillation.main(flags)
    assert stop.value.code == 2
    assert f"process {first.pid} on" in capfd.readouterr().err
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    run_distillation.main([*FLAGS, *PATHS, "--overwrite"])
    assert sorted(path.name for path in folder.iterdir()) == ["args.json", "ckpt", "log.txt", "metrics.json"]


def test_rewinds_can_be_spread_and_go_on_at_the_first_unfinished(workplace, capsys):
    run_sparsification.main(
        ["--teacher_model_path", "teacher", "--student_model_path", "teacher", "--student_layer", "2"]
    )
    sparse = "outputs/stark/layer_dropped/kd_2_rte_0.5/ckpt"
    flags = [*FLAGS, *STUDENT, "--teacher_model_path", sparse]
    run_rewinding.main([*flags, "--teacher_sparsity", "0", "20", "50", "--output_dir", "whole"])
    parts = [forked(run_rewinding.main, [*flags, "--teacher_sparsity", sparsity]) for sparsity in ("50", "0", "20")]
    for part in parts:
        part.join()
        assert part.exitcode == 0
    whole, spread = (Path(root, "layer_dropped/kd_2_rte_0.5") for root in ("whole", "outputs/rewind"))

    def numbers(folder):
        return {s: row["dev"] for s, row in results(folder)["sparsity"].items()}

    assert numbers(spread) == numbers(whole)
    assert list(numbers(spread)) == ["0", "20", "50"]
    finished = (spread / "ckpt_50" / "metrics.json").stat().st_mtime_ns
    run_rewinding.main([*flags, "--teacher_sparsity", "0", "30", "50"])
    assert list(numbers(spread)) == ["0", "20", "30", "50"]
    assert (spread / "ckpt_50" / "metrics.json").stat().st_mtime_ns == finished


def limited(main, *flags: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # what a full disk does: no larger file can be written
    main([*flags])


def test_a_disk_that_is_full_is_one_line_and_nothing_is_lost(workplace, capfd):
    run_distillation.main([*FLAGS, *PATHS])
    folder = Path("outputs/distil/layer_dropped/kd_2_rte")
    before = {path.name: path.read_bytes() for path in (folder / "ckpt").iterdir()}
    run_metrics = (folder / "metrics.json").read_bytes()
    capfd.readouterr()
    for flags in (["--save_interval", "1"], ["--save_interval", "1000"]):
        process = multiprocessing.get_context("fork").Process(
            target=limited, args=(run_distillation.main, *FLAGS, *PATHS, "--overwrite", *flags)
        )
        process.start()
        process.join()
        error = capfd.readouterr().err
        assert process.exitcode == 1
        assert [line for line in error.splitlines() if line.startswith("error: ")] == error.splitlines()[-1:]
        assert {path.name: path.read_bytes() for path in (folder / "ckpt").iterdir()} == before
        assert (folder / "metrics.json").read_bytes() == run_metrics
    # what was to be replaced is not taken for finished
    run_distillation.main([*FLAGS, *PATHS])
    assert (folder / "metrics.json").read_bytes() != run_metrics
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_best_so_far(workplace, capsys):
    # the first update of a warm-up has learning rate 0, the second one ends it all
    flags = ["--model_path", "teacher", *FLAGS, "--max_grad_norm", "0", "--warmup_proportion", "1"]
    with pytest.raises(SystemExit) as stop:
        run_finetuning.main([*flags, "--learning_rate", "1e38", "--log_interval", "1"])
    assert stop.value.code == 1
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(r"the loss of update \d is nan|logits that are not numbers", error)
    assert "the best weights before are kept" in error
    metrics = json.loads(Path("outputs/finetune/ft_rte/metrics.json").read_text())
    assert metrics["best_update"] == 1
    assert metrics["diverged"]
    assert metrics["updates"] < 4  # none follows the evaluation that found it
    kept, teacher = (load_file(f"{path}/model.safetensors") for path in ("outputs/finetune/ft_rte/ckpt", "teacher"))
    for name, weight in kept.items():
        torch.testing.assert_close(weight, teacher[name])
    with pytest.raises(SystemExit) as stop:  # the same command again does not pass for a run that went well
        run_finetuning.main([*flags, "--learning_rate", "1e38", "--log_interval", "1"])
    assert stop.value.code == 1
    assert f"error: outputs/finetune/ft_rte: {metrics['diverged']}" in capsys.readouterr().err


def test_a_loss_that_is_never_a_number_leaves_nothing(workplace, capsys):
    flags = ["--model_path", "teacher", *FLAGS, "--max_grad_norm", "0", "--warmup_proportion", "0"]
    with pytest.raises(SystemExit) as stop:
        run_finetuning.main([*flags, "--learning_rate", "1e38", "--log_interval", "4"])
    assert stop.value.code == 1
    assert re.search(r"error: the loss of update \d is nan", capsys.readouterr().err)
    assert not Path("outputs/finetune/ft_rte/ckpt").exists()


def test_a_teacher_made_again_with_the_same_weights_is_the_same_teacher(workplace, capsys):
    Path("teacher/metrics.json").write_text('{"seconds": 1}')
    run_distillation.main([*FLAGS, *PATHS])
    Path("teacher/metrics.json").write_text('{"seconds": 2}')
    Path("teacher/scores.safetensors").write_bytes(b"what it was sorted by, which nothing here reads")
    capsys.readouterr()
    run_distillation.main([*FLAGS, *PATHS])
    assert "finished before" in capsys.readouterr().out
    Path("teacher/vocab.txt").write_text(Path("teacher/vocab.txt").read_text().replace("w1\n", "v1\n"))
    with pytest.raises(SystemExit):
        run_distillation.main([*FLAGS, *PATHS])
    assert "the content of teacher_model_path has changed" in capsys.readouterr().err


def test_kills_at_random_moments_and_stops_at_changes_of_the_disk_change_nothing(capsys):
    chaos.main(["--kills", "1", "--stops", "2", "--only", "reseed_rewind", "--train", "40"])
    assert "1 kills: the same as undisturbed" in capsys.readouterr().out
