"""Ctrl-C and a cluster's SIGTERM: one line, an exit status, and a saved state of training."""

import contextlib
import copy
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import forked, small_config, wait_until
from test_training import QUICK, fit_and_select, make_examples

import run_finetuning
from models.bert import PrunableBert
from models.losses import task_loss
from utils.entry import entry_point
from utils.files import lock, written_beside
from utils.resume import StateFile
from utils.signals import deferred
from utils.training import fit

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
both_signals = pytest.mark.parametrize("number", STATUS, ids=["SIGINT", "SIGTERM"])


def status_of(main) -> int:
    with pytest.raises(SystemExit) as stop:
        main([])
    return stop.value.code


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PrunableBert(small_config())


# the third is evaluated, the ninth is the last
@pytest.mark.parametrize(("stop", "number"), [(1, signal.SIGTERM), (3, signal.SIGINT), (9, signal.SIGTERM)])
def test_training_finishes_its_update_saves_and_goes_on_from_there(tmp_path, capsys, model, tokenizer, number, stop):
    examples = make_examples(tokenizer, 21)
    made = []

    def train(model, saved=None, stop=None):
        def loss(logits, batch):
            made.append(len(batch.example_ids))
            if len(made) == stop:
                os.kill(os.getpid(), number)
            return task_loss(logits, batch)

        made.clear()
        recipe = QUICK._replace(num_train_epochs=3)
        return fit_and_select(model, examples, loss, recipe, saved)

    @entry_point()
    def main(argv):
        train(stopped, StateFile(tmp_path / "state"), stop)

    whole, stopped, resumed = (copy.deepcopy(model) for _ in range(3))
    wanted = train(whole)
    assert status_of(main) == STATUS[number]
    assert len(made) == stop
    line = f"stopped after update {stop} of 9; the same command goes on from there\n"
    assert capsys.readouterr() == ("", line)
    found = train(resumed, StateFile(tmp_path / "state"))
    assert len(made) == 9 - stop
    assert found._replace(train_seconds=0) == wanted._replace(train_seconds=0)
    for ours, other in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, other)


def test_training_that_was_over_when_it_was_stopped_is_over_when_it_goes_on(tmp_path, model, tokenizer):
    examples = make_examples(tokenizer, 24)
    recipe = QUICK._replace(num_train_epochs=20, num_patience_epochs=2)

    def train(stop, saved=None):
        def dev():
            evaluations.append(1)
            if len(evaluations) == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return {"acc": min(0.4 + 0.1 * len(evaluations), 0.6)}

        evaluations = []
        return fit(
            copy.deepcopy(model), examples, task_loss, recipe, eval_fn=dev, selection_metric="acc", train_state=saved
        )

    wanted = train(None)
    assert (wanted.best_update, wanted.updates) == (6, 12)
    saved = StateFile(tmp_path / "state")
    assert status_of(entry_point()(lambda argv: train(4, saved))) == 143
    assert train(None, saved)._replace(train_seconds=0) == wanted._replace(train_seconds=0)


@both_signals
def test_a_stopped_command_goes_on_as_if_nothing_had_happened(workplace, capfd, number):
    flags = ["--model_path", "teacher", "--num_train_epochs", "4", "--learning_rate", "1e-4", "--save_interval", "1"]
    flags += ["--num_patience_epochs", "0", "--use_cpu"]
    run_finetuning.main([*flags, "--output_dir", "undisturbed"])
    capfd.readouterr()
    process = forked(run_finetuning.main, flags)
    folder = Path("outputs/finetune/ft_rte")
    wait_until((folder / ".ckpt.state").exists)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == STATUS[number]
    output, error = capfd.readouterr()
    [line] = error.splitlines()
    assert "stopped" not in output
    assert "stopped after update " in line
    assert line in (folder / "log.txt").read_text()
    assert not (folder / "ckpt").exists()
    run_finetuning.main(flags)
    update = line.split()[3]
    assert f"going on after update {update}\n" in (folder / "log.txt").read_text()
    found, wanted = (
        json.loads(Path(f"{root}/ft_rte/metrics.json").read_text()) for root in (folder.parent, "undisturbed")
    )
    assert found["history"] == wanted["history"]


@both_signals
def test_elsewhere_a_script_stops_at_once(capsys, number):
    before = [signal.getsignal(number) for number in STATUS]
    cleaned = []

    @entry_point()
    def main(argv):
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except KeyboardInterrupt:
            cleaned.append(True)
            raise

    assert status_of(main) == STATUS[number]
    assert cleaned == [True]
    assert capsys.readouterr().err == f"stopped by {number.name}\n"
    assert [signal.getsignal(number) for number in STATUS] == before


@both_signals
def test_a_stop_while_locks_are_let_go_of_is_one_line_too(tmp_path, monkeypatch, capsys, number):
    unlink = os.unlink

    def stopping(path, **options):
        monkeypatch.setattr(os, "unlink", unlink)
        os.kill(os.getpid(), number)
        unlink(path, **options)

    @entry_point()
    def main(argv):
        lock(tmp_path / ".lock")
        monkeypatch.setattr(os, "unlink", stopping)

    assert status_of(main) == STATUS[number]
    assert capsys.readouterr().err == f"stopped by {number.name}\n"
    assert not list(tmp_path.iterdir())


def test_a_write_that_is_stopped_leaves_what_was_there(tmp_path):
    (tmp_path / "a.json").write_text("old")

    @entry_point()
    def main(argv):
        with written_beside(tmp_path / "a.json") as beside:
            beside.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    assert status_of(main) == 143
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


@both_signals
def test_a_second_signal_leaves_at_once(tmp_path, number):
    @entry_point()
    def main(argv):
        with deferred() as stop_signal:
            (tmp_path / "ready").touch()
            while not stop_signal():
                time.sleep(0.01)
            (tmp_path / "noted").touch()
            with contextlib.suppress(BaseException):
                time.sleep(60)
        (tmp_path / "ended").touch()

    process = forked(main, [])
    wait_until((tmp_path / "ready").exists)
    os.kill(process.pid, signal.SIGINT)
    wait_until((tmp_path / "noted").exists)
    time.sleep(0.2)  # within a tenth of a second they are one: `timeout` sends each signal twice
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == STATUS[number]
    assert not (tmp_path / "ended").exists()


def test_two_signals_at_the_same_moment_count_as_one(tmp_path, capsys):
    @entry_point()
    def main(argv):
        with deferred() as stop_signal:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop_signal() == signal.SIGTERM

    assert status_of(main) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n"


def test_what_is_ignored_stays_ignored_and_other_threads_have_no_handlers():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended = []  # as nohup leaves it

    @entry_point()
    def main(argv):
        if threading.current_thread() is threading.main_thread():
            os.kill(os.getpid(), signal.SIGINT)
        with deferred() as stop_signal:
            ended.append(stop_signal())

    try:
        main([])
    finally:
        signal.signal(signal.SIGINT, before)
    thread = threading.Thread(target=main, args=([],))
    thread.start()
    thread.join()
    assert ended == [None, None]
