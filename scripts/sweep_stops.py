"""A sweep that is stopped at random moments, with its jobs or without them: what scripts/chaos.py --sweeps does.

    faults = sweep_stops.run(root, wanted=3, rng=random.Random(0), flags=["--num_train_epochs", "3"])

A sweep and its jobs are processes that import everything anew, ten seconds for each cell.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from scripts import stops
from scripts.stops import STATUS, Fault

SWEEP = Path(__file__).resolve().parent / "sweep.py"
GRID = ["--student_layer", "2", "--teacher_sparsity", "0", "60", "--spread", "--jobs", "2", "--poll_seconds", "0.2"]
PATHS = ["--model_path", "../bert", "--data_dir", "../datasets", "--flags=--use_cpu"]


class Way(NamedTuple):
    """How a sweep is stopped."""

    number: signal.Signals
    jobs_too: bool  # whether its jobs and their stages get the signal as well

    def __str__(self) -> str:
        return f"{self.number.name} to the sweep {'and its jobs' if self.jobs_too else 'alone'}"


# a sweep that gets SIGTERM stops its jobs itself; killed alone, it leaves them to go on
WAYS = [Way(signal.SIGTERM, False), Way(signal.SIGKILL, True), Way(signal.SIGKILL, False)]


def begin(folder: Path, train_flags: list[str]) -> subprocess.Popen:
    """Start the sweep in this folder."""
    command = [sys.executable, str(SWEEP), *GRID, *PATHS, f"--train_flags={' '.join([*train_flags, '--do_test'])}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(folder / "sweep.out", "a", encoding="utf-8") as output:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


def processes_in(folder: Path) -> list[int]:
    """The processes whose working directory this is: a sweep, its jobs, and the stages they run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == str(folder) and "State:\tZ" not in (process / "status").read_text():
                found.append(int(process.name))
        except OSError:  # somebody else's, or gone
            continue
    return found


def stop(folder: Path, sweep: subprocess.Popen, way: Way) -> None:
    """Stop a sweep, and wait for all that is stopped with it.

    Raises:
        Fault: the sweep left with another exit status than documented, or a job does not end.
    """
    for process in processes_in(folder) if way.jobs_too else [sweep.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, way.number)
    status = sweep.wait()
    if status not in (STATUS[way.number], 0):  # 0: it came to its end in the meantime
        raise Fault(f"{way}: it left with status {status}, expected {STATUS[way.number]}")
    if way != Way(signal.SIGKILL, False):
        wait_for_jobs(folder)


def wait_for_jobs(folder: Path) -> None:
    """Wait until no process is left there.

    Raises:
        Fault: that takes too long.
    """
    end = time.monotonic() + stops.HANGING
    while left := processes_in(folder):
        if time.monotonic() > end:
            raise Fault(f"processes {left} of a sweep do not end")
        time.sleep(0.1)


def finish(folder: Path, sweep: subprocess.Popen) -> None:
    """Wait for the end of a sweep that nothing stops.

    Raises:
        Fault: a cell failed.
    """
    if status := sweep.wait():
        raise Fault(f"the sweep left with status {status}: {(folder / 'sweep.out').read_text()[-2000:]}")


def disturb(folder: Path, undisturbed: Path, seconds: float, wanted: int, rng: random.Random, flags: list[str]) -> int:
    """Run a sweep, stop it at most so often, and count the stops.

    Raises:
        Fault: something is not as it must be.
    """
    folder.mkdir()
    truth, count, weights = stops.shown(undisturbed), 0, {}
    while True:
        sweep = begin(folder, flags)
        try:
            sweep.wait(rng.uniform(1, seconds) if count < wanted else None)
            break
        except subprocess.TimeoutExpired:
            pass
        stop(folder, sweep, rng.choice(WAYS))
        count += 1
        stops.check_whole(folder)
        stops.check_shown(folder, truth)
        weights |= stops.saved(folder, undisturbed, {}).weights
    finish(folder, sweep)
    stops.check_kept(folder, stops.Saved(weights, {}, {}))
    stops.check_end(folder, undisturbed)
    return count


def run(root: Path, wanted: int, rng: random.Random, flags: list[str]) -> list[str]:
    """Stop sweeps so often, and return the faults.

    Args:
        flags: of the stages that train.
    """
    undisturbed, count, faults = root / "sweep", 0, []
    undisturbed.mkdir()
    start = time.monotonic()
    finish(undisturbed, begin(undisturbed, flags))
    seconds = time.monotonic() - start
    while count < wanted and not faults:
        folder = root / f"sweep_{count}"
        try:
            count += disturb(folder, undisturbed, seconds, wanted - count, rng, flags)
            shutil.rmtree(folder)
        except Fault as fault:
            faults.append(str(fault))
    return faults
