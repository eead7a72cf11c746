"""The five scripts in a row, each with the outputs of the one before by default."""

import json

import pytest
import torch
from conftest import random_batch, refused, small_config, write_task, write_vocabulary
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from models.bert import PrunableBert

QUICK = ["--num_train_epochs", "2", "--learning_rate", "1e-3", "--log_interval", "4"]
STUDENTS = {"layer_dropped/kd_2": ["--student_layer", "2"], "parameter_pruned/kd_70": ["--student_sparsity", "70"]}
BOTH = ["--teacher_model_path", "teacher", "--student_model_path", "teacher"]
METRICS = {"rte": {"acc"}, "stsb": {"corr", "pearson_corr", "spearman_corr"}}


def read(path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize(("student", "task"), [*zip(STUDENTS, ("stsb", "rte"), strict=True)])
def test_the_whole_chain(tmp_path, monkeypatch, bert_folder, task, student, capsys):
    write_task(tmp_path / "datasets", task)
    monkeypatch.chdir(tmp_path)
    flags = ["--task_name", task]
    outputs = tmp_path / "outputs"

    run_finetuning.main([*flags, *QUICK, "--model_path", str(bert_folder), "--do_train"])
    teacher = outputs / "finetune" / f"ft_{task}"
    assert set(read(teacher / "metrics.json")["dev"]) == METRICS[task]
    names = {"rte": {"0": "not_entailment", "1": "entailment"}, "stsb": {"0": "score"}}
    assert read(teacher / "ckpt" / "config.json")["id2label"] == names[task]

    run_pruning.main(flags)
    prune = outputs / "prune" / f"ft_{task}"
    assert list(read(prune / "metrics.json")["sparsity"]) == [str(s) for s in range(0, 100, 10)]

    run_distillation.main([*flags, *QUICK, *STUDENTS[student], "--do_distil"])
    trial = outputs / "distil" / f"{student}_{task}"
    config = read(trial / "ckpt" / "config.json")
    assert (config["num_hidden_layers"], config.get("sparsity", "0")) == ((2, "0") if "layer" in student else (3, "70"))

    run_sparsification.main([*flags, *STUDENTS[student], "--lam", "0.5"])
    stark = outputs / "stark" / f"{student}_{task}_0.5"
    scores = load_file(stark / "ckpt" / "scores.safetensors")
    assert {name: tuple(score.shape) for name, score in scores.items()} == {
        f"{kind}_{name}": shape
        for kind, shape in (("head", (3, 4)), ("neuron", (3, 32)))
        for name in ("expressive", "friendly", "knowledgeable")
    }
    # the trial student's metric is that of the checkpoint that stage 3 kept
    assert read(stark / "metrics.json")["student"] == pytest.approx(read(trial / "metrics.json")["dev"])

    capsys.readouterr()
    # the default are ten
    sparsities, chosen = (range(0, 100, 10), []) if task == "rte" else ((0, 90), ["--teacher_sparsity", "0", "90"])
    run_rewinding.main([*flags, *QUICK, *STUDENTS[student], "--do_rewind", "--do_test", *chosen])
    rewind = outputs / "rewind" / f"{student}_{task}_0.5"
    metrics = read(rewind / "metrics.json")
    assert list(metrics["sparsity"]) == [str(s) for s in sparsities]
    selection = "acc" if task == "rte" else "corr"
    values = {s: row["dev"][selection] for s, row in metrics["sparsity"].items()}
    assert values[str(metrics["best_teacher_sparsity"])] == max(values.values())
    # the dense end of the sweep is the trial run once more: same teacher, same start, same seed
    assert metrics["sparsity"]["0"]["dev"] == pytest.approx(read(trial / "metrics.json")["dev"], abs=0.05)
    assert metrics["trial_student"] == read(stark / "metrics.json")["student"]
    for sparsity in sparsities:
        student_model = PrunableBert.from_pretrained(rewind / f"ckpt_{sparsity}")
        assert student_model(*random_batch(small_config())).shape == (5, 2 if task == "rte" else 1)
    printed = capsys.readouterr().out
    assert "teacher sparsity" in printed
    assert "written to" in printed
    assert "trained otherwise" not in printed
    other = ["--alpha", "0.25", "--num_train_epochs", "1", "--teacher_sparsity", "90", "--output_dir", "other"]
    run_rewinding.main([*flags, *QUICK, *STUDENTS[student], *other])
    note = "the trial student was trained otherwise: --alpha 0.5, now 0.25, --num_train_epochs 2, now 1\n"
    assert note in capsys.readouterr().out
    submission = (rewind / ("RTE.tsv" if task == "rte" else "STS-B.tsv")).read_text().splitlines()
    assert submission[0] == "index\tprediction"
    assert len(submission) == 10
    for folder in (teacher, prune, trial, stark, rewind):
        assert {"args.json", "metrics.json", "log.txt"} <= {path.name for path in folder.iterdir()}
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
        arguments = read(folder / "args.json")
        assert (arguments["task_name"], arguments["seed"]) == (task, 776)
        assert arguments["torch_version"] == torch.__version__


def test_the_same_seed_gives_the_same_metrics_whatever_ran_before(workplace):
    histories = []
    for folder in ("a", "b"):
        torch.rand(3 if folder == "a" else 7)
        run_distillation.main([*QUICK, *BOTH, "--student_layer", "2", "--output_dir", folder])
        histories.append(read(workplace / folder / "layer_dropped" / "kd_2_rte" / "metrics.json")["history"])
    assert histories[0] == histories[1]


def test_a_student_learns_between_layers_from_cut_teachers(workplace):
    run_sparsification.main([*BOTH, "--student_layer", "2"])
    run_rewinding.main(
        [*QUICK, "--student_layer", "2", "--student_model_path", "teacher", "--teacher_sparsity", "0", "90"]
        + ["--tinybert_weight", "1", "--minilm_weight", "1", "--pkd_weight", "10"]
    )
    results = read(workplace / "outputs/rewind/layer_dropped/kd_2_rte_0.5/metrics.json")["sparsity"]
    assert results["0"]["history"][0]["loss"] != results["90"]["history"][0]["loss"]
    assert (
        "the teacher runs in every step"
        in (workplace / "outputs/rewind/layer_dropped/kd_2_rte_0.5/log.txt").read_text()
    )


def test_a_cut_teachers_metrics_are_those_of_stage_4_if_it_has_measured_alike(workplace):
    run_sparsification.main([*BOTH, "--student_layer", "2"])
    path = workplace / "outputs/stark/layer_dropped/kd_2_rte_0.5/ckpt/metrics.json"
    measured = read(path)
    flags = [*QUICK, "--student_layer", "2", "--student_model_path", "teacher", "--teacher_sparsity", "0", "90"]

    def teachers(*more: str) -> list[dict]:
        folder = f"rewound{len(list(workplace.glob('rewound*')))}"
        run_rewinding.main([*flags, *more, "--output_dir", folder])
        [written] = (workplace / folder).glob("layer_dropped/*/metrics.json")
        trial = read(written)["trial_student"]
        return [*(row["teacher"] for row in read(written)["sparsity"].values()), trial]

    *measured_before, trial = teachers()
    assert trial == measured["student"]
    assert measured_before == [measured["sparsity"][s] for s in ("0", "90")]
    # a number that no model has shows where it is from
    measured["sparsity"]["90"]["acc"] = 0.125
    path.write_text(json.dumps(measured))
    assert teachers()[1] == {"acc": 0.125}
    for other in (["--use_bf16"], ["--max_length", "8"]):
        _, last, trial = teachers(*other)
        assert last["acc"] != 0.125
        assert trial == {}
    # the trial student's metric is not another student's
    assert teachers("--student_layer", "1", "--teacher_model_path", str(path.parent))[1:] == [{"acc": 0.125}, {}]
    settings = read(path.with_name("args.json"))
    for change in ({"task_name": "mrpc"}, {"inputs": {}}):
        path.with_name("args.json").write_text(json.dumps({**settings, **change}))
        assert teachers()[1]["acc"] != 0.125


def test_models_of_other_widths_are_compared_by_their_relations_alone(workplace, capsys):
    PrunableBert(small_config(hidden_size=16)).save_pretrained("narrow")
    write_vocabulary(workplace / "narrow")
    flags = [*QUICK, "--teacher_model_path", "teacher", "--student_model_path", "narrow", "--student_layer", "2"]
    for flag in ("--pkd_weight", "--tinybert_weight"):
        line = refused(run_distillation, capsys, *flags, flag, "1")
        assert f"{flag}: compares hidden states, the student's are of 16 numbers, the teacher's of 32" in line
    run_distillation.main([*flags, "--minilm_weight", "1"])


def test_a_student_of_other_layers_has_a_folder_of_its_own(workplace):
    run_distillation.main([*QUICK, *BOTH, "--student_layer", "2", "--layer_choice", "0,2"])
    folder = workplace / "outputs/distil/layer_dropped/kd_2-0.2_rte/ckpt"
    assert read(folder / "config.json")["num_hidden_layers"] == 2
    run_sparsification.main([*BOTH[:2], "--student_layer", "2", "--layer_choice", "0,2"])
    assert (workplace / "outputs/stark/layer_dropped/kd_2-0.2_rte_0.5/ckpt").is_dir()


def test_every_checkpoint_has_a_model_card_and_a_tracker_logs_curves(workplace):
    run_distillation.main([*QUICK, *BOTH, "--student_layer", "2", "--report_to", "tensorboard"])
    folder = workplace / "outputs/distil/layer_dropped/kd_2_rte"
    card = (folder / "ckpt" / "README.md").read_text()
    metrics = read(folder / "metrics.json")
    assert "tags: [bert, glue," in card
    assert "This is a student for RTE, distilled from the dense teacher." in card
    assert f"| its teacher's | acc {metrics['teacher']['acc']:.4f} |" in card
    assert "`from models import load_model`" in card
    assert "`from student import load_student`" in card
    assert f"| metrics | acc {metrics['report']['acc']:.4f} |" in card
    assert "| layers | 2 |" in card
    assert "| --learning_rate | 0.001 |" in card
    lines = card.splitlines()
    headers = [above for above, line in zip(lines, lines[1:], strict=False) if line.startswith("|--")]
    assert headers == ["| fact |  |", "| from | what |", "| run_distillation.py |  |"]
    [digest] = {line.split("digest ")[1] for line in card.splitlines() if "digest" in line}  # one teacher, one start
    assert digest.startswith(read(folder / "args.json")["inputs"]["teacher_model_path"])
    # settings go to event files of their own, below the curves'
    [curves] = (path for path in folder.rglob("events.out.tfevents.*") if b"ckpt/loss" in path.read_bytes())
    events = EventAccumulator(str(curves)).Reload()
    found = [(event.step, event.value) for event in events.Scalars("ckpt/acc")]
    assert found == [(entry["update"], pytest.approx(entry["acc"])) for entry in metrics["history"]]


def test_the_card_of_a_student_without_a_teacher_names_none(workplace):
    run_distillation.main([*QUICK, *BOTH, "--student_layer", "1", "--model_type", "ft"])
    card = (workplace / "outputs/distil/layer_dropped/ft_1_rte/ckpt/README.md").read_text()
    assert "This is a student for RTE, trained without a teacher." in card
    assert "its teacher's" not in card


def test_a_tracker_that_is_not_installed_is_named(workplace, capsys):
    with pytest.raises(SystemExit) as stop:
        run_finetuning.main(["--model_path", "teacher", "--report_to", "wandb"])
    assert stop.value.code == 2
    assert "--report_to wandb: not installed: pip install wandb" in capsys.readouterr().err
    assert not (workplace / "outputs").exists()
