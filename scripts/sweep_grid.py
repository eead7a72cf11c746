"""The cells of a sweep: which stages a grid asks for, with which flags, and which of them need which."""

import argparse
import functools
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from utils.arguments import SCORES
from utils.folder import RunFolder
from utils.paths import CHECKPOINT, checkpoint_name, student_folder
from utils.settings import settings

SCRIPTS = {
    "finetune": run_finetuning,
    "prune": run_pruning,
    "distil": run_distillation,
    "stark": run_sparsification,
    "rewind": run_rewinding,
}
# of a cell; elsewhere: another process is making it
WAITING, ELSEWHERE, RUNNING, DONE = "waiting", "elsewhere", "running", "done"
FAILED, REFUSED, LEFT_OUT = "failed", "refused", "left out"
ENDED = (DONE, FAILED, REFUSED, LEFT_OUT)


@dataclass
class Cell:
    """One stage for one point of the grid."""

    stage: str
    task: str
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
    students = [{"student_layer": size} for size in args.student_layer]
    students += [{"student_sparsity": size} for size in args.student_sparsity]
    methods = [{"lam": lam} for lam in args.lam if SCORES[0] in args.score]
    methods += [{"score": score} for score in args.score if score != SCORES[0]]
    for seed, task in itertools.product(args.seed, args.task_name):

        def cell(stage, where, flags, needs, names=(CHECKPOINT,), seed=seed, task=task):
            folder = Path(args.output_dir, f"seed_{seed}", stage)
            common = ["--task_name", task, "--seed", seed, "--data_dir", args.data_dir, "--output_dir", folder]
            flags = [str(flag) for flag in [*common, *args.flags, *flags]]
            cells.append(Cell(stage, task, flags, folder / where, list(names), needs))
            return cells[-1]

        teacher = cell("finetune", f"ft_{task}", ["--model_path", args.model_path, *args.train_flags], [])
        of_teacher = ["--teacher_model_path", teacher.output]
        pruned = None
        if args.student_sparsity:
            pruned = cell("prune", f"ft_{task}", ["--model_path", teacher.output], [teacher])
        for student in students:
            source = pruned if "student_sparsity" in student else teacher
            start = ["--student_model_path", source.output]
            trial_flags = [*as_flags(student), *start, *of_teacher, *args.train_flags]
            trial = cell("distil", place(task, student), trial_flags, [teacher, source])
            for method in methods:
                at, where = as_flags({**student, **method}), place(task, student, method)
                stark_flags = [*at, *of_teacher, "--student_model_path", trial.output]
                stark = cell("stark", where, stark_flags, [teacher, trial])
                sparse = ["--teacher_model_path", stark.output, "--teacher_sparsity"]
                for part in [[s] for s in args.teacher_sparsity] if args.spread else [args.teacher_sparsity]:
                    names = [checkpoint_name(s) for s in part]
                    cell("rewind", where, [*at, *start, *args.train_flags, *sparse, *part], [source, stark], names)
    return cells


def as_flags(point: dict[str, Any]) -> list[str]:
    """A part of a point of the grid on the command line."""
    return [word for name, value in point.items() for word in (f"--{name}", str(value))]


def place(task: str, student: dict[str, int], method: dict[str, Any] | None = None) -> str:
    """A point's place in the output tree."""
    point = {"student_layer": None, "student_sparsity": None, "layer_choice": "first", "score": SCORES[0]}
    point = argparse.Namespace(**{**point, **student, **(method or {})}, task_name=task)
    return student_folder(point, "kd", by_score=method is not None)
