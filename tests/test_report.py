"""Means, tables, comparisons and the page, against numbers worked out by hand or by scipy."""

import csv
import json
import re
import shutil
import statistics
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refused, small_config, write_task, write_vocabulary
from scipy import stats
from transformers import BertModel

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from scripts import export, report, report_costs
from scripts import report_comparisons as comparisons
from scripts import report_data as data
from scripts import report_tables as tables
from scripts.report_statistics import compare, multi_bootstrap, row_counts, seeds_needed
from scripts.report_words import conclusion
from utils.errors import InputError
from utils.predictions import PREDICTIONS, read_predictions, save_predictions

VALUES = {  # seed -> what the dense teacher's student came to, and those of a sparse teacher at 0, 30 and 60 %
    1: (0.60, {"0": 0.60, "30": 0.64, "60": 0.61}),
    2: (0.62, {"0": 0.62, "30": 0.61, "60": 0.65}),
    3: (0.61, {"0": 0.61, "30": 0.66, "60": 0.58}),
}
BEST = {1: (30,), 2: (60,), 3: (30,)}  # seed -> sparsities


def write(folder: Path, args: dict, metrics: dict) -> None:
    """The checkpoint of a run, or one for each teacher sparsity: percent -> metrics."""
    by_name = {f"ckpt_{sparsity}": result for sparsity, result in metrics.items() if sparsity.isdigit()}
    for name, result in (by_name or {"ckpt": metrics}).items():
        (folder / name).mkdir(parents=True)
        settings = {"task_name": "rte", "seed": 1, "teacher_model_path": "no", **args}
        (folder / name / "args.json").write_text(json.dumps(settings))
        (folder / name / "metrics.json").write_text(json.dumps(result))


def result(value: float, **more) -> dict:
    history = [{"update": 1, "epoch": 1.0, "loss": 0.7, "acc": value}]
    return {"dev": {"acc": value}, "train_seconds": 1.0, "history": history, **more}


@pytest.fixture
def outputs(tmp_path) -> Path:
    student = {"student_layer": 2, "student_sparsity": None, "model_type": "kd"}
    for seed, (trial, sparse) in VALUES.items():
        root, common = tmp_path / "outputs" / f"seed_{seed}", {"seed": seed}
        write(root / "finetune" / "ft_rte", {**common, "model_type": "ft"}, result(0.7))
        write(root / "distil" / "kd_2_rte", {**common, **student}, result(trial, teacher={"acc": 0.7}))
        rows = {sparsity: result(value, teacher={"acc": 0.5}) for sparsity, value in sparse.items()}
        write(root / "rewind" / "kd_2_rte_0.5", {**common, **student, "lam": 0.5}, rows)
    return tmp_path / "outputs"


def test_every_number_is_a_line_of_the_csv(outputs, tmp_path):
    rows = data.collect(data.checkpoints([outputs]))
    data.write_csv(tmp_path / "results.csv", rows)
    with open(tmp_path / "results.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * (1 + 1 + 3)
    sparse = {(line["seed"], line["teacher_sparsity"]): line for line in lines if line["method"] == "lam 0.5"}
    assert sparse["2", "60"]["value"] == "0.65"
    assert sparse["2", "60"]["teacher_value"] == "0.5"
    assert (sparse["2", "60"]["student"], sparse["2", "60"]["selected_on"]) == ("2 layers", "dev")


def rows_of(outputs: Path) -> list[data.Row]:
    return data.collect(data.checkpoints([outputs]))


def test_the_table_has_a_line_a_method_and_a_column_a_task_and_says_what_is_missing(outputs):
    write(outputs / "mrpc", {"task_name": "mrpc", "model_type": "ft"}, {"dev": {"acc_and_f1": 0.8}, "rows": 50})
    table = tables.results_table(rows_of(outputs), {}, "")
    assert table.header[:4] == ("student", "taught by", "MRPC\n(accuracy + F1) / 2\n50 rows", "RTE\naccuracy")
    # best of each seed: 0.64, 0.65, 0.66; mean 0.65, sample deviation 0.01
    assert [line[:4] for line in table.lines] == [
        ("", "the teacher itself", "80.00 (1 seed)", "70.00 ± 0.00"),
        ("2 layers", "no teacher", "missing", "missing"),
        ("2 layers", "dense teacher", "missing", "61.00 ± 1.00"),
        ("2 layers", "lam 0.5, best of 3", "missing", "**65.00 ± 1.00**"),
    ]
    assert "| 2 layers | dense teacher | missing | 61.00 ± 1.00 | - | - | - |\n" in tables.markdown(table)
    latex = tables.latex(table)
    assert r"2 layers & lam 0.5, best of 3 & missing & \textbf{65.00 $\pm$ 1.00} & - & - & - \\" in latex
    assert r"MRPC, (accuracy + F1) / 2, 50 rows & RTE, accuracy" in latex


def test_a_score_that_another_student_was_not_taught_by_is_missing_there(outputs):
    args = {"student_layer": 3, "student_sparsity": None, "model_type": "kd", "lam": 1.0}
    write(outputs / "other" / "kd_3_rte_1.0", args, {"30": result(0.6, teacher={"acc": 0.5})})
    lines = [line[:3] for line in tables.results_table(rows_of(outputs), {}, "").lines]
    assert ("2 layers", "lam 1", "missing") in lines
    assert ("3 layers", "lam 0.5", "missing") in lines
    assert ("3 layers", "lam 1, best of 1", "60.00 (1 seed)") in lines


def test_of_two_that_tie_none_is_marked_as_the_best(outputs):
    rows = [replace(row, value=0.61, dev_select=0.61) if row.student else row for row in rows_of(outputs)]
    assert "**" not in tables.markdown(tables.results_table(rows, {}, ""))


def test_what_speaks_against_a_number_is_a_note_on_it(outputs):
    rows = [
        replace(row, diverged="at update 3", only_answer="entailment", commoner_share=0.5, rows=20)
        if (row.method, row.teacher_sparsity, row.seed) == ("lam 0.5", 30, 1)
        else row
        for row in rows_of(outputs)
    ]
    table = tables.results_table(rows, {}, "")
    assert table.header[2] == "RTE\naccuracy\n20 rows\ncommoner class 50.00 %"
    assert table.lines[-1][2] == "**65.00 ± 1.00** †"
    assert table.notes == (
        "† RTE, 2 layers, lam 0.5: one answer to every row in 1 of 3 seeds; training diverged in 1 of 9 runs, "
        "and the weights before count.",
    )


CONFIG = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 32, "num_hidden_layers": 2}
CONFIG |= {"vocab_size": 45, "max_position_embeddings": 40, "type_vocab_size": 2, "sparsity": "50"}
CONFIG |= {"id2label": {"0": "a", "1": "b", "2": "c"}}
CONFIG |= {"sparsity_map": {"50": {"head": {"0": 1}, "neuron": {"1": 8}}}}


