"""Whether other processes keep the processors busy, and that a run says so."""

import os
import time

import pytest
from conftest import forked

import run_finetuning
from utils import machine

FINETUNING = ["--model_path", "teacher", "--num_train_epochs", "2", "--max_length", "40", "--use_cpu"]


def test_a_thread_that_waits_for_its_processor_is_seen_to_wait():
    processors = os.sched_getaffinity(0)
    others = [forked(time_of_a_processor, min(processors)) for _ in range(3)]
    before, computed = machine.run_delay(), time.process_time()
    time_of_a_processor(min(processors))
    delay, computed = machine.run_delay() - before, time.process_time() - computed
    os.sched_setaffinity(0, processors)
    for other in others:
        other.join()
    assert 1.5 * computed < delay < 0.6  # of four, each has the processor for a quarter of the time


def time_of_a_processor(number: int) -> None:
    """Compute on one processor for 0.4 seconds."""
    os.sched_setaffinity(0, {number})
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        pass


@pytest.mark.parametrize(("share", "times"), [(-1.0, 1), (2.0, 0)])
def test_a_run_says_once_that_others_keep_the_processors_busy(workplace, capsys, monkeypatch, share, times):
    monkeypatch.setattr(machine, "BUSY", share)  # of the time; more than all of it is never waited
    monkeypatch.setattr(machine, "BUSY_SECONDS", -1)
    run_finetuning.main([*FINETUNING, "--log_interval", "1"])
    assert capsys.readouterr().out.count("other processes keep the processors busy") == times
