"""Runs a grid of tasks, students, lams and seeds, each stage as soon as what it needs is there.

    python scripts/sweep.py --task_name rte mrpc --student_layer 4 --student_sparsity 70 --lam 0 0.5 1 --seed 1 2 3
    python scripts/sweep.py ... --executor slurm --jobs 64 --partition gpu --timeout_min 120

A cell is one stage for one point of the grid; the teacher of a task and seed is shared by all that need it. What is
done is what lies in <output_dir>/seed_<seed>/: started again, the sweep does only what is missing, and training that
was stopped goes on. A failed cell is reported with its log, and what needs it is left out; the others go on.
"""

import argparse
import itertools
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import submitit
import torch
from utils.run import RESULT, differences, entry_point, settings, table

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from utils.arguments import SCORES, Parser
from utils.errors import InputError
from utils.files import is_locked, read_json
from utils.flags import number, sparsity
from utils.glue import TASKS

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "finetune": run_finetuning,
    "prune": run_pruning,
    "distil": run_distillation,
    "stark": run_sparsification,
    "rewind": run_rewinding,
}
# by task, where the defaults of the scripts, which are RTE's, do not fit: batch size, epochs
SIZES = {"sst2": (32, 5), "qnli": (32, 5), "qqp": (32, 3), "mnli": (32, 3), "mnlimm": (32, 3)}
WAITING, ELSEWHERE, RUNNING, DONE, FAILED, LEFT_OUT = "waiting", "elsewhere", "running", "done", "failed", "left out"


@dataclass
class Cell:
    """One stage for one point of the grid."""

    stage: str
    flags: list[str]
    folder: Path
    names: list[str]  # of the checkpoints it makes
    needs: list["Cell"] = field(default_factory=list)
    state: str = WAITING
    job: Any = None

    def is_done(self) -> bool:
        """Whether all it makes is on the disk."""
        results = [
            self.folder / name / RESULT if self.stage == "rewind" else self.folder / RESULT for name in self.names
        ]
        return all(path.is_file() for path in results)

    def is_elsewhere(self) -> bool:
        """Whether another process is making it."""
        return any(is_locked(self.folder / f".{name}.lock") for name in self.names)

    def changes(self) -> list[str]:
        """In which arguments the one on the disk differs; none if there is none."""
        before = read_json(self.folder / "args.json")
        return differences(before, settings(SCRIPTS[self.stage].parse_args(self.flags))) if before else []


