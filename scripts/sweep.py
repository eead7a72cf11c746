"""Run all stages for a grid of tasks, students, lams and seeds, several at once.

    python scripts/sweep.py --task_name rte mrpc --student_layer 4 --student_sparsity 70 --lam 0 0.5 1 --seed 1 2 3
    python scripts/sweep.py ... --executor slurm --jobs 64 --partition gpu --timeout_min 120

A cell is one stage for one point of the grid; it starts when the cells that it needs are done, and the teacher of a
task and seed is shared by all that need it. Outputs are written to <output_dir>/seed_<seed>/: the same command again
runs only cells that are missing there, and resumes training that was stopped. A failed cell is reported with its log,
one made with other arguments is refused, and cells that need either are left out; the others go on. Exit status 2 if a
cell was refused, 1 if one failed, 130 or 143 if stopped.
"""

import argparse
import contextlib
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models.pruning import SPARSITIES
from scripts.sweep_grid import (
    DONE,
    ELSEWHERE,
    ENDED,
    FAILED,
    LEFT_OUT,
    REFUSED,
    RUNNING,
    SCRIPTS,
    WAITING,
    Cell,
    grid,
    leave_out_paused,
)
from scripts.sweep_jobs import Jobs
from utils.arguments import SCORES, Parser
from utils.entry import entry_point
from utils.errors import InputError
from utils.flags import layer_choice, number
from utils.folder import RunFolder, State
from utils.tables import diverged_of, table
from utils.tasks import find_task, task_of
from utils.unlabelled import existing_file
from utils.unlabelled_flags import SCORE_SPLITS, add_unlabelled_flags

SPARSITY = {"type": number(int, 0, 99), "choices": SPARSITIES, "metavar": "PERCENT"}  # of what stages 2 and 4 sort
SWEEP_FLAGS = {"--task_name", "--seed", "--data_dir", "--output_dir"}  # flags of stages that the sweep itself sets
LOCKED_OUT = "is writing here"  # part of the error of a stage whose folder another process has locked
GRACE = 60  # seconds for stopped jobs to save their state


def parse_args(argv=None):
    parser = Parser(__doc__)
    add = parser.add_argument_group("grid").add_argument
    add("--task_name", nargs="+", default=["rte"], help="GLUE's or own tasks (default rte)")
    add("--student_layer", nargs="*", type=number(int, 1), default=[], help="layer-dropped (default 4 if none named)")
    add("--layer_choice", nargs="+", type=layer_choice, default=["first"], help="what these keep (default first)")
    add("--student_sparsity", nargs="*", **SPARSITY, default=[], help="parameter-pruned students (default none)")
    text = "shares of expressiveness in the knowledgeable score (default 0.5)"
    add("--lam", nargs="+", type=number(float, 0, 1), default=[0.5], help=text)
    text = "what teachers are sorted by; each lam is one of knowledgeable (default knowledgeable)"
    add("--score", nargs="+", choices=SCORES, default=[SCORES[0]], help=text)
    text = "seeds, each with a folder of its own (default 776)"
    add("--seed", nargs="+", type=number(int, 0, 2**32 - 1), default=[776], help=text)
    text = "percent of units cut from teachers (default 0 10 ... 90)"
    add("--teacher_sparsity", nargs="+", **SPARSITY, default=list(SPARSITIES), help=text)
    text = "one more student of each, that learns from teachers at these sparsities in turn (default none)"
    add("--teacher_schedule", nargs="+", **SPARSITY, help=text)
    text = "one more student of each, of the dense teacher with the spread of the one cut at this (default none)"
    add("--match_spread", **SPARSITY, help=text)
    add = parser.add_argument_group("stages").add_argument
    add("--model_path", default="bert-base-uncased", help="where teachers start (default bert-base-uncased)")
    add("--data_dir", default="datasets", help="(default datasets)")
    add("--output_dir", default="outputs", help="gets a folder for each seed (default outputs)")
    add(
        "--flags",
        type=stage_flags,
        default=[],
        help="for all stages, as one word: --flags='--use_bf16'; --max_eval_examples and --selection_split belong "
        "here, as no stage reads what other rows chose; --flags=--overwrite makes anew what was made with other "
        "arguments (default none)",
    )
    text = "for the stages that train: --train_flags='--num_train_epochs 3' (default none)"
    add("--train_flags", type=stage_flags, default=[], help=text)
    add_unlabelled_flags(parser)
    add("--score_split", choices=SCORE_SPLITS, default="dev", help="rows that score units in stage 4 (default dev)")
    add("--spread", action="store_true", help="a cell for each teacher sparsity (default one for all of a student)")
    text = "drop the worse half of a student's rewinds at each rung, as run_rewinding.py --halving does (default off)"
    add("--halving", action="store_true", help=text)
    add("--halving_rungs", nargs="+", help="shares of the updates (default those of run_rewinding.py)")
    add_machine_flags(parser)
    args = parser.parse_args(argv)
    for task in [find_task(name, args.data_dir) for name in args.task_name]:
        for file in args.unlabelled or ():
            existing_file(file, task)
    # without any student, the layer-dropped one of four layers
    if not args.student_layer and not args.student_sparsity:
        args.student_layer = [4]
    if args.layer_choice != ["first"] and not args.student_layer:
        parser.error("--layer_choice: for layer-dropped students, found --student_sparsity alone")
    return args


