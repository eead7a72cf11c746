"""The cells of a sweep: the stages that a grid needs, their flags, and which of them depend on which."""

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
# states of a cell; elsewhere: another process is making it
WAITING, ELSEWHERE, RUNNING, DONE = "waiting", "elsewhere", "running", "done"
FAILED, REFUSED, LEFT_OUT = "failed", "refused", "left out"
ENDED = (DONE, FAILED, REFUSED, LEFT_OUT)


@dataclass
class Cell:
    """One stage for one point of the grid."""

    stage: str  # its folder below the outputs
    flags: list[str]
    folder: Path
    names: list[str]  # names of the checkpoints that it makes
    needs: list["Cell"] = field(default_factory=list)  # cells whose checkpoints it reads
    state: str = WAITING
    reason: str = ""  # for which it failed or was refused, printed behind its title
    job: Any = None  # submitit.Job while it runs
    was_retried: bool = False

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """Settings of its run; available once the checkpoints that it reads exist.

        Raises:
            InputError: one of its inputs is missing.
        """
        return settings(SCRIPTS[self.stage].parse_args(self.flags))

    @property
    def title(self) -> str:
        """Its folder, or its checkpoint if it makes one of several rewinds."""
        shares_folder = self.stage == "rewind" and len(self.names) == 1
        return str(self.folder / self.names[0] if shares_folder else self.folder)

    @property
    def output(self) -> Path:
        """Path of the checkpoint that later stages read."""
        return self.folder / CHECKPOINT

    def is_ready(self) -> bool:
        """Whether it can start: it waits for no other cell, and none of its students for others to reach a rung."""
        if self.state != WAITING or any(need.state != DONE for need in self.needs):
            return False
        folder = RunFolder(self.folder)
        unfinished = [name for name in self.names if not folder.result(name)]
        histories = [folder.history(name, self.settings) for name in unfinished]
        update = min((history[-1]["update"] if history else 0 for history in histories), default=0)
        others = map(checkpoint_name, self.settings.get("halving") or ())
        return not update or all(folder.has_reached(name, update, self.settings) for name in others)

    def is_elsewhere(self) -> bool:
        """Whether another process is writing one of its checkpoints."""
        return any(RunFolder(self.folder).is_locked(name) for name in self.names)


def grid(args: argparse.Namespace) -> list[Cell]:
    """All cells of the grid, each after those that it needs."""
    cells = []
    # the scores that teachers are sorted by; lam is a parameter of the knowledgeable one alone
    methods = [{"score": SCORES[0], "lam": lam} for lam in args.lam if SCORES[0] in args.score]
    methods += [{"score": score} for score in args.score if score != SCORES[0]]
    unlabelled, score_flags = unlabelled_flags(args)
    distillation_flags = [*args.train_flags, *unlabelled]
    for seed, task in itertools.product(args.seed, args.task_name):

        def cell(stage, point, flags, needs, names=(CHECKPOINT,), seed=seed, task=task):
            """Add the cell of a stage; `point` holds the flags that decide its folder."""
            name = STAGES[stage].folder
            common = {"task_name": task, "seed": seed, "data_dir": args.data_dir}
            common["output_dir"] = Path(args.output_dir, f"seed_{seed}", name)
            folder = run_folder(argparse.Namespace(**common, **point, stage=stage, model_type="kd"))
            flags = [*as_flags(common), *args.flags, *as_flags(point), *map(str, flags)]
            cells.append(Cell(name, flags, folder, list(names), needs))
            return cells[-1]

        # stages 1 and 2, once for each task and seed
        teacher = cell("finetuning", {}, ["--model_path", args.model_path, *args.train_flags], [])
        teacher_flags = ["--teacher_model_path", teacher.output]
        pruned = None
        if args.student_sparsity:
            pruned = cell("pruning", {}, ["--model_path", teacher.output], [teacher])

        # stage 3 for each student
        for student in students(args):
            source = teacher if student["student_sparsity"] is None else pruned
            student_flags = ["--student_model_path", source.output]
            distil_flags = [*student_flags, *teacher_flags, *distillation_flags]
            trial = cell("distillation", student, distil_flags, [teacher, source])

            # stages 4 and 5 for each student and score; with --spread, a rewind for each teacher sparsity
            for method in methods:
                point = {**student, **method}
                trial_flags = [*teacher_flags, "--student_model_path", trial.output, *score_flags]
                sparse_teacher = cell("sparsification", point, trial_flags, [teacher, trial])
                rewind_flags = [*student_flags, *distillation_flags, "--teacher_model_path", sparse_teacher.output]
                if args.teacher_schedule:  # one more student, which learns from all of these
                    schedule = {**point, "teacher_schedule": args.teacher_schedule}
                    cell("rewinding", schedule, rewind_flags, [source, sparse_teacher])
                if args.match_spread is not None:
                    dense = [*rewind_flags, "--teacher_sparsity", 0]
                    spread = {**point, "match_spread": args.match_spread}
                    cell("rewinding", spread, dense, [source, sparse_teacher], [checkpoint_name(0)])
                rewind_flags += ["--halving", *args.teacher_sparsity] if args.halving else []
                rewind_flags += ["--halving_rungs", *args.halving_rungs] if args.halving_rungs else []
                parts = [[sparsity] for sparsity in args.teacher_sparsity] if args.spread else [args.teacher_sparsity]
                for part in parts:
                    names = [checkpoint_name(sparsity) for sparsity in part]
                    flags = [*rewind_flags, "--teacher_sparsity", *part]
                    cell("rewinding", point, flags, [source, sparse_teacher], names)
    return cells


def unlabelled_flags(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Words of the command line about rows without labels: for the stages that distil, and for the one that scores."""
    files = ["--unlabelled", *args.unlabelled] if args.unlabelled else []
    numbers = {name: getattr(args, name) for name in ("unlabelled_weight", "unlabelled_per_epoch")}
    scoring = files if args.score_split == "unlabelled" else []
    return [*files, *as_flags(numbers)], ["--score_split", args.score_split, *scoring]


def leave_out_paused(cells: list[Cell]) -> None:
    """Leave out cells whose students have paused at a rung that others will not reach, as those cells have failed."""
    if any(cell.state in (RUNNING, ELSEWHERE) or cell.is_ready() for cell in cells):
        return
    for cell in cells:
        if cell.state == WAITING and all(need.state == DONE for need in cell.needs):
            cell.state = LEFT_OUT


def students(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The flags that name each student, layer-dropped ones first."""
    layer_dropped = [
        {"student_layer": layers, "layer_choice": choice, "student_sparsity": None}
        for layers, choice in itertools.product(args.student_layer, args.layer_choice)
    ]
    parameter_pruned = [{"student_layer": None, "student_sparsity": sparsity} for sparsity in args.student_sparsity]
    return layer_dropped + parameter_pruned


def as_flags(values: dict[str, Any]) -> list[str]:
    """Words of the command line for these values; None leaves a flag out."""
    words = []
    for name, value in values.items():
        if value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words
