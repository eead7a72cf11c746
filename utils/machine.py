"""Versions and hardware that a run was made with, and whether others keep its processors busy."""

import importlib.metadata
import logging
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

logger = logging.getLogger("stark")
BUSY = 0.25  # share of its time that a thread waits for a processor, from which on a run says so
BUSY_SECONDS = 15  # of waiting, below which it says nothing


def versions() -> dict[str, str | None]:
    """Versions of Python, torch and transformers, and the git commit of this code; None if it is no git checkout."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "python_version": sys.version.split()[0],
        "torch_version": torch.__version__,
        "transformers_version": importlib.metadata.version("transformers"),
        "git_commit": commit,
    }


def hardware(device: str) -> dict[str, str | int]:
    """Name of the processor or GPU, the CPU's capability and number of threads; `device` is "cpu" or "cuda"."""
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    capability = torch.backends.cpu.get_cpu_capability()
    return {"hardware": name, "cpu_capability": capability, "cpu_threads": torch.get_num_threads()}


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def run_delay() -> float:
    """Seconds for which this process's threads were ready to run and waited for a processor; 0 where none are counted.

    Linux counts nanoseconds, the second number of a thread's schedstat.
    """
    delay = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            delay += int(path.read_text().split()[1])
        except OSError:  # the thread has ended
            continue
    return delay / 1e9


class BusyProcessors:
    """Says once if other processes keep the processors busy, on which several threads may be slower than one.

    Threads that compute together wait for the one that has no processor, and keep theirs busy meanwhile.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.delay = run_delay()
        self.was_logged = False

    def log(self) -> None:
        """Log a warning, unless it was logged, if the threads have waited for a quarter of the time since the start."""
        threads = torch.get_num_threads()
        waited = (run_delay() - self.delay) / threads
        share = waited / (time.perf_counter() - self.start)
        if waited > BUSY_SECONDS and share > BUSY and not self.was_logged:
            advice = "" if threads == 1 else "; fewer may be faster: OMP_NUM_THREADS=1"
            message = "other processes keep the processors busy: %d threads waited for one %.0f %% of the time%s"
            logger.warning(message, threads, 100 * share, advice)
            self.was_logged = True
