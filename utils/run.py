"""What every script does around its work: seed, device, log, output files, errors in one line."""

import argparse
import functools
import importlib.metadata
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from utils.glue import InputError

logger = logging.getLogger("stark")


class _Console(logging.Handler):
    """Log lines that leave the progress bar whole."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line above the bar."""
        tqdm.write(self.format(record), file=sys.stdout)


class Run:
    """The output folder of one run: checkpoints, args.json, metrics.json, log.txt.

    Files appear complete or not at all: each is written beside its name and renamed.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.folder, self.started = args, folder, time.perf_counter()
        self.device = torch.device("cuda" if torch.cuda.is_available() and not args.use_cpu else "cpu")
        torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it; changes nothing on a CPU
        set_seed(args.seed)
        logger.setLevel(logging.INFO)
        for handler in logger.handlers[:]:  # an earlier run's, in the same process
            logger.removeHandler(handler)
            handler.close()
        console = _Console()
        console.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(console)

    def open(self) -> None:
        """Create the folder with args.json and log.txt; when all input is read, so that bad input leaves no trace."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "args.json", {**vars(self.args), **versions()})
        handler = logging.FileHandler(self.folder / "log.txt", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
        logger.info("%s on %s, writing to %s", Path(sys.argv[0]).name, self.device, self.folder)

    def place(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model on the run's device, compiled if the flags say so."""
        model = model.to(self.device)
        model.compute_plainly(self.args.no_exact_shortcuts)
        if self.args.compile:
            model.compile(dynamic=True)
        return model

    def save(self, name: str, *parts: Any, write: Callable[[Path], None] | None = None) -> Path:
        """A checkpoint folder: each part (model, tokenizer) writes itself by save_pretrained, `write` adds to it."""
        target, beside = self.folder / name, self.folder / f".{name}.part"
        shutil.rmtree(beside, ignore_errors=True)
        for part in parts:
            part.save_pretrained(beside)
        if write:
            write(beside)
        old = self.folder / f".{name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        beside.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        return target

    def finish(self, metrics: dict[str, Any], header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
        """Write metrics.json, print the table and where everything is."""
        seconds = round(time.perf_counter() - self.started, 1)
        write_json(self.folder / "metrics.json", {**metrics, "seconds": seconds})
        text = table(header, rows)
        logger.info("done in %.1f s\n%s", seconds, text)
        logger.info("written to %s", self.folder)


def set_seed(seed: int) -> None:
    """Seed Python, numpy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file beside its name, then rename it into place."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; {} if there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def versions() -> dict[str, str | None]:
    """Of Python, torch, transformers, and the git commit of this code if it is a checkout."""
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

    def decorate(main: Callable) -> Callable:
        @functools.wraps(main)
        def wrapped(argv: list[str] | None = None) -> None:
            try:
                main(argv)
            except (
                InputError,
                OSError,
                FloatingPointError,
                MemoryError,
                torch.OutOfMemoryError,
                *user_errors,
            ) as error:
                if "--debug" in (sys.argv if argv is None else argv):
                    traceback.print_exc()
                print(f"error: {str(error).strip() or type(error).__name__}".splitlines()[0], file=sys.stderr)
                sys.exit(2 if isinstance(error, theirs) else 1)

        return wrapped

    return decorate