def add_machine_flags(parser: Parser) -> None:
    """Flags that say where jobs run, and how many at once."""
    add = parser.add_argument_group("machines").add_argument
    add("--executor", choices=("local", "slurm"), default="local", help="(default local)")
    add("--jobs", type=number(int, 1), help="at once (default as many as there is room for; on Slurm 1)")
    add("--partition", help="of Slurm (default the cluster's)")
    add("--timeout_min", type=number(int, 1), default=24 * 60, help="minutes a cell may take (default a day)")
    add("--gpus_per_job", type=number(int, 0), default=None, help="(default 1; 0 on this machine if it has none)")
    add(
        "--cpus_per_job",
        type=number(int, 1),
        default=None,
        help="threads, unless OMP_NUM_THREADS is set, and Slurm's --cpus-per-task "
        "(default this machine's by --jobs, or what the cluster gives)",
    )
    add("--poll_seconds", type=number(float, 0.1), default=2.0, help="between looks at the jobs (default 2)")


def stage_flags(text: str) -> list[str]:
    """An argparse type: flags of stages, in one word."""
    flags = text.split()
    reserved = SWEEP_FLAGS.intersection(flag.split("=")[0] for flag in flags)
    if reserved:
        raise argparse.ArgumentTypeError(f"found {min(reserved)}, which is a flag of the sweep itself, or set by it")
    return flags


def check_flags(cells: list[Cell]) -> None:
    """Parse the flags of every cell with the parser of its stage, before anything is submitted.

    Raises:
        SystemExit: status 2 and one line, for a flag that a stage does not take.
    """
    for cell in cells:
        with contextlib.suppress(InputError):  # such as missing data: this cell will fail, and the others go on
            SCRIPTS[cell.stage].parse_args(cell.flags)


def update(cell: Cell) -> None:
    """Set the state of a cell from its job, if it has one, else from its folder."""
    if cell.state in ENDED:
        return
    try:
        if cell.job is not None:
            _update_from_job(cell)
        elif any(need.state in ENDED and need.state != DONE for need in cell.needs):
            cell.state = LEFT_OUT
        elif all(need.state == DONE for need in cell.needs):
            _update_from_folder(cell)
    except InputError as error:
        cell.state = FAILED
        cell.reason = f": {error}"


def _update_from_job(cell: Cell) -> None:
    """When the job has ended, set the state from the folder; an error of the job itself is only noted."""
    job = cell.job
    if not job.done():
        return
    cell.job = None
    _update_from_folder(cell)
    if cell.state == WAITING:  # the outputs are missing or incomplete
        errors = job.paths.stderr
        if cell.settings.get("halving") and not (job.exception() or job.result()):
            return  # its students have paused at a rung
        if not cell.was_retried and errors.is_file() and LOCKED_OUT in errors.read_text(errors="replace"):
            cell.was_retried = True  # the process that held the lock has been stopped since
        else:
            cell.state = FAILED
            cell.reason = f", see {errors}"
    elif cell.state == DONE and (job.exception() or job.result()):
        cell.reason = f": finished, but its job left with an error, see {job.paths.stderr}"


