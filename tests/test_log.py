"""Log lines and progress bars on terminals, in files, and on closed streams."""

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import second
from conftest import forked, small_config
from test_training import make_examples

import run_finetuning
from models.bert import PrunableBert
from utils import evaluation, log

ROOT = Path(__file__).parent.parent
FLAGS = ["--model_path", "teacher", "--num_train_epochs", "2", "--use_cpu"]
logger = logging.getLogger("stark")


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text):
        raise OSError(5, "Input/output error")


class Terminal(io.StringIO):
    """A terminal with a limited encoding."""

    encoding = "ascii"

    def isatty(self):
        return True

    def write(self, text):
        return super().write(text.encode(self.encoding).decode())


@pytest.fixture
def logged(monkeypatch, tmp_path):
    """A function that logs to a stream and to log.txt, and returns the content of log.txt."""

    def to(stream, *messages: str) -> str:
        monkeypatch.setattr(sys, "stdout", stream)
        log.start()
        log.to_file(tmp_path / "log.txt")
        for message in messages:
            logger.info(message)
        log.stop()
        return (tmp_path / "log.txt").read_text(encoding="utf-8")

    yield to
    log.stop()


def test_a_closed_terminal_costs_the_line_and_no_more(logged, capsys):
    for stream in (Gone(), closed := io.StringIO(), None):
        closed.close()
        assert re.search("first\n.*second\n", logged(stream, "first", "second"))
    assert capsys.readouterr().err == ""


def test_characters_that_a_terminal_or_a_file_cannot_hold_are_replaced(logged, monkeypatch):
    monkeypatch.setattr(logger, "propagate", False)  # pytest's own record of the log cannot be sent between processes
    terminal = Terminal()
    kept = logged(terminal, "café", "odd \udce9 name")  # a file name that is not UTF-8
    assert [line[9:] for line in terminal.getvalue().splitlines()] == ["caf\\xe9", "odd \\udce9 name"]
    assert "café\n" in kept
    assert "odd \\udce9 name\n" in kept


def test_each_line_is_there_at_once(monkeypatch, tmp_path):
    with open(tmp_path / "out", "w") as stream:  # buffered, as a file is
        monkeypatch.setattr(sys, "stdout", stream)
        log.start()
        logger.info("done")
        assert "done" in (tmp_path / "out").read_text()
        log.stop()


def test_the_last_line_is_on_stderr_and_in_the_log_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "stdout", stdout := io.StringIO())
    log.start()
    log.to_file(tmp_path / "log.txt")
    log.last_line("stopped after update 3")
    log.stop()
    assert stdout.getvalue() == ""
    assert capsys.readouterr().err == "stopped after update 3\n"
    assert (tmp_path / "log.txt").read_text().count("stopped after update 3\n") == 1


def test_bars_are_for_terminals_and_have_a_total(monkeypatch):
    shown = {}
    for stream in (Terminal(), io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        bar = log.progress(range(3), total=3, desc="predicting", unit="batch")
        assert list(bar) == [0, 1, 2]
        shown[type(stream)] = stream.getvalue() if stream else ""
    assert "predicting:   0%|" in shown[Terminal]
    assert "| 0/3 [" in shown[Terminal]
    assert shown[io.StringIO] == ""


def test_the_bar_of_predictions_ends_at_its_total(monkeypatch, tokenizer):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(evaluation, "DELAY", 0)
    evaluation.predict(PrunableBert(small_config()), make_examples(tokenizer, 21), batch_size=4)
    assert "| 0/6 [" in terminal.getvalue()


def test_a_reader_that_leaves_does_not_stop_a_run(workplace):
    command = subprocess.Popen(
        [sys.executable, str(ROOT / "run_pruning.py"), "--model_path", "teacher", "--use_cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert b"teacher: " in command.stdout.readline()  # as `| head -1` does
    command.stdout.close()
    assert (command.stderr.read(), command.wait()) == (b"", 0)
    assert len(json.loads((workplace / "outputs/prune/ft_rte/metrics.json").read_text())["sparsity"]) == 10


def on_terminal(ours: int, theirs: int) -> None:
    """Fine-tune with all three streams on a terminal, of which another process has the other end."""
    os.close(ours)
    for stream in (0, 1, 2):
        os.dup2(theirs, stream)
    os.close(theirs)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w") for stream in (1, 2))
    run_finetuning.main(FLAGS)


def test_the_rows_that_are_read_and_those_cut_are_logged(workplace, capsys):
    run_finetuning.main([*FLAGS, "--max_length", "8"])
    lengths = second.Rows(Path("datasets/rte/dev.tsv"), Path("teacher"), 8).inputs["attention_mask"].sum(1)
    assert 0 < (lengths == 8).sum() < len(lengths)
    line = f"datasets/rte/dev.tsv: 21 examples, {lengths.sum()} tokens, {(lengths == 8).sum()} of full length\n"
    assert line in capsys.readouterr().out


def test_a_terminal_that_closes_does_not_stop_a_run(workplace):
    ours, theirs = pty.openpty()
    process = forked(on_terminal, ours, theirs)
    os.close(theirs)
    assert b"teacher: " in os.read(ours, 10_000)
    os.close(ours)
    process.join()
    assert process.exitcode == 0
    folder = workplace / "outputs/finetune/ft_rte"
    assert json.loads((folder / "metrics.json").read_text())["updates"] == 8
    assert "written to" in (folder / "log.txt").read_text()
