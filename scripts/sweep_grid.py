"""The cells of a sweep: which stages a grid asks for, with which flags, and which of them need which."""

import argparse
import functools
import importlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.arguments import SCORES
from utils.folder import RunFolder
from utils.paths import CHECKPOINT, STAGES, checkpoint_name, run_folder
from utils.settings import settings

SCRIPTS = {stage.folder: importlib.import_module(f"run_{name}") for name, stage in STAGES.items()}
# of a cell; elsewhere: another process is making it
WAITING, ELSEWHERE, RUNNING, DONE = "waiting", "elsewhere", "running", "done"
FAILED, REFUSED, LEFT_OUT = "failed", "refused", "left out"
ENDED = (DONE, FAILED, REFUSED, LEFT_OUT)


@dataclass
class Cell:
    """One stage for one point of the grid."""

    stage: str  # its folder below the outputs
    flags: list[str]
    folder: Path
    names: list[str]  # of the checkpoints it makes
    needs: list["Cell"] = field(default_factory=list)
    state: str = WAITING
    why: str = ""  # it is failed or refused
    job: Any = None
    tried_again: bool = False

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """With what it is made; to be asked for when what it needs is there.

        Raises:
            InputError: something that it reads is missing.
        """
        return settings(SCRIPTS[self.stage].parse_args(self.flags))

    @property
    def title(self) -> str:
        """Its folder, or its checkpoint if others share the folder."""
        return str(self.folder if len(self.names) > 1 or self.stage != "rewind" else self.folder / self.names[0])

    @property
    def output(self) -> Path:
        """What the stages after it read."""
        return self.folder / CHECKPOINT

    def is_elsewhere(self) -> bool:
        """Whether another process is making it."""
        return any(RunFolder(self.folder).is_locked(name) for name in self.names)


def grid(args: argparse.Namespace) -> list[Cell]:
    """All cells, every one after those it needs."""
    cells = []
    methods = [{"score": SCORES[0], "lam": lam} for lam in args.lam if SCORES[0] in args.score]
    methods += [{"score": score} for score in args.score if score != SCORES[0]]
    for seed, task in itertools.product(args.seed, args.task_name):

        def cell(stage, point, flags, needs, names=(CHECKPOINT,), seed=seed, task=task):
            name = STAGES[stage].folder
            common = {"task_name": task, "seed": seed, "data_dir": args.data_dir}
            common["output_dir"] = Path(args.output_dir, f"seed_{seed}", name)
            folder = run_folder(argparse.Namespace(**common, **point, stage=stage, model_type="kd"))
            flags = [*as_flags(common), *args.flags, *as_flags(point), *map(str, flags)]
            cells.append(Cell(name, flags, folder, list(names), needs))
            return cells[-1]

        teacher = cell("finetuning", {}, ["--model_path", args.model_path, *args.train_flags], [])
        of_teacher = ["--teacher_model_path", teacher.output]
        pruned = None
        if args.student_sparsity:
            pruned = cell("pruning", {}, ["--model_path", teacher.output], [teacher])
        for student in students(args):
            source = teacher if student["student_sparsity"] is None else pruned
            start = ["--student_model_path", source.output]
            trial = cell("distillation", student, [*start, *of_teacher, *args.train_flags], [teacher, source])
            for method in methods:
                point = {**student, **method}
                trial_flags = [*of_teacher, "--student_model_path", trial.output]
                stark = cell("sparsification", point, trial_flags, [teacher, trial])
                sparse = ["--teacher_model_path", stark.output, "--teacher_sparsity"]
                for part in [[s] for s in args.teacher_sparsity] if args.spread else [args.teacher_sparsity]:
                    names = [checkpoint_name(s) for s in part]
                    cell("rewinding", point, [*start, *args.train_flags, *sparse, *part], [source, stark], names)
    return cells


def students(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The flags of each student."""
    dropped = itertools.product(args.student_layer, args.layer_choice)
    found = [{"student_layer": size, "layer_choice": choice, "student_sparsity": None} for size, choice in dropped]
    return found + [{"student_layer": None, "student_sparsity": size} for size in args.student_sparsity]


def as_flags(values: dict[str, Any]) -> list[str]:
    """Flags on the command line, but those that are None."""
    return [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]
