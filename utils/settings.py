"""What decides a run's result: its flags, its number of processes, and the content of what it reads."""

import argparse
import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from utils import processes
from utils.errors import InputError
from utils.files import checkpoint_digest, fingerprint
from utils.tasks import split_path

SETTINGS = "args.json"
# flags that change no result, or only which part of it is made
FREE = {"data_dir", "debug", "do_distil", "do_rewind", "do_test", "do_train", "output_dir", "overwrite", "report_to"}
FREE |= {"save_interval", "stage", "teacher_sparsity"}
ROWS = ("selection_split", "max_eval_examples")  # which rows of dev choose and report


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """All that decides a run's result, and the flags that do not: what args.json holds."""
    return {**vars(args), "num_processes": processes.world_size(), "inputs": input_digests(args)}


def input_digests(args: argparse.Namespace) -> dict[str, str]:
    """The content of what the run reads: flag or split -> digest. A name on the hub has none."""
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


def run_id(now: dict[str, Any]) -> str:
    """A digest of what decides the result: of two runs that `differences` calls the same, it is the same."""
    deciding = {name: value for name, value in now.items() if name not in FREE}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:32]


def other_rows(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In which rows of dev an earlier stage's choices and metrics differ from this one's, in words; of one task only.

    Scores, weights and sparsities that other rows chose would leak into the rows reported here, and their metrics
    could not be compared.

    Args:
        before: args.json of the checkpoint that is read; {} if it was made elsewhere.
        now: the same of the run that reads it.
    """
    if before.get("task_name") != now["task_name"]:
        return []
    defaults = {"selection_split": "dev", "max_eval_examples": None}
    changed = []
    for name in ROWS:
        then, wanted = (values.get(name, defaults[name]) for values in (before, now))
        if then != wanted:
            changed.append(f"--{name} {_written(then)}, now {_written(wanted)}")
    content, content_before = (values.get("inputs", {}).get("dev") for values in (now, before))
    if content and content_before and content != content_before:
        changed.append("the content of dev has changed")
    return changed


def _written(value: Any) -> str:
    return "not given" if value is None else str(value)