def test_seeds_that_were_trained_otherwise_are_a_note_on_their_mean(outputs):
    rows = [replace(row, recipe={"learning_rate": 5e-05 if row.seed == 1 else 0.0001}) for row in rows_of(outputs)]
    notes = tables.results_table(rows, {}, "").notes
    assert "† RTE, 2 layers, dense teacher: seeds not trained alike, learning_rate 5e-05 and 0.0001." in notes
    assert not any("alike" in note for note in tables.results_table(rows_of(outputs), {}, "").notes)


def test_parameters_and_macs_follow_from_the_widths_in_config_json(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    # a head is 3 x 8 columns with biases, and 8 rows; a neuron a column with its bias, and a row
    heads, neurons = 3 + 4, 32 + 24
    rest = 32 * (45 + 40 + 2 + 2) + 2 * (32 + 32 + 4 * 32) + 32 * 33 + 3 * 33
    assert report_costs.costs_of(tmp_path) == (
        rest + heads * (24 * 33 + 8 * 32) + neurons * 65,
        128 * (heads * (4 * 32 * 8 + 2 * 128 * 8) + neurons * 2 * 32) + 32 * 32 + 32 * 3,
    )
    assert report_costs.costs_of(tmp_path / "gone") is None


def test_costs_stand_beside_scores_and_are_compared_with_the_teachers(outputs):
    rows = [
        replace(row, parameters=1_500_000 + row.seed * 1000 if row.student else 3_000_000, macs=2_000_000_000)
        for row in rows_of(outputs)
    ]
    lines = {line[1]: line[-3:] for line in tables.results_table(rows, {"": 10.0, "2 layers": 25.0}, "").lines}
    assert lines["the teacher itself"] == ("3 M", "2 G", "10")
    assert lines["dense teacher"] == ("1.5 M (50 %)", "2 G (100 %)", "25 (2.5x)")
    assert lines["no teacher"] == ("-", "-", "-")
    wide = [replace(row, parameters=row.seed * 10**6) for row in rows]
    lines = {line[1]: line[-3] for line in tables.results_table(wide, {}, "").lines}
    assert lines["dense teacher"] == "1 M - 3 M (100 %)"


@pytest.mark.parametrize("changed", [{"hidden_size": None}, {"sparsity_map": {}}, {"sparsity": "half"}])
def test_a_config_json_that_gives_no_widths_is_named_before_anything_is_written(outputs, capsys, monkeypatch, changed):
    monkeypatch.chdir(outputs)
    folder = outputs / "seed_1" / "distil" / "kd_2_rte" / "ckpt"
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changed}))
    assert f"{folder.relative_to(outputs)}/config.json: " in refused(report, capsys, ".")


def test_students_that_halving_has_dropped_are_marked_and_do_not_count(outputs, tmp_path):
    [path] = outputs.glob("seed_2/rewind/*/ckpt_60/metrics.json")
    before = json.loads(path.read_text())
    path.write_text(json.dumps({**before, "dropped_at": 3, "dev": {"acc": 0.99}}))
    report.main([str(outputs), "--report_dir", str(tmp_path / "report")])
    text = (tmp_path / "report/results.md").read_text()
    assert "lam 0.5: --halving has dropped 1 of 9 runs, which do not count." in text
    assert "99" not in (tmp_path / "report/by_sparsity.md").read_text()
    best = data.best_by_seed(row for row in rows_of(outputs) if row.method == "lam 0.5")
    assert best[2].teacher_sparsity != 60
    assert "dropped early" in (tmp_path / "report/index.html").read_text()


def test_of_a_sweep_with_halving_the_best_counts_alone(outputs):
    rows = [
        replace(row, dropped_at=3) if row.teacher_sparsity == 60 and row.seed == 2 else row for row in rows_of(outputs)
    ]
    compared = [comparisons.comparison_table(rows, overall, {}) for overall in (True, False)]
    assert [line[2] for table in compared for line in table.lines if line[3] == "dense"] == ["lam 0.5, best"]
    assert [arm.label for arm in comparisons.arms(rows)] == ["lam 0.5, best"]
    sentence, limits = conclusion(rows)
    assert "the best of 2 sparse teachers and the dense one" in sentence
    assert "which picks nothing" not in limits


def test_students_whose_training_differs_are_marked_and_the_conclusion_says_so(outputs):
    rows = [
        replace(
            row, recipe={"num_train_epochs": 1 if row.method == data.TRIAL else 10, "learning_rate": 0.1, "alpha": 1}
        )
        for row in rows_of(outputs)
    ]
    alone = [
        replace(row, method=data.ALONE, recipe={"num_train_epochs": 1, "learning_rate": 0.1})
        for row in rows
        if row.method == data.TRIAL
    ]
    table = comparisons.comparison_table(rows + alone, True, {})
    assert [line[5] for line in table.lines] == ["+4.00 †", "+1.50 †", "+0.00"]
    apart = "num_train_epochs 10 against 1"
    assert table.notes[0] == f"† RTE, 2 layers, lam 0.5 and dense: not trained alike, {apart}."
    assert f"were not trained alike: {apart} on RTE." in conclusion(rows)[1]
    assert "trained alike" not in conclusion(rows_of(outputs))[1]
    crossed = [
        replace(row, recipe={"num_train_epochs": 3 if (row.method == data.TRIAL) == (row.seed == 1) else 10})
        for row in rows_of(outputs)
    ]
    assert (
        "not trained alike, num_train_epochs 10 against 3" in comparisons.comparison_table(crossed, True, {}).notes[0]
    )


