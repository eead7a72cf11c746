"""scripts/predict.py: all kinds of input, the CSV that it writes, and what it refuses before it writes any."""

import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from conftest import refused, small_config, write_vocabulary

from models.bert import PrunableBert
from scripts import predict
from student import load_student

FLAGS = ["--model_path", "ckpt", "--use_cpu"]
NAMES = ("not_entailment", "entailment")
SENTENCES = [("w1 w2",), ("w3, w4",), ('w5 " w6',)]
PAIRS = [("w1 w2", "w3"), ("w4", "w5 w6")]


@pytest.fixture(autouse=True)
def model(in_tmp_path) -> PrunableBert:
    torch.manual_seed(0)
    model = PrunableBert(small_config(id2label=dict(enumerate(NAMES))))
    model.save_pretrained("ckpt")
    write_vocabulary(Path("ckpt"))
    return model


def trained_on(task: str) -> None:
    Path("ckpt/args.json").write_text(json.dumps({"task_name": task, "max_length": 128, "inputs": {}}))


def give(monkeypatch, content: bytes) -> None:
    """Put bytes on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def written(output: str) -> list[tuple[str, ...]]:
    """Labels and probabilities of the output, under its header."""
    header, *rows = csv.reader(io.StringIO(output))
    assert header == ["label", *(f"probability of {name}" for name in NAMES)]
    return [(label, *map(float, numbers)) for label, *numbers in rows]


def check(output: str, texts: list[tuple[str, ...]]) -> None:
    found = written(output)
    answers = load_student("ckpt")(texts)
    assert [row[0] for row in found] == [one.label for one in answers]
    for row, one in zip(found, answers, strict=True):
        assert row[1:] == pytest.approx(tuple(one.probabilities.values()), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "flags", "texts"),
    [
        ("a.csv", 'text\nw1 w2\n"w3, w4"\n"w5 "" w6"\n', [], SENTENCES),
        ("a.tsv", '\ufefftext\nw1 w2\nw3, w4\nw5 " w6\n', [], SENTENCES),
        ("a.txt", '\ufeffw1 w2\nw3, w4\r\nw5 " w6', [], SENTENCES),
        ("a.txt", "w1 w2\tw3\nw4\tw5 w6\n", [], PAIRS),
        ("a.csv", "n,b,a\n1,w3,w1 w2\n2,w5 w6,w4\n", ["--text_columns", "a", "b"], PAIRS),
        ("a.jsonl", '{"a": "w1 w2", "n": 1}\n{"n": 2, "a": "w3, w4"}\n', ["--text_columns", "a"], SENTENCES[:2]),
    ],
)
def test_texts_of_every_kind_of_file_are_predicted(capsys, name, content, flags, texts):
    Path(name).write_text(content)
    predict.main([*FLAGS, "--input", name, *flags])
    output = capsys.readouterr()
    check(output.out, texts)
    assert output.err == f"{len(texts)} rows, 0 of full length (40 tokens)\n"


def test_the_columns_of_the_checkpoints_task_are_the_default(capsys):
    trained_on("mrpc")
    Path("a.tsv").write_text("Quality\t#1 String\t#2 String\n1\tw1 w2\tw3\n0\tw4\tw5 w6\n")
    predict.main([*FLAGS, "--input", "a.tsv"])
    check(capsys.readouterr().out, PAIRS)
    Path("b.csv").write_text("#2 String,other\nw1 w2,w3\n")
    assert "b.csv: columns '#2 String', 'other', expected 'sentence1', 'sentence2' as in" in refused(
        predict, capsys, *FLAGS, "--input", "b.csv"
    )
    flags = [*FLAGS, "--input", "b.csv", "--text_columns"]
    found = "--text_columns: found '#2 String', expected 2 as in the checkpoint's task: 'sentence1', 'sentence2'"
    assert found in refused(predict, capsys, *flags, "#2 String")
    predict.main([*flags, "#2 String", "other"])
    check(capsys.readouterr().out, [("w1 w2", "w3")])
    # of one's own
    settings = {"task_name": "own", "task": {"text_columns": ["other"]}, "inputs": {}}
    Path("ckpt/args.json").write_text(json.dumps(settings))
    predict.main([*FLAGS, "--input", "b.csv"])
    check(capsys.readouterr().out, [("w3",)])


def test_standard_input_is_predicted_into_a_file_in_chunks(monkeypatch, capsys):
    texts = [(f"w{index % 40} " * (index % 7 + 1),) for index in range(40)]
    give(monkeypatch, "".join(f"{text}\n" for (text,) in texts).encode())
    Path("out.csv").write_text("as it was")
    predict.main([*FLAGS, "--output", "out.csv", "--batch_size", "1"])  # chunks of 16 rows
    assert capsys.readouterr().out == ""
    check(Path("out.csv").read_text(), texts)
    assert sorted(path.name for path in Path().iterdir()) == ["ckpt", "out.csv"]


def test_scores_are_written_for_a_regression(monkeypatch, capsys, model):
    regression = PrunableBert(small_config(id2label={0: "score"}, score_range=[0, 100]))
    torch.nn.init.zeros_(regression.cls[-1].weight)
    torch.nn.init.constant_(regression.cls[-1].bias, 2.0)
    regression.save_pretrained("ckpt")
    give(monkeypatch, b"w1\nw2\n")
    predict.main(FLAGS)
    assert capsys.readouterr().out == "score\n40\n40\n"


BAD = {
    "empty": ("a.txt", b"", [], "a.txt: no rows, expected texts"),
    "header alone": ("a.csv", b"text\n", [], "a.csv: no rows, expected texts"),
    "blank line": ("a.txt", b"w1\n\nw2\n", [], "a.txt line 2: empty, expected a text"),
    "half a pair": ("a.txt", b"w1\tw2\nw3\n", [], "a.txt line 2: 1 texts separated by tabs, expected 2"),
    "three texts": ("a.txt", b"w1\tw2\tw3\n", [], "a.txt line 1: 3 texts separated by tabs, expected 2"),
    "encoding": ("a.txt", b"w1\n\xff\n", [], "a.txt line 2: not UTF-8 text"),
    "empty field": ("a.csv", b"a,b\nw1,w2\nw1, \n", ["a", "b"], "a.csv line 3: b is empty, expected a text"),
    "unknown column": ("a.csv", b"a,b\nw1,w2\n", ["a", "c"], "a.csv line 1: columns 'a', 'b', expected 'a', 'c'"),
    "which column": ("a.csv", b"a,b\nw1,w2\n", [], "a.csv: columns 'a', 'b'; --text_columns names those"),
    "semicolons": ("a.csv", b"a;b\nw1;w2\n", [], "a.csv: columns 'a;b'; --text_columns names those"),
    "torn quote": ("a.csv", b'text\nw1\n"w2\n', [], "a.csv line 3: a torn quote"),
    "columns of lines": ("a.txt", b"w1\n", ["a"], "--text_columns: for .csv, .tsv, .jsonl, found lines of text"),
    "another suffix": ("a.pdf", b"w1\n", [], "a.pdf: expected a file whose name ends in .csv, .tsv, .jsonl or .txt"),
    "lines in UTF-16": ("a.txt", "w1\nw2\n".encode("utf-16-le"), [], "a.txt line 1: text in UTF-16 instead of UTF-8"),
    "three columns": ("a.csv", b"a,b,c\n1,2,3\n", ["a", "b", "c"], "--text_columns: found 3, expected one or two"),
    "web page": ("a.tsv", b"<html>\n<body>\n", [], "a.tsv: an HTML page, expected texts"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_what_cannot_be_predicted_is_refused_before_anything_is_written(capsys, case):
    name, content, columns, message = BAD[case]
    Path(name).write_bytes(content)
    flags = ["--text_columns", *columns] if columns else []
    line = refused(predict, capsys, *FLAGS, "--input", name, *flags, "--output", "out.csv")
    assert message in line


def test_lines_must_be_pairs_where_the_task_has_pairs(monkeypatch, capsys):
    trained_on("rte")
    give(monkeypatch, b"w1 w2\n")
    assert "standard input line 1: 1 texts separated by tabs, expected 2" in refused(predict, capsys, *FLAGS)


def test_closed_streams_are_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)  # what Python makes of a closed one
    assert "standard input is closed; --input names a file" in refused(predict, capsys, *FLAGS)
    give(monkeypatch, b"w1\n")
    with monkeypatch.context() as closed:
        closed.setattr(sys, "stdout", None)
        with pytest.raises(SystemExit) as stop:
            predict.main(FLAGS)
    assert stop.value.code == 2
    assert "standard output is closed; --output names a file" in capsys.readouterr().err


def test_an_output_that_would_be_lost_is_refused(capsys):
    Path("a.txt").write_text("w1\n")
    flags = [*FLAGS, "--input", "a.txt", "--output"]
    assert "--output a.txt: the input, which it would replace" in refused(predict, capsys, *flags, "./a.txt")
    assert "--output ckpt: expected a file" in refused(predict, capsys, *flags, "ckpt")
    assert "--output no/a.csv: expected a file" in refused(predict, capsys, *flags, "no/a.csv")
    assert "--output /dev/null: expected a file" in refused(predict, capsys, *flags, "/dev/null")
    assert "no.csv: no such file" in refused(predict, capsys, *FLAGS, "--input", "no.csv")
    assert refused(predict, capsys, *FLAGS, "--input", "no.txt") == "error: no.txt: no such file"


def test_a_model_that_diverged_leaves_the_earlier_output(capsys, model):
    torch.nn.init.constant_(model.cls[-1].bias, torch.nan)
    model.save_pretrained("ckpt")
    Path("a.txt").write_text("w1\n")
    Path("out.csv").write_text("as it was")
    line = refused(predict, capsys, *FLAGS, "--input", "a.txt", "--output", "out.csv", status=1)
    assert "logits that are not numbers" in line
    assert Path("out.csv").read_text() == "as it was"


def test_a_reader_of_the_output_that_has_seen_enough_ends_it_silently(monkeypatch, capsys):
    Path("a.txt").write_text("w1\n" * 50)
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        predict.main([*FLAGS, "--input", "a.txt"])
    assert capsys.readouterr().err == ""
