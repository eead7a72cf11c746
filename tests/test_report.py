"""Means, tables, comparisons and the page, against numbers worked out by hand or by scipy."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import write_task
from scipy import stats

import run_rewinding
import run_sparsification
from scripts import report
from scripts import report_data as data
from utils.errors import InputError

VALUES = {  # seed -> what the dense teacher's student came to, and those of a sparse teacher at 0, 30 and 60 %
    1: (0.60, {"0": 0.60, "30": 0.64, "60": 0.61}),
    2: (0.62, {"0": 0.62, "30": 0.61, "60": 0.65}),
    3: (0.61, {"0": 0.61, "30": 0.66, "60": 0.58}),
}


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


def test_the_table_has_means_and_deviations_over_seeds_and_says_what_is_missing(outputs):
    lines = report.results_table(data.collect(data.checkpoints([outputs])))
    # best of each seed: 0.64, 0.65, 0.66; mean 0.65, sample deviation 0.01
    assert lines == [
        ("RTE", "-", "the teacher itself", "70.00 ± 0.00", "3", "dev", "", "", ""),
        ("RTE", "2 layers", "no teacher", "missing", "0", "", "", "", ""),
        ("RTE", "2 layers", "dense teacher", "61.00 ± 1.00", "3", "dev", "", "", ""),
        ("RTE", "2 layers", "lam 0.5, best sparsity", "65.00 ± 1.00", "3", "dev", "", "", ""),
    ]
    assert "| RTE | 2 layers | dense teacher | 61.00 ± 1.00 | 3 | dev |  |  |  |\n" in report.markdown(
        report.HEADER, lines
    )
    latex = report.latex(report.HEADER, lines)
    assert r"RTE & 2 layers & dense teacher & 61.00 $\pm$ 1.00 & 3 & dev &  &  &  \\" in latex


def test_comparisons_are_paired_over_seeds(outputs):
    rows = data.collect(data.checkpoints([outputs]))
    lines = {line[2]: line[3:] for overall in (True, False) for line in report.comparison_table(rows, overall)}
    assert lines["lam 0.5, best"][:2] == ("dense", "+4.00")
    assert lines["lam 0.5, mean of all cut"][1] == "+1.50"  # 0.625, 0.63 and 0.62 less 0.60, 0.62 and 0.61
    assert lines["lam 0.5, 30 %"][3] == "2 / 1 of 3"
    assert lines["lam 0.5, 0 %"] == ("dense", "+0.00", "-", "0 / 0 of 3", "1.000")


def test_scores_are_compared_with_random_ones_where_there_are_some(outputs):
    student = {"student_layer": 2, "student_sparsity": None, "model_type": "kd", "lam": 0.5, "score": "random"}
    for seed in VALUES:
        sparse = {sparsity: result(value, teacher={"acc": 0.5}) for sparsity, value in (("30", 0.6), ("60", 0.62))}
        folder = outputs / f"seed_{seed}" / "rewind" / "kd_2_rte_random"
        write(folder, {**student, "seed": seed}, sparse)
    lines = [
        line[2:5]
        for line in report.comparison_table(data.collect(data.checkpoints([outputs])), True)
        if line[3] == "random"
    ]
    assert lines == [("lam 0.5, best", "random", "+3.00"), ("lam 0.5, mean of all cut", "random", "+1.50")]


def test_intervals_and_sign_tests_are_scipys():
    ours = {seed: 0.01 * value for seed, value in enumerate([64, 61, 66, 70, 58, 63])}
    theirs = {seed: 0.01 * value for seed, value in enumerate([60, 62, 61, 66, 58, 60])}
    compared = data.compare(ours, {**theirs, 99: 0.5})
    expected = stats.ttest_rel(list(ours.values()), list(theirs.values())).confidence_interval(0.95)
    assert (compared.low, compared.high) == pytest.approx((expected.low, expected.high))
    assert (compared.better, compared.worse, compared.seeds) == (4, 1, 6)
    assert compared.sign_p == pytest.approx(stats.binomtest(4, 5).pvalue)
    assert data.compare({1: 0.5}, {2: 0.5}) is None


def test_weights_are_selected_on_one_half_and_reported_on_the_other(tmp_path):
    student = {"student_layer": 2, "student_sparsity": None, "model_type": "kd", "lam": 0.0, "selection_split": "half"}
    rows = {"0": result(0.6, report={"acc": 0.5}), "30": result(0.7, report={"acc": 0.4})}
    write(tmp_path / "run", student, rows)
    [best] = data.best_by_seed(data.collect(data.checkpoints([tmp_path]))).values()
    assert (best.teacher_sparsity, best.value, best.selected_on) == (30, 0.4, "half of dev")


def test_a_report_of_real_runs_is_one_page_with_all_figures(tmp_path, monkeypatch, teacher_folder, capsys):
    write_task(tmp_path / "datasets", "rte")
    monkeypatch.chdir(tmp_path)
    student = ["--student_model_path", "teacher", "--student_layer", "2"]
    run_sparsification.main(["--teacher_model_path", "teacher", *student])
    run_rewinding.main([*student, "--num_train_epochs", "1", "--teacher_sparsity", "0", "50"])
    report.main([])
    names = {path.name for path in Path("report").iterdir()}
    kinds = ("curves", "panels", "heat", "training", "kept", "scores")
    assert {f"{kind}_rte_2_layers.{form}" for kind in kinds for form in ("png", "pdf")} < names
    page = Path("report/index.html").read_text()
    assert page.count("data:image/png;base64,") == len(kinds)
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing from elsewhere
    assert "missing" in page  # no trial student was trained
    assert "report/index.html" in capsys.readouterr().out


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
    assert report.settings_table(data.settings(data.checkpoints([outputs]))) == [
        ("hours of scoring, training, asking teachers", f"{1 + 15 / 3600:.2f}"),  # and a second for each training
        ("learning_rate", "0.0001, 3e-05"),
        ("hardware", "a fast one"),
        ("git_commit", "0123456789"),
    ]


def test_all_settings_that_were_given_are_listed(tmp_path):
    given = {"model_path": "some/where/bert", "num_train_epochs": 3, "num_patience_epochs": 2, "log_interval": 7}
    given |= {"per_device_train_batch_size": 9, "learning_rate": 0.5, "temperature": 4.0, "alpha": 0.25}
    given |= {"use_bf16": True, "use_fp16": True, "num_processes": 2, "hardware": "a fast one", "cpu_threads": 6}
    given |= {"torch_version": "2", "transformers_version": "5", "git_commit": "0123456789"}
    write(tmp_path / "ft_rte", {**given, "model_type": "ft", "stage": "finetuning"}, result(0.7))
    found = dict(report.settings_table(data.settings(data.checkpoints([tmp_path]))))
    assert found.pop("hours of scoring, training, asking teachers") == "0.00"
    assert found == {name: str(value) for name, value in given.items()} | {"model_path": "where/bert"}


def test_a_row_says_how_its_number_was_made(tmp_path):
    args = {"seed": 5, "student_layer": 3, "layer_choice": "last", "model_type": "kd", "selection_split": "half"}
    more = {"report": {"acc": 0.4}, "rows": 21, "commoner_share": 0.5, "only_answer": "entailment"}
    write(
        tmp_path / "kd_3-last_rte_random",
        {**args, "score": "random"},
        {"40": result(0.6, teacher={"acc": 0.7}, **more)},
    )
    [row] = data.collect(data.checkpoints([tmp_path]))
    assert row == data.Row(
        **{"task": "rte", "student": "3 layers (last)", "method": "random", "teacher_sparsity": 40, "seed": 5},
        **{"metric": "acc", "value": 0.4, "selecting": 0.6, "teacher_value": 0.7, "selected_on": "half of dev"},
        **{"seconds": 1.0, "rows": 21, "commoner_share": 0.5, "only_answer": "entailment"},
        folder=str(tmp_path / "kd_3-last_rte_random"),
    )


def test_of_equal_sparsities_the_lowest_is_the_best_and_ties_are_counted(outputs):
    rows = [row for row in data.collect(data.checkpoints([outputs])) if row.method == "lam 0.5"]
    assert {seed: row.teacher_sparsity for seed, row in data.best_by_seed(rows).items()} == {1: 30, 2: 60, 3: 30}
    assert data.tied_seeds(rows) == 0
    equal = [replace(row, selecting=0.5) if row.seed == 1 else row for row in rows]
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
    lines = report.results_table(rows)
    assert ("RTE", "2 layers", "lam 1, best sparsity", "60.00", "1", "dev", "", "", "") in lines