def test_students_taught_on_text_without_labels_are_held_against_those_without_a_teacher(outputs):
    plain = rows_of(outputs)
    taught = [replace(row, student=f"{row.student} + 20 unlabelled rows") for row in plain if row.student]
    alone = [replace(row, method=data.ALONE, value=row.value + 0.01) for row in plain if row.method == data.TRIAL]
    table = comparisons.comparison_table(taught + alone, True, {})
    assert [line[1] for line in table.lines if line[2] == data.ALONE] == ["2 layers + 20 unlabelled rows"]
    lines = tables.results_table(taught + alone, {}, "").lines
    assert {line[0] for line in lines} == {"", "2 layers + 20 unlabelled rows"}
    assert [line[2] for line in lines if line[1] == data.ALONE] != ["missing"]
    [arm] = [arm for arm in comparisons.arms(taught + alone) if arm.method == data.ALONE]
    assert arm.group == "RTE, student: 2 layers + 20 unlabelled rows"
    assert arm.compared.difference == pytest.approx(1)
    other = [replace(row, task="mrpc", student=row.student.replace("20", "30")) for row in taught]
    cells = compared_cells(taught + other, {})
    assert all("Holm" in line[0] for line in cells.values())
    cells = compared_cells(taught + [replace(row, task="rte") for row in other], {})  # more text on the same task
    assert not any("Holm" in line[0] for line in cells.values())


def test_batches_are_compared_by_examples_an_update(outputs):
    for path in outputs.glob("*/*/*/*/args.json"):
        many = (
            {"per_device_train_batch_size": 16}
            if "distil" in path.parts
            else {"per_device_train_batch_size": 4, "num_processes": 4}
        )
        path.write_text(json.dumps({**json.loads(path.read_text()), **many}))
    rows = rows_of(outputs)
    assert {row.recipe["examples_per_update"] for row in rows if row.student} == {16}
    assert "trained alike" not in conclusion(rows)[1]


def test_students_that_halving_dropped_are_lent_to_no_method_and_held_against_none(outputs):
    rows = rows_of(outputs)
    dropped = [replace(row, dropped_at=3) if row.teacher_sparsity == 0 else row for row in rows]
    other = [replace(row, method="lam 1") for row in rows if row.teacher_sparsity == 60]
    assert not [
        row for row in data.with_dense_ends(dropped + other) if (row.method, row.teacher_sparsity) == ("lam 1", 0)
    ]
    spread = [
        replace(row, method="lam 0.5, x", variant="x", dropped_at=3 if row.seed == 1 else None)
        for row in rows
        if row.teacher_sparsity == 60
    ]
    assert not [line for line in comparisons.comparison_table(rows + spread, True, {}).lines if "x" in line[2]]


def test_means_are_of_sparsities_that_all_seeds_and_both_methods_have(outputs):
    rows = rows_of(outputs)
    unfinished = [row for row in rows if (row.seed, row.teacher_sparsity) != (3, 60)]
    found = {line[2]: line for line in comparisons.comparison_table(unfinished, True, {}).lines}
    assert found["lam 0.5, mean of all cut"][5] == "+1.75"  # 0.625 and 0.63 less 0.60 and 0.62
    random = [replace(row, method="random", value=0.5) for row in rows if row.teacher_sparsity == 60]
    lines = comparisons.comparison_table(rows + random, True, {}).lines
    # 0.61, 0.65 and 0.58 at 60 %
    assert [line[5] for line in lines if line[3] == "random"] == ["+11.33", "+11.33"]


def test_comparisons_are_paired_over_seeds(outputs):
    found = [comparisons.comparison_table(rows_of(outputs), overall, {}) for overall in (True, False)]
    lines = {line[2]: line[3:] for table in found for line in table.lines}
    assert lines["lam 0.5, best"][:3] == ("dense", "65.00", "+4.00")
    assert lines["lam 0.5, mean of all cut"][2] == "+1.50"  # 0.625, 0.63 and 0.62 less 0.60, 0.62 and 0.61
    assert lines["lam 0.5, 30 %"][4] == "2 / 1 of 3"
    assert lines["lam 0.5, 0 %"] == ("dense", "61.00", "+0.00", "-", "0 / 0 of 3", "1.000", "all equal", "-", "-")


def test_students_are_averaged_over_the_seeds_that_both_sides_have(outputs):
    rows = [row for row in rows_of(outputs) if row.method != data.TRIAL or row.seed != 1]
    line = next(line for line in comparisons.comparison_table(rows, True, {}).lines if line[3] == "dense")
    ours = [100 * row.value for row in data.best_by_seed(r for r in rows if r.is_swept).values() if row.seed != 1]
    assert line[4] == f"{statistics.fmean(ours):.2f}"
    assert line[6 + 1].endswith("of 2")


def test_comparisons_are_counted_and_those_beyond_noise_are_marked(outputs):
    rows = [
        replace(row, value=row.value + (0.1 if row.teacher_sparsity == 30 else 0), dev_select=0.5)
        for row in rows_of(outputs)
    ]
    table = comparisons.comparison_table(rows, False, {})
    intervals = {line[2]: line[6] for line in table.lines}
    assert re.fullmatch(r"\*\*\+[\d.]+ to \+[\d.]+\*\*", intervals["lam 0.5, 30 %"])
    assert "**" not in intervals["lam 0.5, 60 %"]
    assert "leave out 0, 1 of 2. They are not corrected" in table.caption  # at 0 % all differences are 0


