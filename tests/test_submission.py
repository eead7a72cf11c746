"""scripts/submission.py: the files that it collects, and those that it refuses."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import refused

import run_finetuning
from scripts import submission
from student import load_student
from utils.submission import write_submission
from utils.tasks import TASKS

pytestmark = pytest.mark.usefixtures("in_tmp_path")
ROWS = {  # of GLUE's test sets, as their authors count them
    "CoLA": 1063,
    "SST-2": 1821,
    "MRPC": 1725,
    "STS-B": 1379,
    "QQP": 390965,
    "MNLI-m": 9796,
    "MNLI-mm": 9847,
    "QNLI": 5463,
    "RTE": 3000,
    "WNLI": 146,
    "AX": 1104,
}


def write_set(folder: Path, *left_out: str) -> Path:
    """A file for each task, in the folder of its run."""
    for name, task in TASKS.items():
        if task.title not in left_out:
            rows = np.arange(ROWS[task.title])
            (folder / f"kd_4_{name}").mkdir(parents=True)
            path = folder / f"kd_4_{name}" / f"{task.title}.tsv"
            write_submission(path, task, rows % len(task.labels) if task.labels else rows % 6)
    return folder


def test_a_complete_set_is_found_in_outputs_and_zipped_as_it_is(capsys):
    write_set(Path("outputs", "rewind"))
    submission.main([])
    with zipfile.ZipFile("submission.zip") as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {f"{task.title}.tsv" for task in TASKS.values()}
        assert archive.read("STS-B.tsv") == Path("outputs/rewind/kd_4_stsb/STS-B.tsv").read_bytes()
    assert ["QQP", "390965", "outputs/rewind/kd_4_qqp/QQP.tsv"] in map(str.split, capsys.readouterr().out.splitlines())
    assert [path.name for path in Path().iterdir() if path.name != "outputs"] == ["submission.zip"]


def test_rows_are_counted_as_glues_authors_do():
    assert submission.ROWS == ROWS


def test_the_diagnostic_set_goes_along_and_missing_ones_are_named(capsys):
    folder = write_set(Path("runs"), "QQP", "MNLI-m", "WNLI")
    rows = "".join(f"{index}\tneutral\n" for index in range(1104))
    Path("AX.tsv").write_text("index\tprediction\n" + rows)
    flags = [str(folder), "AX.tsv", "--output", "some.zip"]
    assert "missing QQP.tsv, MNLI-m.tsv, WNLI.tsv: " in refused(submission, capsys, *flags)
    submission.main([*flags, "--allow_missing"])
    assert "without QQP.tsv, MNLI-m.tsv, WNLI.tsv: GLUE's server will not accept it" in capsys.readouterr().out
    with zipfile.ZipFile("some.zip") as archive:
        assert len(archive.namelist()) == 8
        assert "AX.tsv" in archive.namelist()


def test_two_files_for_one_task_are_refused_by_name_and_the_same_file_twice_is_not(capsys):
    for name in ("a", "b"):
        Path(name).mkdir()
        write_submission(Path(name, "WNLI.tsv"), TASKS["wnli"], np.zeros(146))
    assert "two files for WNLI: a/WNLI.tsv and b/WNLI.tsv" in refused(submission, capsys, "a", "b", "--allow_missing")
    submission.main(["a", "a/WNLI.tsv", "--allow_missing"])
    assert Path("submission.zip").is_file()


BAD = {
    "header": ("RTE", 0, "id\tlabel", "RTE.tsv line 1: 'id\\tlabel', expected 'index\\tprediction'"),
    "index": ("RTE", 3, "1\tentailment", "RTE.tsv line 4: index '1', expected 2"),
    "label": ("RTE", 3, "2\t1", "RTE.tsv line 4: prediction '1', expected one of not_entailment, entailment"),
    "name of 0": ("MRPC", 1, "0\tequivalent", "MRPC.tsv line 2: prediction 'equivalent', expected one of 0, 1"),
    "columns": ("CoLA", 2, "1 0", "CoLA.tsv line 3: 1 columns, expected 2"),
    "blank line": ("CoLA", 2, "", "CoLA.tsv line 3: 1 columns, expected 2"),
    "score": ("STS-B", 1, "0\t5.1", "STS-B.tsv line 2: prediction '5.1', expected a number from 0 to 5"),
    "no score": ("STS-B", 1, "0\tnan", "STS-B.tsv line 2: prediction 'nan', expected a number from 0 to 5"),
    "one less": ("RTE", 3000, None, "RTE.tsv: 2999 rows, expected the 3000 of GLUE's test set"),
    "one more": ("WNLI", 147, "146\t0\n", "WNLI.tsv: 147 rows, expected the 146 of GLUE's test set"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_file_that_the_server_would_refuse_is_refused(capsys, case):
    title, line, text, message = BAD[case]
    task = next(task for task in TASKS.values() if task.title == title)
    path = Path(f"{title}.tsv")
    write_submission(path, task, np.zeros(ROWS[title]))
    lines = path.read_text().split("\n")
    lines[line : line + 1] = [] if text is None else [text]
    path.write_text("\n".join(lines))
    assert message in refused(submission, capsys, str(path), "--allow_missing")


def test_paths_that_cannot_serve_are_refused(capsys):
    assert "outputs: no such file or folder" in refused(submission, capsys)
    Path("outputs").mkdir()
    assert "outputs: none of CoLA.tsv, " in refused(submission, capsys, "--allow_missing")
    Path("rte.tsv").write_text("index\tprediction\n")
    assert "rte.tsv: not a name that GLUE knows, expected one of CoLA.tsv, " in refused(submission, capsys, "rte.tsv")
    Path("RTE.tsv").write_bytes(b"\xff\n")
    assert "RTE.tsv: not UTF-8 text" in refused(submission, capsys, "RTE.tsv", "--allow_missing")
    assert "--output outputs: expected a file" in refused(submission, capsys, "RTE.tsv", "--output", "outputs")
    assert "--output no/a.zip: expected a file" in refused(submission, capsys, "RTE.tsv", "--output", "no/a.zip")


def write_mnli(labels=("contradiction", "neutral", "entailment")) -> None:
    """A small MNLI, and the diagnostic set."""
    pairs = [(f"w{index % 40} w{index % 7}", f"w{index % 3}") for index in range(1104)]
    for name, rows in (("train", 12), ("dev_matched", 6), ("test_matched", 6), ("ax/AX", 1104)):
        path = Path("datasets", f"mnli/{name}.tsv" if "/" not in name else f"{name}.tsv")
        path.parent.mkdir(parents=True, exist_ok=True)
        is_labelled = name.startswith(("train", "dev"))
        lines = ["index\tsentence1\tsentence2" + "\tgold_label" * is_labelled]
        for index, (first, second) in enumerate(pairs[:rows]):
            lines.append(f"{index}\t{first}\t{second}" + f"\t{labels[index % 3]}" * is_labelled)
        path.write_text("\n".join(lines) + "\n")


def test_mnli_predicts_the_diagnostic_set_if_it_is_there(bert_folder, capsys):
    write_mnli()
    diagnostic = Path("datasets/ax/AX.tsv")
    whole = diagnostic.read_text()
    flags = ["--task_name", "mnli", "--num_train_epochs", "1", "--max_length", "16", "--use_cpu", "--do_test"]
    flags += ["--model_path", str(bert_folder)]

    # another size or layout is refused before anything is written
    for text, message in (
        (whole.rsplit("\n", 2)[0] + "\n", "AX.tsv: 1103 rows, expected the 1104 of GLUE's diagnostic set"),
        (whole.replace("sentence2", "hypothesis", 1), "AX.tsv line 1: columns 'index', 'sentence1', 'hypothesis'"),
        (whole.replace("\n3\t", "\n4\t", 1), "AX.tsv line 5: index '4', expected 3"),
    ):
        diagnostic.write_text(text)
        with pytest.raises(SystemExit) as stop:
            run_finetuning.main(flags)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
        assert not Path("outputs").exists()

    # both files are the best checkpoint's
    diagnostic.write_text(whole)
    run_finetuning.main(flags)
    run = Path("outputs/finetune/ft_mnli")
    pairs = [tuple(line.split("\t")[1:]) for line in whole.splitlines()[1:]]
    said = [one.label for one in load_student(run / "ckpt", "cpu")(pairs)]
    assert [line.split("\t")[1] for line in (run / "AX.tsv").read_text().splitlines()[1:]] == said
    assert submission.read_predictions(run / "AX.tsv")
    assert len((run / "MNLI-m.tsv").read_text().splitlines()) == 7
    times = {path: path.stat().st_mtime_ns for path in run.glob("*.tsv")}
    run_finetuning.main(flags)
    assert {path: path.stat().st_mtime_ns for path in run.glob("*.tsv")} == times

    # a file that is missing is made again, and without the set there is none
    (run / "AX.tsv").unlink()
    run_finetuning.main(flags)
    assert (run / "AX.tsv").is_file()
    diagnostic.unlink()
    run_finetuning.main(flags)
    assert [path.name for path in run.glob("*.tsv")] == ["MNLI-m.tsv"]
