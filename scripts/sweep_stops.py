"""Stop a sweep at random moments, with its jobs or without them, as scripts/chaos.py --sweeps does.

    faults = sweep_stops.run(root, limit=3, rng=random.Random(0), flags=["--num_train_epochs", "3"])

A sweep and its jobs are new processes that import all packages, ten seconds for each cell.
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


class SweepStop(NamedTuple):
    """A signal, and who gets it."""

    number: signal.Signals
    jobs_too: bool  # whether its jobs and their stages get it as well

    def __str__(self) -> str:
        return f"{self.number.name} to the sweep {'and its jobs' if self.jobs_too else 'alone'}"


# on SIGTERM a sweep stops its jobs itself; killed alone, it leaves them running
KILL_ALONE = SweepStop(signal.SIGKILL, False)
SWEEP_STOPS = [SweepStop(signal.SIGTERM, False), SweepStop(signal.SIGKILL, True), KILL_ALONE]


def begin(folder: Path, train_flags: list[str]) -> subprocess.Popen:
    """Start the sweep in this folder."""
    command = [sys.executable, str(SWEEP), *GRID, *PATHS, f"--train_flags={' '.join([*train_flags, '--do_test'])}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(folder / "sweep.out", "a", encoding="utf-8") as output:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


def processes_in(folder: Path) -> list[int]:
    """Ids of the processes with this working directory: a sweep, its jobs, and the stages that they run."""
    ids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == str(folder) and "State:\tZ" not in (process / "status").read_text():
                ids.append(int(process.name))
        except OSError:  # of another user, or ended
            continue
    return ids


def stop(folder: Path, sweep: subprocess.Popen, sweep_stop: SweepStop) -> None:
    """Stop a sweep, and wait for it and for its jobs, unless they are left running.

    Raises:
        Fault: the sweep has another exit status than documented, or a job does not end.
    """
    targets = processes_in(folder) if sweep_stop.jobs_too else [sweep.pid]
    for process in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, sweep_stop.number)
    status = sweep.wait()
    expected = STATUS[sweep_stop.number]
    if status not in (expected, 0):  # 0: it had finished before the signal
        raise Fault(f"{sweep_stop}: it left with status {status}, expected {expected}")
    if sweep_stop != KILL_ALONE:
        wait_for_jobs(folder)


def wait_for_jobs(folder: Path) -> None:
    """Wait until no process of a sweep is left in this folder.

    Raises:
        Fault: it takes longer than stops.HANGING seconds.
    """
    end = time.monotonic() + stops.HANGING
    while running := processes_in(folder):
        if time.monotonic() > end:
            raise Fault(f"processes {running} of a sweep do not end")
        time.sleep(0.1)


def finish(folder: Path, sweep: subprocess.Popen) -> None:
    """Wait until a sweep ends by itself.

    Raises:
        Fault: a cell failed.
    """
    status = sweep.wait()
    if status:
        raise Fault(f"the sweep left with status {status}: {(folder / 'sweep.out').read_text()[-2000:]}")


def disturb(folder: Path, undisturbed: Path, seconds: float, limit: int, rng: random.Random, flags: list[str]) -> int:
    """Run a sweep to its end, stopping it at random moments at most `limit` times; the number of stops.

    Args:
        undisturbed: folder of the same sweep without a stop, which took `seconds`.
        flags: of the stages that train.

    Raises:
        Fault: a check after a stop or at the end has failed.
    """
    folder.mkdir()
    truth = stops.shown(undisturbed)
    count = 0
    weights = {}
    while True:
        # start the sweep, and wait for a random time, or for its end after the last stop
        sweep = begin(folder, flags)
        try:
            sweep.wait(rng.uniform(1, seconds) if count < limit else None)
            break
        except subprocess.TimeoutExpired:
            pass

        # stop it, and check what is there
        stop(folder, sweep, rng.choice(SWEEP_STOPS))
        count += 1
        stops.check_whole(folder)
        stops.check_shown(folder, truth)
        weights |= stops.saved(folder, undisturbed, {}).weights
    finish(folder, sweep)
    stops.check_not_recomputed(folder, stops.Saved(weights, {}, {}))
    stops.check_end(folder, undisturbed)
    return count


def run(root: Path, limit: int, rng: random.Random, flags: list[str]) -> list[str]:
    """Stop sweeps `limit` times in all, or until a fault; the faults.

    Args:
        flags: of the stages that train.
    """
    undisturbed = root / "sweep"
    count = 0
    faults = []

    # once without a stop, to compare with
    undisturbed.mkdir()
    start = time.monotonic()
    finish(undisturbed, begin(undisturbed, flags))
    seconds = time.monotonic() - start

    # then with stops, each sweep in a folder of its own, which stays if there is a fault
    while count < limit and not faults:
        folder = root / f"sweep_{count}"
        try:
            count += disturb(folder, undisturbed, seconds, limit=limit - count, rng=rng, flags=flags)
            shutil.rmtree(folder)
        except Fault as fault:
            faults.append(str(fault))
    return faults
