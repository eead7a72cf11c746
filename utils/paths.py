"""The tree of outputs, built and read back here alone: the five stages, their folders, the names of checkpoints."""

import argparse
import re
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import InputError


class StageInfo(NamedTuple):
    """Where a stage writes, and what."""

    folder: str  # below outputs/
    run_name: str  # the folder of a run below that
    description: str  # of its checkpoint, for the model card


SCORED_RUN_NAME = "{kind}/kd_{student}_{task}_{score}"
STAGES = {  # in order; the script of a stage is run_<stage>.py
    "finetuning": StageInfo("finetune", "ft_{task}", "BERT fine-tuned on {task}: a dense teacher"),
    "pruning": StageInfo(
        "prune", "ft_{task}", "a teacher for {task} whose heads and neurons are sorted by expressiveness"
    ),
    "distillation": StageInfo(
        "distil", "{kind}/{model_type}_{student}_{task}", "a student for {task}, distilled from the dense teacher"
    ),
    "sparsification": StageInfo(
        "stark", SCORED_RUN_NAME, "a teacher for {task} whose heads and neurons are sorted by knowledgeableness"
    ),
    "rewinding": StageInfo("rewind", SCORED_RUN_NAME, "a student for {task}, distilled from a sparse teacher"),
}
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


def script_name(stage: str) -> str:
    """The script of a stage."""
    return f"run_{stage}.py"


def output_dir(stage: str) -> str:
    """Where a stage writes by default."""
    return f"outputs/{STAGES[stage].folder}"


def run_folder(args: argparse.Namespace) -> Path:
    """The folder of the run that these flags of a stage ask for: outputs/stark/parameter_pruned/kd_70_rte_0.5."""
    return Path(args.output_dir, _run_name(args, args.stage))


def default_paths(parser: argparse.ArgumentParser, args: argparse.Namespace, **stages: str) -> None:
    """Fill in the model paths that were not given, and leave with an error if the stage before has not been run.

    Args:
        stages: flag -> the earlier stage whose checkpoint it is by default.
    """
    for flag, stage in stages.items():
        if getattr(args, flag) is None:
            path = Path(output_dir(stage), _run_name(args, stage), CHECKPOINT)
            if not path.is_dir():
                first = f"run {script_name(stage)} first, or give a path"
                parser.error(f"--{flag}: nothing at its default {path}; {first}")
            setattr(args, flag, str(path))


def student_source(args: argparse.Namespace) -> str:
    """The stage whose checkpoint a student's initial weights are from by default."""
    return "finetuning" if args.student_sparsity is None else "pruning"


def _run_name(args: argparse.Namespace, stage: str) -> str:
    """The folder of a run below its stage's: of this stage, or of an earlier one for the same student and score."""
    words = {"task": args.task_name, "model_type": args.model_type}
    if "student_layer" in args and args.student_sparsity is None:
        chosen = "" if args.layer_choice == "first" else "-" + args.layer_choice.replace(",", ".")
        words |= {"kind": "layer_dropped", "student": f"{args.student_layer}{chosen}"}
    elif "student_layer" in args:
        words |= {"kind": "parameter_pruned", "student": args.student_sparsity}
    if "score" in args:
        words["score"] = args.lam if args.score == "knowledgeable" else args.score
    return STAGES[stage].run_name.format(**words)


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