def test_scores_are_compared_with_random_ones_where_there_are_some(outputs):
    student = {"student_layer": 2, "student_sparsity": None, "model_type": "kd", "lam": 0.5, "score": "random"}
    for seed in VALUES:
        sparse = {sparsity: result(value, teacher={"acc": 0.5}) for sparsity, value in (("30", 0.6), ("60", 0.62))}
        folder = outputs / f"seed_{seed}" / "rewind" / "kd_2_rte_random"
        write(folder, {**student, "seed": seed}, sparse)
    lines = [
        (*line[2:4], line[5])
        for line in comparisons.comparison_table(rows_of(outputs), True, {}).lines
        if line[3] == "random"
    ]
    assert lines == [("lam 0.5, best", "random", "+3.00"), ("lam 0.5, mean of all cut", "random", "+1.50")]
    each = comparisons.comparison_table(rows_of(outputs), False, {}).lines
    # 0.64, 0.61 and 0.66 less 0.60
    assert ("lam 0.5, 30 %", "+3.67") in [(line[2], line[5]) for line in each if line[3] == "random"]


def test_schedules_are_methods_of_their_own_and_change_no_number_of_a_sparsity(outputs, tmp_path):
    def reported() -> tuple[dict[str, str], list[dict]]:
        report.main([str(outputs), "--report_dir", str(tmp_path / "report")])
        names = ("results.md", "comparisons.md", "by_sparsity.md")
        with open(tmp_path / "report" / "results.csv", encoding="utf-8") as file:
            return {name: (tmp_path / "report" / name).read_text() for name in names}, list(csv.DictReader(file))

    before, numbers = reported()
    student = {"student_layer": 2, "student_sparsity": None, "model_type": "kd", "lam": 0.5}
    schedule = {**student, "teacher_schedule": [60, 30, 0]}
    for seed in VALUES:
        folder = outputs / f"seed_{seed}" / "rewind"
        write(folder / "kd_2_rte_0.5_schedule_60_30_0", {**schedule, "seed": seed}, result(0.68, teachers={}))
        random = {**schedule, "seed": seed, "score": "random"}
        write(folder / "kd_2_rte_random_schedule_60_30_0", random, result(0.58, teachers={}))
        spread = {**student, "match_spread": 30, "seed": seed}
        write(folder / "kd_2_rte_0.5_spread_30", spread, {"0": result(0.62)})
    after, all_numbers = reported()
    assert after["by_sparsity.md"] == before["by_sparsity.md"]
    assert [line for line in all_numbers if "," not in line["method"]] == numbers
    assert "| 2 layers | lam 0.5, best of 3 | 65.00 ± 1.00 |" in after["results.md"]
    assert "| 2 layers | lam 0.5, 60 30 0 % in turn | **68.00 ± 0.00** |" in after["results.md"]
    # held against the dense teacher's students, the best of the same score, and random teachers in the same turns
    found = {line[2:4]: line[4:6] for line in comparisons.comparison_table(rows_of(outputs), True, {}).lines}
    assert {against: numbers for (name, against), numbers in found.items() if name.startswith("lam 0.5, 60")} == {
        "dense": ("68.00", "+7.00"),
        "lam 0.5, best": ("68.00", "+3.00"),
        "random, 60 30 0 % in turn": ("68.00", "+10.00"),
    }
    assert [against for name, against in found if name.startswith("random")] == ["dense"]
    # the dense teacher with another's spread against the dense one, and the other one against it
    assert found["lam 0.5, 0 % of 30 %'s spread", "dense"] == ("62.00", "+1.00")
    assert found["lam 0.5, 30 %", "lam 0.5, 0 % of 30 %'s spread"] == ("63.67", "+1.67")
    lines = after["comparisons.md"].splitlines()
    there = set(before["comparisons.md"].splitlines())
    assert all(
        "in turn" in line or "spread" in line for line in lines if line.startswith("| RTE") and line not in there
    )
    # each has its own predictions
    names = {row.variant: row.checkpoint.name for row in rows_of(outputs) if row.variant}
    assert names == {"60 30 0 % in turn": "ckpt", "0 % of 30 %'s spread": "ckpt_0"}
    assert conclusion(rows_of(outputs))[0].count("+4.00") == 1


def test_students_are_drawn_beside_the_dense_teachers(outputs, tmp_path):
    alone = {"student_layer": 2, "student_sparsity": None, "model_type": "ft"}
    single = {**alone, "model_type": "kd", "score": "random"}
    for seed, value in {1: 0.58, 2: 0.62, 4: 0.9}.items():
        folder = outputs / f"seed_{seed}"
        write(folder / "distil" / "ft_2_rte", {**alone, "seed": seed}, result(value, teacher={"acc": 0.7}))
        sparse = result(value + 0.01, teacher={"acc": 0.5})
        write(folder / "rewind" / "kd_2_rte_random", {**single, "seed": seed}, {"30": sparse})
    arms = comparisons.arms(rows_of(outputs))
    assert {arm.group for arm in arms} == {"RTE, student: 2 layers"}
    assert {arm.label: (arm.method, list(arm.compared.differences)) for arm in arms} == {
        "lam 0.5, best": ("lam 0.5", pytest.approx([4, 3, 5])),
        "lam 0.5, mean of all cut": ("lam 0.5", pytest.approx([2.5, 1, 1])),
        "random, 30 %": ("random", pytest.approx([-1, 1])),  # seed 4 has no student of the dense teacher
        "no teacher": ("no teacher", pytest.approx([-2, 0])),
    }
    report.main([str(outputs), "--report_dir", str(tmp_path / "report"), "--no_speed"])
    page = (tmp_path / "report/index.html").read_text()
    first = page[: page.index("</figure>")]
    assert all(f">{text}<" in first for text in ("RTE, student: 2 layers", "no teacher", "random, best"))
    assert (tmp_path / "report/differences.pdf").is_file()
    # two methods and several seeds: each has a panel
    panels = page[page.index("Score by score") :]
    assert all(f">{text}<" in panels for text in ("lam 0.5", "random", "± 1 std. dev.", "one seed"))
    # without students of the dense teacher there is no difference to draw, nor any to tell of
    for path in outputs.rglob("kd_2_rte"):
        shutil.rmtree(path)
    report.main([str(outputs), "--report_dir", str(tmp_path / "alone"), "--no_speed"])
    page = (tmp_path / "alone/index.html").read_text()
    assert "No seed has students of both the dense teacher and one cut by a score" in page
    assert "There are no students of the dense teacher to hold these against." in page
    assert not (tmp_path / "alone/differences.pdf").exists()


