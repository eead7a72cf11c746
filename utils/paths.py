"""The tree of outputs: folders and names of checkpoints, built and read back here alone."""

import argparse
import re
from pathlib import Path
from typing import Any

from utils.errors import InputError

CHECKPOINT = "ckpt"


def checkpoint_name(teacher_sparsity: int | None = None) -> str:
    """The folder of a stage's checkpoint, ckpt, or of a rewind's at a teacher sparsity (percent), ckpt_30."""
    return CHECKPOINT if teacher_sparsity is None else f"{CHECKPOINT}_{teacher_sparsity}"


def sparsity_of(name: str) -> int | None:
    """The teacher sparsity (percent) that a checkpoint's name ends in; None of ckpt and of what is no checkpoint."""
    match = re.fullmatch(rf"{CHECKPOINT}_(0|[1-9]\d?)", name)
    return int(match[1]) if match else None


def is_checkpoint(name: str) -> bool:
    """Whether `checkpoint_name` can have built this name; ckpt_0.bak and ckpt_0_copy are nobody's."""
    return name == CHECKPOINT or sparsity_of(name) is not None


def default_paths(parser: argparse.ArgumentParser, args: argparse.Namespace, **paths: tuple[str, str]) -> None:
    """Fill in the model paths that were not given and say what is missing of them.

    Args:
        paths: flag -> (the earlier stage's default folder, the script that writes it).
    """
    for flag, (path, script) in paths.items():
        if getattr(args, flag) is None:
            if not Path(path).is_dir():
                parser.error(f"--{flag}: nothing at its default {path}; run {script} first, or give a path")
            setattr(args, flag, path)


def student_folder(args: argparse.Namespace, model_type: str, by_score: bool = False) -> str:
    """A student's place in the output tree: layer_dropped/kd_4_rte, parameter_pruned/kd_70_rte_0.5.

    `by_score` adds lam, or the score if it is another than the knowledgeable one.
    """
    kind, size = "parameter_pruned", args.student_sparsity
    if args.student_sparsity is None:
        chosen = "" if args.layer_choice == "first" else "-" + args.layer_choice.replace(",", ".")
        kind, size = "layer_dropped", f"{args.student_layer}{chosen}"
    by = f"_{args.lam if args.score == 'knowledgeable' else args.score}" if by_score else ""
    return f"{kind}/{model_type}_{size}_{args.task_name}{by}"


def student_source(args: argparse.Namespace) -> tuple[str, str]:
    """Where a student's initial weights are by default, and the script that writes them."""
    if args.student_sparsity is None:
        return f"outputs/finetune/ft_{args.task_name}/ckpt", "run_finetuning.py"
    return f"outputs/prune/ft_{args.task_name}/ckpt", "run_pruning.py"


def teacher_sparsities(args: argparse.Namespace, config: dict[str, Any]) -> list[int]:
    """The sparsities of the sparse teacher that --teacher_sparsity asks for, ascending; all without it.

    Args:
        config: the content of the teacher's config.json.

    Raises:
        InputError: the teacher's checkpoint was not sorted by stage 4, or does not know one of them.
    """
    sparsity_map = config.get("sparsity_map")
    if not sparsity_map or not isinstance(sparsity_map, dict) or not all(key.isdigit() for key in sparsity_map):
        raise InputError(f"{args.teacher_model_path}: no sparsity_map in config.json, expected a teacher of stage 4")
    known = sorted(map(int, sparsity_map))
    if unknown := sorted(set(args.teacher_sparsity or ()) - set(known)):
        raise InputError(
            f"--teacher_sparsity {unknown[0]}: the teacher's checkpoint knows {', '.join(map(str, known))}"
        )
    return sorted(set(args.teacher_sparsity or known))
