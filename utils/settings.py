"""Settings of a run: flags, number of processes, and digests of its input; how those of two runs differ."""

import argparse
import contextlib
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from utils import processes
from utils.errors import InputError
from utils.files import checkpoint_digest, fingerprint
from utils.rows import listed
from utils.tasks import find_task, has_split, split_path, submission_splits

SETTINGS = "args.json"
FINISHED_AT = "finished_at"  # its entry that tells a checkpoint from the same one made again
# flags without influence on a result, or only on which part of it is computed
WITHOUT_EFFECT = {"data_dir", "debug", "do_distil", "do_rewind", "do_test", "do_train", "output_dir", "overwrite"}
WITHOUT_EFFECT |= {"report_to", "save_interval", "teacher_sparsity"}
# settings -> what they are called
NO_FLAGS = {"num_processes": "processes", "stage": "stage", "examples_per_update": "examples an update"}
OF_TEACHERS = ("temperature", "alpha", "unlabelled_weight", "unlabelled_per_epoch")
BATCH = ("per_device_train_batch_size", "num_grad_accum_steps")
RECIPE = (  # what students have alike that are held against each other
    ("max_train_examples", "max_eval_examples", "max_length", "selection_split", "selection_metric")
    + ("num_train_epochs", "num_patience_epochs", "log_interval", *BATCH, "learning_rate", "lr_scheduler_type")
    + ("warmup_proportion", "weight_decay", "max_grad_norm", "use_bf16", "use_fp16", *OF_TEACHERS)
)
DEV_ROWS = {"selection_split": "dev", "max_eval_examples": None}  # flags that choose rows of dev -> default


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Content of args.json: all flags, an own task's definition, the number of processes, digests of the input.

    Raises:
        InputError: there is no such task.
    """
    task = find_task(args.task_name, args.data_dir)
    own = {"task": task.definition} if task.is_own else {}
    return {**vars(args), **own, "num_processes": processes.world_size(), "inputs": input_digests(args)}


def of_a_stage(found: dict[str, Any]) -> dict[str, Any]:
    """The content of an args.json; {} if another program wrote it, which digests no inputs."""
    return found if isinstance(found.get("inputs"), dict) else {}


def recipe_of(found: dict[str, Any]) -> dict[str, Any]:
    """What there is of RECIPE in the settings of a run, BATCH as the examples of an update."""
    recipe = {name: found[name] for name in RECIPE if name in found}
    per_update = math.prod(recipe.pop(name, 1) for name in BATCH) * found.get("num_processes", 1)
    return {**recipe, "examples_per_update": per_update}


def test_splits(task_name: str, data_dir: str) -> list[str]:
    """Those of `submission_splits` whose files are there."""
    splits = submission_splits(task_name, data_dir).values()
    return [split for split in splits if split != "test" or has_split(task_name, data_dir, "test")]


def input_digests(args: argparse.Namespace) -> dict[str, str]:
    """Digests of the checkpoints and splits that a run reads: flag or split -> digest; hub names have none."""
    folders = {name: Path(path) for name, path in vars(args).items() if name.endswith("model_path")}
    digests = {name: checkpoint_digest(folder) for name, folder in folders.items() if folder.is_dir()}
    for split in ("train", "dev"):
        with contextlib.suppress(InputError, OSError):  # raised again when the split is read
            digests[split] = fingerprint([split_path(args.task_name, args.data_dir, split)])
    if getattr(args, "unlabelled", None):
        with contextlib.suppress(OSError):  # one by one, since their order is that of the rows
            digests["unlabelled"] = " ".join(fingerprint([Path(path)]) for path in args.unlabelled)
        with contextlib.suppress(InputError, OSError):  # whose rows are left out of them
            splits = test_splits(args.task_name, args.data_dir)
            digests["test"] = fingerprint([split_path(args.task_name, args.data_dir, split) for split in splits])
    return digests


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings that influence the result and differ, in words: ["--lam 0.5, now 0.7"].

    Args:
        before: settings of an earlier run, as args.json holds them.
        now: settings of this run.
    """
    # inputs are compared by content, not by path
    inputs = now["inputs"]
    inputs_before = before.get("inputs", {})
    read_before = [name for name in inputs if before.get(name, "") is not None]  # by a flag that was given, or always
    if "test" not in inputs_before:  # as in earlier versions
        read_before = [name for name in read_before if name != "test"]
    changed = [f"the content of {name} has changed" for name in read_before if inputs[name] != inputs_before.get(name)]

    # settings that this run does not have, such as flags of other versions, do not count
    changed += _task_changes(before, now)
    for name in sorted(set(now) - WITHOUT_EFFECT - {*read_before, "inputs", "task"}):
        if before.get(name) != now[name]:
            changed.append(f"{NO_FLAGS.get(name, f'--{name}')} {before.get(name)}, now {now[name]}")
    return changed


def _task_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """How the definition of an own task differs, in words; both are settings."""
    definitions = before.get("task", {}), now.get("task", {})
    changed = []
    for key in dict.fromkeys(key for definition in definitions for key in definition):
        value_before, value_now = (definition.get(key) for definition in definitions)
        if value_before != value_now:
            changed.append(f"{key} of task.json {_format_entry(value_before)}, now {_format_entry(value_now)}")
    return changed


def _format_entry(value: Any) -> str:
    return listed(list(map(str, value))) if isinstance(value, list) else str(value)


def run_id(now: dict[str, Any]) -> str:
    """A digest of the settings that influence the result; equal for two runs without `differences`."""
    left_out = {*WITHOUT_EFFECT, *now["inputs"]}  # of inputs the content counts, not the path
    content = {name: value for name, value in now.items() if name not in left_out and value is not None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def other_rows(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """How the rows of dev that a checkpoint was selected and measured on differ from this run's, in words.

    If they differ, rows that selected weights, scores or sparsities would be among those that the result is reported
    on; if an own task is defined otherwise, the rows mean something else. Checkpoints of other tasks do not count.

    Args:
        before: settings of the checkpoint; {} if this project did not make it.
        now: settings of the run that reads it.
    """
    if before.get("task_name") != now["task_name"]:
        return []
    changed = _task_changes(before, now)
    for name, default in DEV_ROWS.items():
        value_before = before.get(name, default)
        value_now = now.get(name, default)
        if value_before != value_now:
            changed.append(f"--{name} {_format_flag(value_before)}, now {_format_flag(value_now)}")

    digest_before = before.get("inputs", {}).get("dev")
    digest_now = now.get("inputs", {}).get("dev")
    if digest_before and digest_now and digest_before != digest_now:
        changed.append("the content of dev has changed")
    return changed


def _format_flag(value: Any) -> str:
    return "not given" if value is None else str(value)
