"""The table of the five stages, and the names of their output folders and checkpoints."""

import argparse
import re
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import InputError


class StageInfo(NamedTuple):
    """Output folder of a stage, and description of its checkpoint."""

    folder: str  # below outputs/
    run_name: str  # template of the run folder below that
    description: str  # of the checkpoint, for the model card


SCORED_RUN_NAME = "{kind}/kd_{student}_{task}_{score}"
STAGES = {  # in order; the script of a stage is run_<stage>.py
    "finetuning": StageInfo("finetune", "ft_{task}", "an encoder fine-tuned on {task}: a dense teacher"),
    "pruning": StageInfo(
        "prune", "ft_{task}", "a teacher for {task} whose heads and neurons are sorted by expressiveness"
    ),
    "distillation": StageInfo(
        "distil", "{kind}/{model_type}_{student}_{task}", "a student for {task}, distilled from the dense teacher"
    ),
    "sparsification": StageInfo(
        "stark", SCORED_RUN_NAME, "a teacher for {task} whose heads and neurons are sorted by knowledgeableness"
    ),
    "rewinding": StageInfo(
        "rewind", f"{SCORED_RUN_NAME}{{variant}}", "a student for {task}, distilled from a sparse teacher"
    ),
}
CHECKPOINT = "ckpt"


def checkpoint_name(teacher_sparsity: int | None = None) -> str:
    """Folder name of a checkpoint: ckpt, or ckpt_30 for a student rewound at that teacher sparsity (percent)."""
    return CHECKPOINT if teacher_sparsity is None else f"{CHECKPOINT}_{teacher_sparsity}"


def sparsity_of(name: str) -> int | None:
    """The teacher sparsity (percent) in a checkpoint's name; None for ckpt and for other names."""
    match = re.fullmatch(rf"{CHECKPOINT}_(0|[1-9]\d?)", name)
    return int(match[1]) if match else None


def is_checkpoint(name: str) -> bool:
    """Whether this is a name that `checkpoint_name` builds; ckpt_0.bak and ckpt_0_copy are not."""
    return name == CHECKPOINT or sparsity_of(name) is not None


def script_name(stage: str) -> str:
    """File name of a stage's script."""
    return f"run_{stage}.py"


def output_dir(stage: str) -> str:
    """Default --output_dir of a stage."""
    return f"outputs/{STAGES[stage].folder}"


def run_folder(args: argparse.Namespace) -> Path:
    """The run folder of a stage with these flags, such as outputs/stark/parameter_pruned/kd_70_rte_0.5."""
    return Path(args.output_dir, _run_name(args, args.stage))


def default_paths(parser: argparse.ArgumentParser, args: argparse.Namespace, **stages: str) -> None:
    """Set model paths that were not given to checkpoints of earlier stages; exit with an error if one is missing.

    Args:
        stages: flag -> the stage whose checkpoint is the default.
    """
    for flag, stage in stages.items():
        if getattr(args, flag) is None:
            path = Path(output_dir(stage), _run_name(args, stage), CHECKPOINT)
            if not path.is_dir():
                advice = f"run {script_name(stage)} first, or give a path"
                parser.error(f"--{flag}: nothing at its default {path}; {advice}")
            setattr(args, flag, str(path))


def student_source(args: argparse.Namespace) -> str:
    """The stage whose checkpoint holds the student's initial weights, by default."""
    return "finetuning" if args.student_sparsity is None else "pruning"


def _run_name(args: argparse.Namespace, stage: str) -> str:
    """Folder name of a run of any stage, for the task, student and score of these flags."""
    schedule, spread = getattr(args, "teacher_schedule", None), getattr(args, "match_spread", None)
    fields = {"task": args.task_name, "model_type": args.model_type}
    fields["variant"] = "_".join(["_schedule", *map(str, schedule)]) if schedule else ""
    if spread is not None:
        fields["variant"] = f"_spread_{spread}"
    if "student_layer" in args and args.student_sparsity is None:
        choice = "" if args.layer_choice == "first" else "-" + args.layer_choice.replace(",", ".")
        fields |= {"kind": "layer_dropped", "student": f"{args.student_layer}{choice}"}
    elif "student_layer" in args:
        fields |= {"kind": "parameter_pruned", "student": args.student_sparsity}
    if "score" in args:
        fields["score"] = args.lam if args.score == "knowledgeable" else args.score
    return STAGES[stage].run_name.format(**fields)


def teacher_sparsities(args: argparse.Namespace, config: dict[str, Any]) -> list[int]:
    """The teacher sparsities (percent) that the flags name, each once and ascending; without one all of the teacher's.

    Args:
        config: content of the teacher's config.json.

    Raises:
        InputError: the teacher's checkpoint was not sorted by stage 4, or its map lacks one of the sparsities.
    """
    sparsity_map = config.get("sparsity_map")
    if not sparsity_map or not isinstance(sparsity_map, dict) or not all(key.isdigit() for key in sparsity_map):
        raise InputError(f"{args.teacher_model_path}: no sparsity_map in config.json, expected a teacher of stage 4")
    known = sorted(map(int, sparsity_map))
    named = {flag: getattr(args, flag) for flag in ("teacher_schedule", "teacher_sparsity", "halving")}
    if args.match_spread is not None:
        named["match_spread"] = [args.match_spread]
    for flag, sparsities in named.items():
        unknown = sorted(set(sparsities or ()) - set(known))
        if unknown:
            raise InputError(f"--{flag} {unknown[0]}: the teacher's checkpoint knows {', '.join(map(str, known))}")
    return sorted(set(args.teacher_schedule or args.teacher_sparsity or known))
