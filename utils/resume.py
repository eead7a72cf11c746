"""Save and load the state of a training run, so that the same command resumes where an earlier one was stopped.

Only what torch's weights-only loader accepts is written: tensors, numbers, strings, and lists and dicts of them.
"""

import logging
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils import processes
from utils.errors import InputError
from utils.files import written_beside

logger = logging.getLogger("stark")
SAVE_SECONDS = 60.0  # minimal time between saves, if no interval is given


class StateFile:
    """The file with the state of a run."""

    def __init__(self, path: Path, interval: int | None = None, run_id: str = ""):
        """Set up a file without reading or writing it.

        Args:
            interval: updates between saves; None saves at evaluations, once a minute at most.
            run_id: a digest of the run's settings, stored in the file; only a run with the same one resumes from it.
        """
        self.path = path
        self.interval = interval
        self.run_id = run_id
        self.saved_at = time.monotonic()

    @staticmethod
    def run_id_of(path: Path) -> str | None:
        """The run_id in a state file, read without its tensors; None if there is no such file.

        Raises:
            InputError: the file is damaged.
        """
        return _read(path, mmap=True).get("run_id", "") if path.is_file() else None

    @staticmethod
    def history_of(path: Path) -> list[dict[str, Any]]:
        """The evaluations in a state file, read without its tensors.

        Raises:
            InputError: the file is damaged.
        """
        return _read(path, mmap=True)["progress"]["history"]

    def due(self, update: int, evaluated: bool) -> bool:
        """Whether the state is to be saved after this update; the same on all processes."""
        if self.interval:
            return update % self.interval == 0
        return evaluated and processes.broadcast(time.monotonic() - self.saved_at >= SAVE_SECONDS)

    def save(self, state: dict[str, Any], device: torch.device) -> None:
        """Write the state and the random states of all processes; atomic.

        Args:
            device: the device that the run computes on, whose random state is saved, too.

        Raises:
            OSError: the file cannot be written; an earlier one stays as it is.
        """
        random_states = processes.all_gather(_random_state(device))
        if processes.is_main():
            with written_beside(self.path) as beside:
                torch.save({**state, "random": random_states, "run_id": self.run_id}, beside)
        self.saved_at = time.monotonic()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The saved state with its tensors on the device, after restoring the random states.

        None if there is no file, or another run wrote it, which is logged.

        Raises:
            InputError: the file is damaged, or was written by another number of processes.
        """
        found = self.run_id_of(self.path)
        if found != self.run_id:
            if found is not None:
                logger.warning("%s: of another run or version of the code, so training begins anew", self.path)
            return None
        state = _read(self.path, map_location=device)
        random_states = state.pop("random")
        if len(random_states) != processes.world_size():
            raise InputError(f"{self.path}: of {len(random_states)} processes, these are {processes.world_size()}")
        _set_random_state(random_states[processes.rank()], device)
        return state


def _read(path: Path, **options: Any) -> dict[str, Any]:
    try:
        state = torch.load(path, weights_only=True, **options)
        return {**state, "random": state["random"]}  # a KeyError if the file holds something else
    except (OSError, MemoryError, torch.OutOfMemoryError):  # the file may be sound
        raise
    except Exception as error:  # torch raises many types for a damaged file
        raise InputError(f"{path}: cannot be read; --overwrite starts afresh") from error


def _random_state(device: torch.device) -> dict[str, Any]:
    """Random states of Python, numpy, torch, and of the GPU if the run uses one: reading it allocates GPU memory."""
    name, keys, *rest = np.random.get_state()
    state = {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest], "torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    random.setstate(state["python"])
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