def test_long_tables_are_folded_on_the_page():
    def page(lines: int) -> str:
        return tables.html_table(tables.Table("title", ("a", "b"), [("1", str(n)) for n in range(lines)], 0, 1, "", ()))

    assert "<details><summary>31 lines</summary>" in page(31)
    assert "<details>" not in page(30)


def test_intervals_are_scipys_and_seeds_are_paired():
    ours = {seed: 0.01 * value for seed, value in enumerate([64, 61, 66, 70, 58, 63])}
    theirs = {seed: 0.01 * value for seed, value in enumerate([60, 62, 61, 66, 58, 60])}
    compared = compare(ours, {**theirs, 99: 0.5})
    expected = stats.ttest_rel(list(ours.values()), list(theirs.values())).confidence_interval(0.95)
    assert (compared.low, compared.high) == pytest.approx((expected.low, expected.high))
    assert (compared.better, compared.worse, compared.seeds) == (4, 1, 6)
    assert compared.differences == pytest.approx([0.04, -0.01, 0.05, 0.04, 0, 0.03])
    assert compare({1: 0.5}, {2: 0.5}) is None


def test_one_row_more_in_every_seed_is_no_interval_of_rounding():
    ours, theirs = (
        {seed: 100 * right / 277 for seed, right in enumerate(side)} for side in ((155, 150, 161), (154, 149, 160))
    )
    compared = compare(ours, theirs)
    assert len(set(compared.differences)) > 1
    assert (compared.low, compared.is_beyond_noise, compared.better) == (None, False, 3)
    assert compare(ours, {seed: value + 1e-13 for seed, value in ours.items()}).worse == 0