def _update_from_folder(cell: Cell) -> None:
    """Set the state from the checkpoints in the cell's folder."""
    if cell.is_elsewhere():
        cell.state = ELSEWHERE
        return

    # done if all checkpoints and the files derived from them are there; failed if the training of one diverged
    folder = RunFolder(cell.folder)
    states = {folder.state(name, cell.settings) for name in cell.names}
    is_made = states <= {State.FINISHED, State.DIVERGED}
    submission = task_of(cell.settings).submission_name if cell.settings.get("do_test", False) else None
    if is_made and folder.is_complete(cell.names, submission):
        diverged = diverged_of({name: folder.result(name) for name in cell.names})
        cell.state = FAILED if diverged else DONE
        cell.reason = f": {diverged}" if diverged else ""
        return

    # refused if anything in the folder was made otherwise, unless it may be overwritten
    conflict = folder.conflict(cell.settings)
    if conflict and not cell.settings["overwrite"]:
        cell.state = REFUSED
        cell.reason = f": holds {conflict}; move it away, or --flags=--overwrite"
    else:
        cell.state = WAITING


def run(cells: list[Cell], jobs: Jobs, poll_seconds: float) -> None:
    """Submit cells as jobs end and the cells that they need are done, until all have ended."""
    shown = ""
    gpus_of: dict[int, str | None] = {}  # index of a running cell -> its GPUs
    while True:
        # jobs that have ended free their GPUs
        for index, cell in enumerate(cells):
            update(cell)
            if cell.state != RUNNING and index in gpus_of:
                jobs.free.append(gpus_of.pop(index))

        # which cells that can start now take
        for index, cell in enumerate(cells):
            if jobs.free and cell.is_ready():
                gpus_of[index] = jobs.free.pop(0)
                command = [sys.executable, SCRIPTS[cell.stage].__file__, *cell.flags]
                cell.job = jobs.submit(command, gpus_of[index])
                cell.state = RUNNING

        leave_out_paused(cells)
        shown = show(cells, shown)
        if all(cell.state in ENDED for cell in cells):
            return
        time.sleep(poll_seconds)


def stop(cells: list[Cell], jobs: Jobs) -> None:
    """Stop all jobs, and wait until they have saved their state; another Ctrl-C exits at once."""
    running = [cell for cell in cells if cell.state == RUNNING]
    with contextlib.suppress(KeyboardInterrupt):
        for cell in running:
            jobs.stop(cell.job)
        end = time.monotonic() + GRACE
        while any(cell.is_elsewhere() for cell in running) and time.monotonic() < end:
            time.sleep(0.1)


def show(cells: list[Cell], shown: str) -> str:
    """Print the number of cells by stage and state, unless it equals `shown`; the text that is shown now.

    A terminal shows one table, updated in place.
    """
    # a row for each stage, then a line for each running cell
    states = (DONE, RUNNING, ELSEWHERE, WAITING, FAILED, REFUSED, LEFT_OUT)
    rows = []
    for stage in SCRIPTS:
        counts = Counter(cell.state for cell in cells if cell.stage == stage)
        rows.append((stage, *(counts[state] for state in states)))
    lines = [f"running: {cell.title}" for cell in cells if cell.state == RUNNING]
    text = "\n".join([table(("stage", *states), rows), *lines])

    if text != shown:
        if shown and sys.stdout.isatty():
            print(f"\033[{len(shown.splitlines())}A\033[J", end="")
        print(text, flush=True)
    return text


def interrupt(number: int, frame: Any) -> None:
    """Signal handler that raises KeyboardInterrupt with the number of the signal."""
    raise KeyboardInterrupt(number)


@entry_point()
def main(argv=None):
    args = parse_args(argv)
    cells = grid(args)
    check_flags(cells)
    jobs = Jobs(args, at_once=sum(cell.stage == "rewind" for cell in cells))

    # run all cells; a signal stops their jobs, too
    handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        run(cells, jobs, args.poll_seconds)
    except KeyboardInterrupt as stopped:
        stop(cells, jobs)
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(128 + stopped.args[0])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    # report cells that are not done, and why
    for cell in cells:
        if cell.reason:
            label = "note" if cell.state == DONE else cell.state
            print(f"{label}: {cell.title}{cell.reason}", file=sys.stderr)
    if any(cell.state != DONE for cell in cells):
        sys.exit(2 if any(cell.state == REFUSED for cell in cells) else 1)


if __name__ == "__main__":
    main()
