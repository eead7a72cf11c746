"""What every script does around its work: seed, device, log, output files, errors in one line."""

import argparse
import contextlib
import functools
import logging
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from tqdm.auto import tqdm

from utils import processes
from utils.card import model_card
from utils.errors import InputError
from utils.files import (
    checkpoint_digest,
    fingerprint,
    lock,
    read_json,
    recover,
    release,
    write_json,
    write_text,
    written_beside,
)
from utils.glue import Task, split_path, write_submission
from utils.machine import hardware, versions
from utils.metrics import predictions_of
from utils.resume import StateFile
from utils.trackers import Tracker

logger = logging.getLogger("stark")
RESULT = "metrics.json"
NO_MEMORY = ("allocate memory", "out of memory", "ALLOC_FAILED")  # in errors of torch, CUDA and its libraries
SHARED = ".shared.lock"  # held while writing what the processes of a spread sweep share
# flags that change no result, or only which part of it is made
FREE = {"data_dir", "debug", "output_dir", "overwrite", "report_to", "save_interval", "stage", "teacher_sparsity"}


class _Console(logging.Handler):
    """Log lines that leave the progress bar whole."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line above the bar."""
        tqdm.write(self.format(record), file=sys.stdout)


class Run:
    """The output folder of one run: checkpoints, args.json, metrics.json, log.txt.

    Files appear complete or not at all. Of several processes, the main one writes and logs.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        """Seed, device, log; raises InputError if the folder holds a run with other arguments."""
        self.args, self.folder, self.started = args, folder, time.perf_counter()
        self.script = f"run_{args.stage}.py"
        self.device = processes.start(args.use_cpu)
        torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it; changes nothing on a CPU
        set_seed(args.seed)
        logger.setLevel(logging.INFO if processes.is_main() else logging.CRITICAL)
        for handler in logger.handlers[:]:  # an earlier run's, in the same process
            logger.removeHandler(handler)
            handler.close()
        console = _Console()
        console.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(console)
        if processes.count() > 1 and "num_train_epochs" not in args:
            raise InputError(f"{self.script}: runs on one process, found {processes.count()}: no torchrun")
        self.settings, self.tracker = settings(args), Tracker(getattr(args, "report_to", "none"))
        self._refuse_another_run()

    def _refuse_another_run(self) -> None:
        before = read_json(self.folder / "args.json")
        begun = [*self.folder.glob("ckpt*"), *self.folder.glob(".*.state")]
        changes = differences(before, self.settings)
        if before and begun and changes and not self.args.overwrite:
            raise InputError(
                f"{self.folder}: holds a run with other arguments: {'; '.join(changes)}; --overwrite starts afresh"
            )

    def finished(self, *names: str) -> bool:
        """Whether the same arguments have written metrics.json and these checkpoints already; says so.

        Raises:
            FloatingPointError: they have, and training had diverged.
        """
        there = (self.folder / RESULT, *(self.folder / name / "config.json" for name in names))
        same = not differences(read_json(self.folder / "args.json"), self.settings)
        stale = any(self._beside(name, "stale").exists() for name in names)
        if self.args.overwrite or not same or stale or not all(path.is_file() for path in there):
            return False
        if diverged := read_json(self.folder / RESULT).get("diverged"):
            raise FloatingPointError(
                f"{self.folder}: {diverged}; the best weights before are kept, --overwrite starts afresh"
            )
        logger.info("%s: finished before with the same arguments; --overwrite starts afresh", self.folder)
        return True

    def open(self, *names: str) -> None:
        """Take the folder for checkpoints of these names, and write args.json; when all input is read, so that bad
        input leaves no trace.

        Raises:
            InputError: another process is writing one of them.
        """
        if processes.is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                lock(self._beside(name, "lock"))
                recover(self.folder / name)
            if self.args.overwrite:
                # another run's checkpoints are all stale, of the same those made again; they stay until replaced
                others = differences(read_json(self.folder / "args.json"), self.settings)
                for name in [path.name for path in self.folder.glob("ckpt*")] if others else names:
                    self._beside(name, "stale").touch()
                    self._beside(name, "state").unlink(missing_ok=True)
            lock(self.folder / SHARED, wait=True)  # parts of a sweep may begin at the same moment
            write_json(self.folder / "args.json", {**self.settings, **versions(), **hardware(self.device.type)})
            release(self.folder / SHARED)
            handler = logging.FileHandler(self.folder / "log.txt", encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            logger.addHandler(handler)
        processes.wait()
        self.tracker.start(self.folder, self.settings)
        shared = f" x {processes.count()}" if processes.count() > 1 else ""
        logger.info("%s on %s%s, writing to %s", self.script, self.device, shared, self.folder)

    def place(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model on the run's device, compiled if the flags say so."""
        model = model.to(self.device)
        model.compute_plainly(self.args.no_exact_shortcuts)
        if self.args.compile:
            torch._dynamo.config.recompile_limit = 64  # models of other widths are compiled anew: ten cut teachers
            model.compile(dynamic=True)
        return model

    def state(self, name: str) -> StateFile:
        """Where the training of the checkpoint of this name keeps its state."""
        return StateFile(self._beside(name, "state"), self.args.save_interval)

    def _beside(self, name: str, kind: str) -> Path:
        return self.folder / f".{name}.{kind}"

    def save(
        self,
        name: str,
        *parts: Any,
        result: dict[str, Any],
        write: Callable[[Path], None] | None = None,
    ) -> None:
        """A checkpoint folder: each part (model, tokenizer) writes itself by save_pretrained, `write` adds to it.

        `result` is what its training came to, for the model card and for runs of several checkpoints.
        """
        if processes.is_main():
            with written_beside(self.folder / name) as beside:
                for part in parts:
                    part.save_pretrained(beside)
                if write:
                    write(beside)
                write_json(beside / RESULT, result)
                card = model_card(self.folder.name, name, self.settings, parts[0].config, result)
                write_text(beside / "README.md", card)
            for kind in ("stale", "state"):
                self._beside(name, kind).unlink(missing_ok=True)
        processes.wait()

    def result(self, name: str) -> dict[str, Any]:
        """What was saved with a checkpoint; {} if it is not finished."""
        return {} if self._beside(name, "stale").exists() else read_json(self.folder / name / RESULT)

    def results(self) -> dict[str, dict[str, Any]]:
        """By name, of all finished checkpoints in the folder, whichever process made them.

        From here to its end this process is the only one to write metrics.json, so that the last one sees all.
        """
        if processes.is_main():
            lock(self.folder / SHARED, wait=True)
        processes.wait()
        names = sorted(path.parent.name for path in self.folder.glob(f"ckpt*/{RESULT}"))
        return {name: result for name in names if (result := self.result(name))}

    def submit(self, task: Task, logits: torch.Tensor) -> None:
        """Write GLUE's file for the test set, from logits (N, C) in file order."""
        if processes.is_main():
            write_submission(self.folder / f"{task.title}.tsv", task, predictions_of(logits.cpu().numpy()))

    def finish(
        self,
        metrics: dict[str, Any],
        header: Iterable[str],
        rows: Iterable[Iterable[Any]],
        diverged: str | None = None,
    ) -> None:
        """Write metrics.json, print the table and where everything is.

        Raises:
            FloatingPointError: training diverged, so that what is kept is the best so far.
        """
        seconds = round(time.perf_counter() - self.started, 1)
        if processes.is_main():
            write_json(self.folder / RESULT, {**metrics, "diverged": diverged or None, "seconds": seconds})
        self.tracker.stop()
        logger.info("done in %.1f s\n%s", seconds, table(header, rows))
        logger.info("written to %s", self.folder)
        if diverged:
            raise FloatingPointError(f"{self.folder}: {diverged}; the best weights before are kept")


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """All that decides a run's result: flags, processes, and digests of what it reads."""
    return {**vars(args), "num_processes": processes.count(), "inputs": input_digests(args)}


