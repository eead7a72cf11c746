"""The five scripts in a row, each finding by default what the last one left."""

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
from models.features import Features
from models.losses import INSIDE

QUICK = ["--num_train_epochs", "2", "--learning_rate", "1e-3", "--log_interval", "4"]
STUDENTS = {"layer_dropped/kd_2": ["--student_layer", "2"], "parameter_pruned/kd_70": ["--student_sparsity", "70"]}
BOTH = ["--teacher_model_path", "teacher", "--student_model_path", "teacher"]
METRICS = {"rte": {"acc"}, "stsb": {"corr", "pearson_corr", "spearman_corr"}}


def read(path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize("task", ["rte", "stsb"])
@pytest.mark.parametrize("student", STUDENTS)
def test_the_whole_chain(tmp_path, monkeypatch, bert_folder, task, student, capsys):
    write_task(tmp_path / "datasets", task)
    monkeypatch.chdir(tmp_path)
    flags, outputs = ["--task_name", task], tmp_path / "outputs"

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
    run_rewinding.main([*flags, *QUICK, *STUDENTS[student], "--do_rewind", "--do_test"])
    rewind = outputs / "rewind" / f"{student}_{task}_0.5"
    metrics = read(rewind / "metrics.json")
    assert list(metrics["sparsity"]) == [str(s) for s in range(0, 100, 10)]
    selection = "acc" if task == "rte" else "corr"
    values = {s: row["dev"][selection] for s, row in metrics["sparsity"].items()}
    assert values[str(metrics["best_teacher_sparsity"])] == max(values.values())
    # the dense end of the sweep is the trial run once more: same teacher, same start, same seed
    assert metrics["sparsity"]["0"]["dev"] == pytest.approx(read(trial / "metrics.json")["dev"], abs=0.05)
    assert metrics["trial_student"] == read(stark / "metrics.json")["student"]
    for sparsity in range(0, 100, 10):
        student_model = PrunableBert.from_pretrained(rewind / f"ckpt_{sparsity}")
        assert student_model(*random_batch(small_config())).shape == (5, 2 if task == "rte" else 1)
    printed = capsys.readouterr().out
    assert "teacher sparsity" in printed
    assert "written to" in printed
    submission = (rewind / ("RTE.tsv" if task == "rte" else "STS-B.tsv")).read_text().splitlines()
    assert submission[0] == "index\tprediction"
    assert len(submission) == 10
    for folder in (teacher, prune, trial, stark, rewind):
        assert {"args.json", "metrics.json", "log.txt"} <= {path.name for path in folder.iterdir()}
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
        arguments = read(folder / "args.json")
        assert (arguments["task_name"], arguments["seed"]) == (task, 776)
        assert arguments["torch_version"] == torch.__version__


def test_the_student_without_a_teacher_and_the_papers_way(workplace):
    flags = [*QUICK, *BOTH, "--student_layer", "1"]
    run_distillation.main([*flags, "--model_type", "ft"])
    run_distillation.main(flags)
    run_distillation.main(
        [*flags, "--pad_to_max_length", "--no_group_by_length", "--no_teacher_cache", "--no_exact_shortcuts"]
        + ["--output_dir", "slow"]
    )
    alone, taught, slow = (
        read(workplace / folder / "metrics.json")["history"]
        for folder in (
            "outputs/distil/layer_dropped/ft_1_rte",
            "outputs/distil/layer_dropped/kd_1_rte",
            "slow/layer_dropped/kd_1_rte",
        )
    )
    assert alone[0]["loss"] != pytest.approx(taught[0]["loss"], abs=1e-3)
    assert [entry["update"] for entry in slow] == [entry["update"] for entry in taught]


def test_the_same_seed_gives_the_same_metrics_whatever_ran_before(workplace):
    histories = []
    for folder in ("a", "b"):
        torch.rand(3 if folder == "a" else 7)
        run_distillation.main([*QUICK, *BOTH, "--student_layer", "2", "--output_dir", folder])
        histories.append(read(workplace / folder / "layer_dropped" / "kd_2_rte" / "metrics.json")["history"])
    assert histories[0] == histories[1]


def test_the_first_rows_only(tmp_path, monkeypatch, bert_folder, caplog):
    write_task(tmp_path / "datasets", "rte")
    monkeypatch.chdir(tmp_path)
    limits = ["--max_train_examples", "10", "--max_eval_examples", "5", "--use_bf16"]
    run_finetuning.main([*QUICK, *limits, "--model_path", str(bert_folder)])
    log = (tmp_path / "outputs" / "finetune" / "ft_rte" / "log.txt").read_text()
    assert "writing to outputs/finetune/ft_rte" in log
    metrics = read(tmp_path / "outputs" / "finetune" / "ft_rte" / "metrics.json")
    assert metrics["updates"] == 2
    assert metrics["dev"]["acc"] * 5 == pytest.approx(round(metrics["dev"]["acc"] * 5))


@pytest.mark.parametrize("score", ["expressive", "friendly", "random", "magnitude"])
def test_other_scores_sort_the_teacher_and_remove_as_many_units(workplace, score):
    run_sparsification.main([*BOTH, "--score", score, "--student_layer", "2", "--score_split", "train"])
    folder = workplace / "outputs/stark/layer_dropped" / f"kd_2_rte_{score}" / "ckpt"
    ranking = load_file(folder / "scores.safetensors")[f"head_{score}"]
    removed = read(folder / "config.json")["sparsity_map"]["50"]
    assert sum(removed["head"].values()) == 6
    assert sum(removed["neuron"].values()) == 48
    lowest = ranking.flatten().argsort()[:6] // 4
    assert removed["head"] == {str(layer): int((lowest == layer).sum()) for layer in set(lowest.tolist())}
    run_rewinding.main(
        [*QUICK, "--score", score, "--student_layer", "2", "--student_model_path", "teacher"]
        + ["--teacher_sparsity", "50"]
    )
    assert (workplace / "outputs/rewind/layer_dropped" / f"kd_2_rte_{score}" / "ckpt_50").is_dir()


@pytest.mark.parametrize("flag", ["--pkd_weight", "--tinybert_weight", "--minilm_weight"])
def test_losses_between_layers_bring_the_student_nearer_to_the_teacher_inside(workplace, flag):
    # evaluated once, so that the last weights are kept
    flags = [*QUICK, *BOTH, "--student_layer", "2", "--num_train_epochs", "5", "--log_interval", "20"]
    weight = "1000" if "pkd" in flag else "10"
    run_distillation.main(flags)
    run_distillation.main([*flags, flag, weight, "--output_dir", "inside"])
    folder = workplace / "inside" / "layer_dropped" / "kd_2_rte"
    batch, apart = random_batch(small_config()), []
    for checkpoint in ("outputs/distil/layer_dropped/kd_2_rte/ckpt", folder / "ckpt"):
        student, teacher = (PrunableBert.from_pretrained(path).eval() for path in (checkpoint, "teacher"))
        features = Features(student), Features(teacher)
        student(*batch), teacher(*batch)
        apart.append(INSIDE[flag[2:-7]](*features, batch[2]).mean().item())
    assert apart[1] < 0.9 * apart[0]
    log = (folder / "log.txt").read_text()
    assert f"with {flag[2:-7]}: the teacher is asked in every step" in log


def test_a_student_learns_between_layers_from_cut_teachers(workplace):
    run_sparsification.main([*BOTH, "--student_layer", "2"])
    run_rewinding.main(
        [*QUICK, "--student_layer", "2", "--student_model_path", "teacher", "--teacher_sparsity", "0", "90"]
        + ["--tinybert_weight", "1", "--minilm_weight", "1", "--pkd_weight", "10"]
    )
    results = read(workplace / "outputs/rewind/layer_dropped/kd_2_rte_0.5/metrics.json")["sparsity"]
    assert results["0"]["history"][0]["loss"] != results["90"]["history"][0]["loss"]
    assert (
        "the teacher is asked in every step"
        in (workplace / "outputs/rewind/layer_dropped/kd_2_rte_0.5/log.txt").read_text()
    )


def test_models_of_other_widths_are_compared_by_their_relations_alone(workplace, capsys):
    PrunableBert(small_config(hidden_size=16)).save_pretrained("narrow")
    write_vocabulary(workplace / "narrow")
    flags = [*QUICK, "--teacher_model_path", "teacher", "--student_model_path", "narrow", "--student_layer", "2"]
    for flag in ("--pkd_weight", "--tinybert_weight"):
        line = refused(run_distillation, capsys, *flags, flag, "1")
        assert f"{flag}: compares hidden states, the student's are of 16 numbers, the teacher's of 32" in line
    run_distillation.main([*flags, "--minilm_weight", "1"])


def test_one_half_of_dev_selects_and_the_other_reports(workplace):
    run_distillation.main([*QUICK, *BOTH, "--student_layer", "2", "--selection_split", "half"])
    metrics = read(workplace / "outputs/distil/layer_dropped/kd_2_rte/metrics.json")
    # 21 rows: 11 select, 10 report
    assert metrics["dev"]["acc"] * 11 == pytest.approx(round(metrics["dev"]["acc"] * 11))
    assert metrics["report"]["acc"] * 10 == pytest.approx(round(metrics["report"]["acc"] * 10))
    assert metrics["teacher"]["acc"] * 10 == pytest.approx(round(metrics["teacher"]["acc"] * 10))
    assert metrics["dev"]["acc"] == max(entry["acc"] for entry in metrics["history"])


def test_a_student_of_other_layers_has_a_folder_of_its_own(workplace):
    run_distillation.main([*QUICK, *BOTH, "--student_layer", "2", "--layer_choice", "0,2"])
    folder = workplace / "outputs/distil/layer_dropped/kd_2-0.2_rte/ckpt"
    assert read(folder / "config.json")["num_hidden_layers"] == 2
    run_sparsification.main([*BOTH[:2], "--student_layer", "2", "--layer_choice", "0,2"])
    assert (workplace / "outputs/stark/layer_dropped/kd_2-0.2_rte_0.5/ckpt").is_dir()


def test_every_checkpoint_says_what_it_is_and_curves_go_to_a_tracker(workplace):
    run_distillation.main([*QUICK, *BOTH, "--student_layer", "2", "--report_to", "tensorboard"])
    folder = workplace / "outputs/distil/layer_dropped/kd_2_rte"
    card, metrics = (folder / "ckpt" / "README.md").read_text(), read(folder / "metrics.json")
    assert "This is a student for RTE, distilled from the dense teacher." in card
    assert f"| metrics | acc {metrics['report']['acc']:.4f} |" in card
    assert "| layers | 2 |" in card
    assert "| --learning_rate | 0.001 |" in card
    [digest] = {line.split("digest ")[1] for line in card.splitlines() if "digest" in line}  # one teacher, one start
    assert digest.startswith(read(folder / "args.json")["inputs"]["teacher_model_path"])
    # settings go to event files of their own, below the curves'
    [curves] = (path for path in folder.rglob("events.out.tfevents.*") if b"ckpt/loss" in path.read_bytes())
    events = EventAccumulator(str(curves)).Reload()
    found = [(event.step, event.value) for event in events.Scalars("ckpt/acc")]
    assert found == [(entry["update"], pytest.approx(entry["acc"])) for entry in metrics["history"]]


def test_a_tracker_that_is_not_installed_is_named(workplace, capsys):
    with pytest.raises(SystemExit) as stop:
        run_finetuning.main(["--model_path", "teacher", "--report_to", "wandb"])
    assert stop.value.code == 2
    assert "--report_to wandb: not installed: pip install wandb" in capsys.readouterr().err
    assert not (workplace / "outputs").exists()