def compared_cells(rows: list[data.Row], resampled: dict) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Task, choice and other side of all comparisons -> p, BCa, seeds and rows, seeds needed."""
    found = [comparisons.comparison_table(rows, overall, resampled) for overall in (True, False)]
    return {(line[0], line[2], line[3]): line[8:] for table in found for line in table.lines}


def keep_predictions(outputs: Path) -> None:
    """Of 100 rows for every checkpoint, as many right as its metric says."""
    labels = np.arange(100) % 2
    for seed, path in enumerate(sorted(outputs.rglob("ckpt*/metrics.json"))):
        right = round(100 * json.loads(path.read_text())["dev"]["acc"])
        order = np.random.default_rng(seed).permutation(100)
        save_predictions(path.parent, np.where(order < right, labels, 1 - labels), labels)


def test_comparisons_have_the_tests_of_their_paired_differences(outputs):
    cells = compared_cells(rows_of(outputs), {})["RTE", "lam 0.5, 30 %", "dense"]
    differences = [4.0, -1.0, 5.0]
    interval = stats.bootstrap((differences,), np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(0))
    bca = "{:+.2f} to {:+.2f}".format(*interval.confidence_interval)
    # of 4 + 1 + 5, 4 - 1 + 5 and so on, 4 of 8 are as far from 0 as what was found
    assert cells == ("0.500", bca, "-", str(seeds_needed(statistics.stdev(differences), 0.5)))
    two = [row for row in rows_of(outputs) if row.seed != 3]
    assert compared_cells(two, {})["RTE", "lam 0.5, 30 %", "dense"][:2] == ("1.000", "under 3 seeds")


def test_p_is_corrected_for_the_tasks_of_the_same_comparison(outputs):
    rows = [replace(row, task=task) for task in ("rte", "mrpc", "qnli") for row in rows_of(outputs)]
    rows = [replace(row, value=0.5) if row.task == "mrpc" and row.student else row for row in rows]
    lone = [replace(row, task="sst2", student="1 layers") for row in rows_of(outputs) if row.student]
    cells = compared_cells(rows + lone, {})
    found = {task: cells[task, "lam 0.5, best", "dense"][0] for task in ("RTE", "QNLI", "MRPC", "SST-2")}
    # 0.25 x 3, then 0.25 x 2, which may not be below it
    corrected = {"RTE": "0.250\nHolm 0.750", "QNLI": "0.250\nHolm 0.750", "MRPC": "1.000\nHolm 1.000"}
    assert found == {**corrected, "SST-2": "0.250"}


def test_rows_are_resampled_where_predictions_were_kept(outputs, tmp_path):
    keep_predictions(outputs)
    rows = rows_of(outputs)
    cells = {key[1]: cell[2] for key, cell in compared_cells(rows, comparisons.resampled_rows(rows)).items()}
    # the mean of all cut, and the best, by plain loops over rows drawn again and again
    values = {}
    for row in rows:
        columns = read_predictions(row.checkpoint)
        right = columns["label"] == columns["prediction"]
        assert right.mean() == row.value
        means = [np.repeat(right, count).mean() for count in row_counts(100)]
        values[row.method, row.teacher_sparsity, row.seed] = 100 * np.array(means)
    for choice, sparsities in (("mean of all cut", {seed: (30, 60) for seed in VALUES}), ("best", BEST)):
        differences = [
            np.mean([values["lam 0.5", s, seed] for s in cut], axis=0) - values[data.TRIAL, None, seed]
            for seed, cut in sparsities.items()
        ]
        found = multi_bootstrap(np.stack(differences, axis=1))
        assert cells[f"lam 0.5, {choice}"] == "{:+.2f} to {:+.2f}\np {:.3f}".format(*found.interval, found.p)
    # on the page and in Markdown
    report.main([str(outputs), "--report_dir", str(tmp_path / "report"), "--no_speed"])
    interval, p = cells["lam 0.5, best"].split("\n")
    assert f" | {interval}<br>{p} | " in (tmp_path / "report/comparisons.md").read_text()
    page = (tmp_path / "report/index.html").read_text()
    assert f"<td class=number>{interval}<small>{p}</small></td>" in page
    assert "multi-bootstrap" in page
    assert "Rows are not resampled" not in page


def test_rows_without_predictions_or_with_others_are_not_resampled_and_that_is_said(outputs, tmp_path):
    report.main([str(outputs), "--report_dir", str(tmp_path / "report"), "--no_speed"])
    assert "Rows are not resampled in 2 of 2 comparisons" in (tmp_path / "report/comparisons.md").read_text()
    assert "Rows are not resampled in 3 of 3 comparisons" in (tmp_path / "report/index.html").read_text()
    keep_predictions(outputs)
    [without] = outputs.glob("seed_2/rewind/*/ckpt_60")
    (without / PREDICTIONS).unlink()
    [other] = outputs.glob("seed_3/rewind/*/ckpt_0")
    save_predictions(other, np.zeros(100, int), np.zeros(100, int))
    rows = rows_of(outputs)
    cells = compared_cells(rows, comparisons.resampled_rows(rows))
    left_out = {key[1].removeprefix("lam 0.5, ") for key, found in cells.items() if found[2] == "-"}
    assert left_out == {"best", "mean of all cut", "60 %", "0 %"}
    (without / PREDICTIONS).write_bytes(b"")
    with pytest.raises(InputError, match=r"ckpt_60/predictions\.npy: not a NumPy file"):
        comparisons.resampled_rows(rows)


def test_weights_are_selected_on_one_half_and_reported_on_the_other(tmp_path):
    student = {"student_layer": 2, "student_sparsity": None, "model_type": "kd", "lam": 0.0, "selection_split": "half"}
    rows = {"0": result(0.6, report={"acc": 0.5}), "30": result(0.7, report={"acc": 0.4})}
    write(tmp_path / "run", student, rows)
    [best] = data.best_by_seed(data.collect(data.checkpoints([tmp_path]))).values()
    assert (best.teacher_sparsity, best.value, best.selected_on) == (30, 0.4, "half of dev")


def test_the_conclusion_is_one_sentence_with_metric_seeds_and_noise(outputs):
    rows = rows_of(outputs)
    sentence, limits = conclusion(rows)
    assert sentence == (
        "Ahead in 1 of 1 comparison beyond the noise of seeds: over 3 seeds, students of the best of 2 sparse "
        "teachers and the dense one, picked on the rows reported, which flatters it, differ from the dense one's by "
        "+4.00 points of accuracy on RTE (beyond noise)."
    )
    assert "which picks nothing, students differ from the dense one's by +1.50 on RTE." in limits
    noisy = [replace(row, value=row.value + 0.03 * row.seed) if row.method == data.TRIAL else row for row in rows]
    assert conclusion(noisy)[0].startswith("No difference beyond the noise of seeds: over 3 seeds, students of")
    assert "by -2.00 points of accuracy on RTE." in conclusion(noisy)[0]
    dense = {row.seed: row.value for row in rows if row.method == data.TRIAL}
    gains = {1: 0.03, 2: 0.031, 3: 0.032}
    ahead = [
        replace(row, selected_on="half of dev", value=dense[row.seed] + gains[row.seed])
        if row.teacher_sparsity is not None
        else row
        for row in rows
    ]
    assert conclusion(ahead)[0] == (
        "Ahead in 1 of 1 comparison beyond the noise of seeds: over 3 seeds, students of the best of 2 sparse teachers "
        "and the dense one differ from the dense one's by +3.10 points of accuracy on RTE (beyond noise)."
    )
    random = [replace(row, method="random", value=row.value + 0.01 * row.seed) for row in ahead if row.teacher_sparsity]
    sentence, limits = conclusion(ahead + random)
    assert sentence.startswith(
        "Ahead in 1 of 1 comparison beyond the noise of seeds, but in none ahead of randomly cut"
    )
    assert "Those of the best randomly cut teachers differ by +5.10 on RTE." in limits
    behind = [replace(row, value=2 * dense[row.seed] - row.value) if row.student else row for row in ahead]
    assert conclusion(behind)[0].startswith("Behind in 1 of 1 comparison beyond the noise of seeds: over 3 seeds")
    one = conclusion([row for row in rows if row.seed == 1])[0]
    assert one.startswith(
        "One seed cannot tell an effect from noise: students of the best of 2 sparse teachers and the"
    )


def test_the_conclusion_of_many_comparisons_is_still_one_sentence(outputs):
    rows = [replace(row, task=task) for task in ("rte", "wnli", "qnli", "sst2", "mnli") for row in rows_of(outputs)]
    assert "+4.00 to +4.00 points of each task's metric, +4.00 in the mean of 5 comparisons." in conclusion(rows)[0]


def test_without_anything_to_compare_the_conclusion_says_so(outputs):
    rows = rows_of(outputs)
    assert "No student of a single sparse teacher" in conclusion([r for r in rows if r.teacher_sparsity is None])[0]
    assert "No seed has students of both" in conclusion([r for r in rows if r.method != data.TRIAL])[0]
    random = [replace(r, method="random") if r.teacher_sparsity is not None else r for r in rows]
    assert "No seed has students of both" in conclusion(random)[0]


class Boxes(HTMLParser):
    """What every table and figure of a page lies in, and how many there are."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.found = [], {"table": [], "svg": []}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag in self.found:
            self.found[tag].append(self.open[-1])
        if tag in ("div", "figure", "section", "table", "svg"):
            self.open.append((tag, dict(attrs).get("class")))

    def handle_endtag(self, tag):
        if self.open and tag == self.open[-1][0]:
            self.open.pop()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with the outputs of all stages, of models that take rows as long as those that speed is measured on."""
    folder = tmp_path_factory.mktemp("finished")
    torch.manual_seed(0)
    BertModel(small_config(max_position_embeddings=128)).save_pretrained(folder / "bert")
    write_vocabulary(folder / "bert")
    write_task(folder / "datasets", "rte")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_chain()
    return folder


def run_chain() -> None:
    short = ["--num_train_epochs", "1", "--log_interval", "2"]
    run_finetuning.main(["--model_path", "bert", *short])
    run_pruning.main([])
    for student in (["--student_layer", "2"], ["--student_sparsity", "50"]):
        run_distillation.main([*student, *short])
        run_sparsification.main(student)
        run_rewinding.main([*student, *short, "--teacher_sparsity", "0", "50"])


@pytest.fixture
def chain(finished, tmp_path, monkeypatch) -> None:
    """A copy of the finished outputs in the current folder."""
    shutil.copytree(finished / "outputs", tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)


def test_a_report_of_real_runs_is_one_page_with_all_figures_and_costs(chain, capsys):
    report.main([])
    names = {path.name for path in Path("report").iterdir()}
    kinds, students = ("curves", "training", "kept", "scores"), ("2_layers", "50_percent_pruned")
    drawn = [name for name in names if name.endswith(".png")]
    assert {name.removesuffix(".png") for name in drawn} <= {f"{k}_rte_{s}" for k in kinds for s in students}
    assert {f"{kind}_rte_{s}.{form}" for kind in kinds[1:] for s in students for form in ("png", "pdf")} < names
    page = Path("report/index.html").read_text()
    boxes = Boxes(page).found
    assert len(boxes["svg"]) == len(drawn)
    assert {kind for kind, _ in boxes["svg"]} == {"figure"}
    assert set(boxes["table"]) == {("div", "wide")}  # scrolled there, so that nothing is cut off
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # nothing from elsewhere
    assert page.index("class=lead") < page.index("<table")
    assert "prefers-color-scheme: dark" in page
    assert "missing" in page  # no student was trained without a teacher
    assert "report/index.html" in capsys.readouterr().out
    # what config.json says is what the models have
    for row in rows_of(Path("outputs")):
        model = export.load_for_inference(str(row.checkpoint))
        assert row.parameters == sum(parameter.numel() for parameter in model.parameters())
    line = next(line for line in Path("report/results.md").read_text().splitlines() if "pruned | dense" in line)
    assert re.search(r"k \(\d\d %\) \| [\d.]+ M \(\d\d %\) \| [\d,]+ \(\d+\.\dx\) \|$", line)
    assert "8 rows of 128 tokens" in page


def test_deleted_weights_have_costs_but_no_speed_and_measuring_can_be_left_out(chain):
    shutil.rmtree("outputs/rewind")  # whose figures take their time
    report.main(["--no_speed"])
    text = Path("report/results.md").read_text()
    assert re.search(r"2 layers \| dense teacher .* k \(\d\d %\) \| [\d.]+ M \(\d\d %\) \| - \|", text)
    assert "Speed was not measured." in text
    for weights in Path("outputs").rglob("model.safetensors"):
        weights.unlink()
    rows = rows_of(Path("outputs"))
    assert all(row.parameters and row.macs for row in rows)
    assert report.measure(rows, is_wanted=True) == ({}, "Speed was not measured.")


def test_figures_in_which_nothing_varies_are_left_out_with_a_word(outputs, tmp_path):
    for path in outputs.rglob("metrics.json"):
        metrics = json.loads(path.read_text())
        path.write_text(json.dumps({**metrics, "dev": {"acc": 0.5}, "history": metrics["history"][:1]}))
    report.main([str(outputs), "--report_dir", str(tmp_path / "report")])
    assert not list((tmp_path / "report").glob("*.png"))
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<svg" not in page
    assert "Not drawn, being one value or all the same: curves of RTE, student: 2 layers" in page


def test_one_seed_no_rewinds_and_teachers_alone_are_reported_on(outputs, tmp_path):
    for left in ("seed_1", "seed_1/distil", "seed_1/finetune"):
        report.main([str(outputs / left), "--report_dir", str(tmp_path / "report")])
        page = (tmp_path / "report" / "index.html").read_text()
        assert "± " not in page.split("</table>")[0]
        assert ("<svg" in page) == (left == "seed_1")
        shutil.rmtree(tmp_path / "report")


def test_folders_without_runs_are_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        report.main([str(tmp_path / "empty"), "--report_dir", str(tmp_path / "report")])
    assert stop.value.code == 2
    assert "empty: no metrics.json below it" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_settings_name_every_value_that_a_task_had_and_add_up_the_hours(outputs):
    path = outputs / "seed_1" / "distil" / "kd_2_rte" / "ckpt" / "args.json"
    more = {"learning_rate": 1e-4, "hardware": "a fast one", "git_commit": "0123456789abcdef", "use_bf16": False}
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    path = outputs / "seed_2" / "distil" / "kd_2_rte" / "ckpt" / "args.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "learning_rate": 3e-5}))
    path = outputs / "seed_1" / "rewind" / "kd_2_rte_0.5" / "ckpt_0" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["teacher_seconds"] = 3600.0
    path.write_text(json.dumps(metrics))
    assert tables.settings_table(data.settings(data.checkpoints([outputs]))).lines == [
        ("hours of scoring, training, asking teachers", f"{1 + 15 / 3600:.2f}"),  # and a second for each training
        ("seed", "1, 2, 3"),
        ("learning_rate", "0.0001, 3e-05"),
        ("hardware", "a fast one"),
        ("git_commit", "0123456789"),
    ]


def test_all_settings_that_were_given_are_listed(tmp_path):
    given = {"seed": 0, "max_train_examples": 40, "max_eval_examples": 20, "selection_split": "half"}
    given |= {"model_path": "some/where/bert", "num_train_epochs": 3, "num_patience_epochs": 0, "log_interval": 7}
    given |= {"max_length": 30, "selection_metric": "f1", "num_grad_accum_steps": 2, "lr_scheduler_type": "cosine"}
    given |= {"warmup_proportion": 0.2, "weight_decay": 0.3, "max_grad_norm": 2.0, "score_split": "train"}
    given |= {"per_device_train_batch_size": 9, "learning_rate": 0.5, "temperature": 4.0, "alpha": 0.25}
    given |= {"use_bf16": True, "use_fp16": True, "num_processes": 2, "hardware": "a fast one", "cpu_threads": 6}
    given |= {"torch_version": "2", "transformers_version": "5", "git_commit": "0123456789"}
    write(tmp_path / "ft_rte", {**given, "model_type": "ft", "stage": "finetuning"}, result(0.7, rows=20))
    write(tmp_path / "kd_2_rte", {**given, "use_fp16": False, "max_train_examples": None}, result(0.7))
    found = dict(tables.settings_table(data.settings(data.checkpoints([tmp_path]))).lines)
    assert found.pop("rows reported on") == "20"
    assert found.pop("hours of scoring, training, asking teachers") == "0.00"
    several = {"use_fp16": "True, no", "max_train_examples": "40, not given"}
    assert found == {name: str(value) for name, value in given.items()} | {"model_path": "where/bert"} | several


def test_a_row_says_how_its_number_was_made(tmp_path):
    args = {"seed": 5, "student_layer": 3, "layer_choice": "last", "model_type": "kd", "selection_split": "half"}
    more = {"report": {"acc": 0.4}, "rows": 21, "commoner_share": 0.5, "only_answer": "entailment", "diverged": "so"}
    write(
        tmp_path / "kd_3-last_rte_random",
        {**args, "score": "random"},
        {"40": result(0.6, teacher={"acc": 0.7}, **more)},
    )
    [row] = data.collect(data.checkpoints([tmp_path]))
    assert row == data.Row(
        **{"task": "rte", "student": "3 layers (last)", "method": "random", "variant": "", "teacher_sparsity": 40},
        **{
            "seed": 5,
            "metric": "acc",
            "value": 0.4,
            "dev_select": 0.6,
            "teacher_value": 0.7,
            "selected_on": "half of dev",
        },
        **{"seconds": 1.0, "rows": 21, "commoner_share": 0.5, "only_answer": "entailment"},
        **{"diverged": "so", "dropped_at": None},
        **{"parameters": None, "macs": None, "recipe": {"selection_split": "half", "examples_per_update": 1}},
        folder=str(tmp_path / "kd_3-last_rte_random"),
    )


def test_of_equal_sparsities_the_lowest_is_the_best_and_ties_are_counted(outputs):
    rows = [row for row in data.collect(data.checkpoints([outputs])) if row.method == "lam 0.5"]
    assert {seed: row.teacher_sparsity for seed, row in data.best_by_seed(rows).items()} == {1: 30, 2: 60, 3: 30}
    assert data.tied_seeds(rows) == 0
    equal = [replace(row, dev_select=0.5) if row.seed == 1 else row for row in rows]
    assert data.best_by_seed(equal[::-1])[1].teacher_sparsity == 0
    assert data.tied_seeds(equal) == 1


def test_two_runs_of_the_same_are_not_taken_for_two_seeds(outputs, tmp_path):
    args = {"student_layer": 2, "student_sparsity": None, "model_type": "kd", "learning_rate": 1.0}
    write(outputs / "fast" / "kd_2_rte", args, result(0.5, teacher={"acc": 0.7}))
    with pytest.raises(InputError, match=r"kd_2_rte: both rte, 2 layers, dense teacher, seed 1; expected one of them"):
        data.collect(data.checkpoints([outputs]))
    write(outputs / "inside" / "kd_2_rte", {**args, "pkd_weight": 10.0}, result(0.5, teacher={"acc": 0.7}))
    [row] = data.collect(data.checkpoints([outputs / "inside"]))
    assert row.student == "2 layers + 10 pkd"


def test_one_methods_dense_teacher_stands_for_all(outputs):
    common = {"student_layer": 2, "student_sparsity": None, "model_type": "kd", "lam": 1.0}
    sparse = {"30": result(0.59, teacher={"acc": 0.5})}
    write(outputs / "seed_1" / "rewind" / "kd_2_rte_1.0", {**common, "seed": 1}, sparse)
    rows = data.with_dense_ends(data.collect(data.checkpoints([outputs])))
    found = {row.teacher_sparsity: row.value for row in rows if row.method == "lam 1"}
    assert found == {0: 0.60, 30: 0.59}
    assert len([row for row in rows if row.teacher_sparsity == 0 and row.method == "lam 0.5"]) == 3
    lines = [line[:3] for line in tables.results_table(rows, {}, "").lines]
    assert ("2 layers", "lam 1, best of 2", "60.00 (1 seed)") in lines


def test_figures_of_one_run_are_of_the_method_in_their_title(outputs):
    rows = [row for row in rows_of(outputs) if row.method != "lam 0.5" or row.teacher_sparsity]
    borrowed = [replace(row, method="lam 0", folder="a") for row in rows_of(outputs) if row.teacher_sparsity == 0]
    rows = data.with_dense_ends(rows + borrowed)
    assert {row.folder for row in rows if row.method == "lam 0.5" and row.teacher_sparsity == 0} == {"a"}
    assert "rewind" in report.run_drawn(rows)[2]


def test_a_sweep_still_running_is_reported_on_from_within_its_folder(outputs, monkeypatch):
    [run] = outputs.glob("seed_1/rewind/*")
    shutil.rmtree(run / "ckpt_0")
    (run / ".ckpt_0.state").touch()
    monkeypatch.chdir(run.parent)
    report.main([".", "--no_speed"])
    assert "| 2 layers | lam 0.5, best of 2 | 64.00 |" in Path("report/results.md").read_text()


def test_seeds_whose_students_were_all_dropped_are_not_counted(outputs):
    rows = [replace(row, dropped_at=3) if row.seed == 2 and row.is_swept else row for row in rows_of(outputs)]
    [line] = [line for line in tables.results_table(rows, {}, "").lines if line[1].startswith("lam")]
    assert line[2] == "**65.00 ± 1.41 (2 seeds)** †"  # 0.64 and 0.66