def parse_args(argv=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument_group("grid").add_argument
    add("--task_name", nargs="+", choices=tuple(TASKS), default=["rte"], help="(default rte)")
    add("--student_layer", nargs="*", type=number(int, 1), default=[], help="layer-dropped students (default none)")
    add("--student_sparsity", nargs="*", type=sparsity, default=[], help="parameter-pruned students (default none)")
    add("--lam", nargs="+", type=number(float, 0, 1), default=[0.5], help="(default 0.5)")
    add(
        "--score",
        nargs="+",
        choices=SCORES,
        default=[SCORES[0]],
        help="what teachers are sorted by; each lam is one of knowledgeable (default knowledgeable)",
    )
    add("--seed", nargs="+", type=number(int, 0, 2**32 - 1), default=[776], help="(default 776)")
    add("--teacher_sparsity", nargs="+", type=sparsity, default=list(range(0, 100, 10)), help="(default 0 10 ... 90)")
    add = parser.add_argument_group("stages").add_argument
    add("--model_path", default="bert-base-uncased", help="where teachers start (default bert-base-uncased)")
    add("--data_dir", default="datasets", help="(default datasets)")
    add("--output_dir", default="outputs", help="gets a folder for each seed (default outputs)")
    add("--flags", default="", help="for all stages, as one word: --flags='--use_bf16' (default none)")
    add("--train_flags", default="", help="for the stages that train: --train_flags='--num_train_epochs 3'")
    add("--spread", action="store_true", help="a cell for each teacher sparsity (default one for all of a student)")
    add = parser.add_argument_group("machines").add_argument
    add("--executor", choices=("local", "slurm"), default="local", help="(default local)")
    add("--jobs", type=number(int, 1), default=1, help="at once; local ones share this machine's GPUs (default 1)")
    add("--partition", help="of Slurm (default the cluster's)")
    add("--timeout_min", type=number(int, 1), default=24 * 60, help="minutes a cell may take (default a day)")
    add("--gpus_per_job", type=number(int, 0), default=None, help="(default 1, or 0 where there is none)")
    add("--cpus_per_job", type=number(int, 1), default=None, help="(default this machine's by --jobs)")
    add("--poll_seconds", type=number(float, 0.1), default=2.0, help="between looks at the jobs (default 2)")
    add("--debug", action="store_true", help="show the traceback of an error (default: one line)")
    args = parser.parse_args(argv)
    if not args.student_layer and not args.student_sparsity:
        args.student_layer = [4]
    return args


def grid(args: argparse.Namespace) -> list[Cell]:
    """All cells, every one after those it needs."""
    cells, lams = [], args.lam if SCORES[0] in args.score else []
    methods = [["--lam", lam] for lam in lams] + [["--score", score] for score in args.score if score != SCORES[0]]
    for seed, task in itertools.product(args.seed, args.task_name):
        batch_size, epochs = SIZES.get(task, (16, 10))
        sizes = ["--per_device_train_batch_size", batch_size, "--num_train_epochs", epochs]
        training = [*sizes, *args.train_flags.split()]  # the later one of two same flags counts

        def cell(stage, place, flags, needs, names=("ckpt",), seed=seed, task=task):
            folder = Path(args.output_dir, f"seed_{seed}", stage)
            common = ["--task_name", task, "--seed", seed, "--data_dir", args.data_dir, "--output_dir", folder]
            flags = [str(flag) for flag in [*common, *args.flags.split(), *flags]]
            cells.append(Cell(stage, flags, folder / place, list(names), needs))
            return cells[-1]

        teacher = cell("finetune", f"ft_{task}", ["--model_path", args.model_path, *training], [])
        teacher_path = teacher.folder / "ckpt"
        pruned = None
        if args.student_sparsity:
            pruned = cell("prune", f"ft_{task}", ["--model_path", teacher_path], [teacher])
        for kind, size in [("layer", n) for n in args.student_layer] + [("sparsity", n) for n in args.student_sparsity]:
            source = pruned if kind == "sparsity" else teacher
            student, start = [f"--student_{kind}", size], ["--student_model_path", source.folder / "ckpt"]
            name = f"{'layer_dropped' if kind == 'layer' else 'parameter_pruned'}/kd_{size}_{task}"
            of_teacher = ["--teacher_model_path", teacher_path]
            trial = cell("distil", name, [*student, *start, *of_teacher, *training], [teacher, source])
            for method in methods:
                at, of_trial = [*student, *method], ["--student_model_path", trial.folder / "ckpt"]
                place = f"{name}_{method[1]}"
                stark = cell("stark", place, [*at, *of_teacher, *of_trial], [teacher, trial])
                sparse = ["--teacher_model_path", stark.folder / "ckpt", "--teacher_sparsity"]
                for part in [[s] for s in args.teacher_sparsity] if args.spread else [args.teacher_sparsity]:
                    names = [f"ckpt_{s}" for s in part]
                    cell("rewind", place, [*at, *start, *training, *sparse, *part], [source, stark], names)
    return cells


def executors(args: argparse.Namespace) -> list[submitit.AutoExecutor]:
    """One for each job that may run at once: local ones differ in the GPU they get."""
    gpus = torch.cuda.device_count()
    wanted = args.gpus_per_job if args.gpus_per_job is not None else min(1, gpus) if args.executor == "local" else 1
    cpus = args.cpus_per_job or max(1, (os.cpu_count() or 1) // (args.jobs if args.executor == "local" else 1))
    os.environ["OMP_NUM_THREADS"] = str(cpus)
    made = []
    for index in range(args.jobs):
        executor = submitit.AutoExecutor(folder=Path(args.output_dir, "jobs"), cluster=args.executor)
        executor.update_parameters(name="stark", timeout_min=args.timeout_min, gpus_per_node=wanted)
        if args.executor == "slurm":
            executor.update_parameters(cpus_per_task=cpus)
            if args.partition:
                executor.update_parameters(slurm_partition=args.partition)
        elif wanted:
            executor.update_parameters(visible_gpus=[(index * wanted + n) % gpus for n in range(wanted)])
        made.append(executor)
    return made


def update(cell: Cell) -> None:
    """Look at the cell's job, or at the disk."""
    if cell.state in (DONE, FAILED, LEFT_OUT):
        return
    if cell.job is not None:
        _look_at_job(cell)
    elif any(need.state in (FAILED, LEFT_OUT) for need in cell.needs):
        cell.state = LEFT_OUT
    elif all(need.state == DONE for need in cell.needs):
        _look_at_disk(cell)


def _look_at_job(cell: Cell) -> None:
    if not cell.job.done():
        return
    if cell.job.exception() is None and cell.is_done():
        cell.state = DONE
    elif cell.is_elsewhere():  # a job of an earlier sweep had begun in the meantime
        cell.job, cell.state = None, ELSEWHERE
    else:
        cell.state = FAILED


def _look_at_disk(cell: Cell) -> None:
    if cell.is_elsewhere():
        cell.state = ELSEWHERE
    elif cell.is_done():
        if changes := cell.changes():
            raise InputError(f"{cell.folder}: made with other arguments: {'; '.join(changes)}; move it away")
        cell.state = DONE
    else:
        cell.state = WAITING


def run(cells: list[Cell], free: list[submitit.AutoExecutor], poll_seconds: float) -> None:
    """Submit cells as executors get free and what they need is done, until nothing is left to do."""
    shown, busy = "", {}
    while True:
        for index, cell in enumerate(cells):
            update(cell)
            if cell.state != RUNNING and index in busy:
                free.append(busy.pop(index))
        for index, cell in enumerate(cells):
            if free and cell.state == WAITING and all(need.state == DONE for need in cell.needs):
                busy[index] = free.pop(0)
                command = [sys.executable, str(ROOT / Path(SCRIPTS[cell.stage].__file__).name), *cell.flags]
                cell.job, cell.state = busy[index].submit(subprocess.run, command, check=True), RUNNING
        shown = show(cells, shown)
        if all(cell.state in (DONE, FAILED, LEFT_OUT) for cell in cells):
            return
        time.sleep(poll_seconds)


def show(cells: list[Cell], shown: str) -> str:
    """Print how many cells of each stage are where, if that has changed; a terminal shows one table, in place."""
    states = (DONE, RUNNING, ELSEWHERE, WAITING, FAILED, LEFT_OUT)
    rows = [(stage, *(sum(c.state == s for c in cells if c.stage == stage) for s in states)) for stage in SCRIPTS]
    now = "\n".join([table(("stage", *states), rows), *(f"running: {c.folder}" for c in cells if c.state == RUNNING)])
    if now != shown:
        if shown and sys.stdout.isatty():
            print(f"\033[{len(shown.splitlines())}A\033[J", end="")
        print(now, flush=True)
    return now


@entry_point()
def main(argv=None):
    args = parse_args(argv)
    cells = grid(args)
    try:
        run(cells, executors(args), args.poll_seconds)
    except KeyboardInterrupt:
        for cell in cells:
            if cell.state == RUNNING:
                cell.job.cancel()
        sys.exit("stopped; the same command goes on")
    for cell in cells:
        if cell.state == FAILED:
            print(f"failed: {cell.folder}, see {cell.job.paths.stderr}", file=sys.stderr)
    if any(cell.state != DONE for cell in cells):
        sys.exit(1)


if __name__ == "__main__":
    main()