def input_digests(args: argparse.Namespace) -> dict[str, str]:
    """What the run reads: flag or file -> digest of the content. A name on the hub has none."""
    folders = {name: Path(path) for name, path in vars(args).items() if name.endswith("model_path")}
    digests = {name: checkpoint_digest(folder) for name, folder in folders.items() if folder.is_dir()}
    for split in ("train", "dev"):
        with contextlib.suppress(InputError, OSError):  # reading it will say
            digests[split] = fingerprint([split_path(args.task_name, args.data_dir, split)])
    return digests


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What decides a run's result and is not the same, in words: "--lam 0.5, now 0.7".

    Args:
        before, now: as args.json has them.
    """
    inputs, inputs_before = now["inputs"], before.get("inputs", {})
    changed = [f"the content of {name} has changed" for name in inputs if inputs[name] != inputs_before.get(name)]
    for name in sorted({*now, *before} - FREE - {*inputs, "inputs"}):
        if name in now and before.get(name) != now[name]:
            words = "processes" if name == "num_processes" else f"--{name}"
            changed.append(f"{words} {before.get(name)}, now {now[name]}")
    return changed


def set_seed(seed: int) -> None:
    """Seed Python, numpy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Right-aligned columns under a header; floats with four decimals, None as -."""
    cells = [list(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def entry_point(*user_errors: type[Exception]) -> Callable[[Callable], Callable]:
    """Decorate a script's main: errors are one line on stderr, with exit status 2 if the user's input caused them.

    A full disk, a folder that cannot be written, memory that ends and numbers that are none leave with status 1. With
    --debug the traceback comes, too.
    """
    theirs = (InputError, *user_errors)
    ours = (OSError, SafetensorError, FloatingPointError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)

    def decorate(main: Callable) -> Callable:
        @functools.wraps(main)
        def wrapped(argv: list[str] | None = None) -> None:
            try:
                main(argv)
            except (*theirs, *ours, RuntimeError) as error:
                if not isinstance(error, (*theirs, *ours)) and not any(words in str(error) for words in NO_MEMORY):
                    raise  # a bug
                if "--debug" in (sys.argv if argv is None else argv):
                    traceback.print_exc()
                print(f"error: {str(error).strip() or type(error).__name__}".splitlines()[0], file=sys.stderr)
                sys.exit(2 if isinstance(error, theirs) else 1)
            finally:
                release()
                processes.stop()

        return wrapped

    return decorate
