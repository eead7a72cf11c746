"""Replay successive halving on full sweeps: how often it keeps the best student, what it costs if not, what it spares.

    python scripts/replay_halving.py outputs
    python scripts/replay_halving.py outputs --rungs 0.1 0.3 --rungs 0.125 0.25 0.5

Reads the histories of finished rewinds at several teacher sparsities, as run_rewinding.py leaves them without
--halving. For each task, rungs and way to compare students at a rung it prints in how many sweeps the student that is
left ties with the best one, how many points it is behind on average, beside a student drawn at random and that of the
dense teacher, and the share of the updates that was made.
"""

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.report_data import checkpoints
from utils.arguments import Parser
from utils.entry import entry_point
from utils.errors import InputError
from utils.flags import number
from utils.folder import RunFolder
from utils.halving import RUNGS, dropped_at, rung_updates, value_at
from utils.paths import sparsity_of
from utils.tables import table

History = list[dict]
WINDOW = 3  # evaluations of the mean


class Sweep(NamedTuple):
    """One full sweep: the students of one teacher at several sparsities."""

    task: str
    metric: str  # that selects weights and sparsity
    total: int  # updates of the schedule, which patience may have ended earlier
    histories: dict[int, History]  # by teacher sparsity, percent


class Outcome(NamedTuple):
    """What halving gives on one sweep; points are 100 x the metric."""

    is_kept: bool  # whether the student that is left has the best value of all
    behind: float  # points that it is behind the best
    random_behind: float  # points that a student drawn at random is behind, on average
    dense_behind: float | None  # points that the dense teacher's student is behind; None if there is none
    share: float  # of the updates of the full sweep


def mean_of_latest(history: History, rung: int, metric: str, window: int) -> float:
    """The mean of a metric in the latest evaluations up to a rung, as many as the window."""
    return statistics.fmean([entry[metric] for entry in history if entry["update"] <= rung][-window:])


RULES = {  # values by which students may be compared at a rung, of (history, rung, metric)
    "best so far": value_at,
    "last": partial(mean_of_latest, window=1),
    f"mean of {WINDOW}": partial(mean_of_latest, window=WINDOW),
}


def sweeps(roots: Sequence[Path]) -> list[Sweep]:
    """All full sweeps below these folders; those with a student in training are left out.

    Raises:
        InputError: there are none.
    """
    by_run: dict[Path, dict[int, History]] = {}
    settings = {}
    for folder, name, args, result in checkpoints(roots):
        sparsity = sparsity_of(name)
        if sparsity is not None and args.get("halving") is None and not in_training(folder):
            by_run.setdefault(folder, {})[sparsity] = result["history"]
            settings[folder] = args
    found = [
        Sweep(
            settings[folder]["task_name"],
            settings[folder]["selection_metric"],
            total_updates(histories.values(), settings[folder]["num_train_epochs"]),
            dict(sorted(histories.items())),
        )
        for folder, histories in sorted(by_run.items())
        if len(histories) > 1
    ]
    if not found:
        raise InputError(f"{' '.join(map(str, roots))}: no rewinds at several teacher sparsities without --halving")
    return found


def in_training(folder: Path) -> bool:
    """Whether a student of this run is begun and not finished."""
    run = RunFolder(folder)
    return len(run.results()) < len(run.names())


def total_updates(histories: Iterable[History], epochs: int) -> int:
    """How many updates so many epochs take, by the longest of these histories."""
    last = max((history[-1] for history in histories), key=lambda entry: entry["update"])
    return round(epochs * last["update"] / last["epoch"])


def replay(sweep: Sweep, shares: Sequence[float], rule: Callable[[History, int, str], float]) -> Outcome:
    """What halving at these shares of the updates would have given on a sweep."""
    interval = min(history[0]["update"] for history in sweep.histories.values())
    rungs = rung_updates(shares, sweep.total, interval)
    dropped = dropped_at(sweep.histories, rungs[:-1], sweep.metric, rule)

    # of those that are left to the end the best is taken, of equals the denser teacher's
    final = {s: max(entry[sweep.metric] for entry in history) for s, history in sweep.histories.items()}
    best = max(final.values())
    winner = max((s for s, rung in dropped.items() if rung is None), key=lambda s: (final[s], -s))
    made = sum(min(rung or sweep.total, sweep.histories[s][-1]["update"]) for s, rung in dropped.items())
    full = sum(history[-1]["update"] for history in sweep.histories.values())
    return Outcome(
        is_kept=final[winner] == best,
        behind=100 * (best - final[winner]),
        random_behind=100 * (best - statistics.fmean(final.values())),
        dense_behind=100 * (best - final[0]) if 0 in final else None,
        share=made / full,
    )


def row(task: str, rule: str, shares: Sequence[float], outcomes: list[Outcome]) -> tuple:
    """A line of the table: means over the sweeps of a task, or of all."""
    dense = [outcome.dense_behind for outcome in outcomes if outcome.dense_behind is not None]
    return (
        task,
        " ".join(f"{share:.3g}" for share in shares),
        rule,
        f"{sum(outcome.is_kept for outcome in outcomes)} of {len(outcomes)}",
        f"{statistics.fmean(outcome.behind for outcome in outcomes):.2f}",
        f"{statistics.fmean(outcome.random_behind for outcome in outcomes):.2f}",
        f"{statistics.fmean(dense):.2f}" if dense else None,
        f"{100 * statistics.fmean(outcome.share for outcome in outcomes):.0f} %",
    )


def parse_args(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("outputs", nargs="+", help="output folders of full sweeps")
    text = "shares of the updates at which students are compared; may be given several times"
    share = number(float, 0, 1)
    text = f"{text} (default a sixth, a third, two thirds)"
    parser.add_argument("--rungs", nargs="+", type=share, action="append", help=text)
    return parser.parse_args(argv)


@entry_point()
def main(argv=None):
    args = parse_args(argv)
    found = sweeps(list(map(Path, args.outputs)))
    lines = []
    for shares in args.rungs or [RUNGS]:
        for name, rule in RULES.items():
            outcomes = [(sweep.task, replay(sweep, shares, rule)) for sweep in found]
            tasks = sorted({task for task, _ in outcomes})
            for task in tasks:
                lines.append(row(task, name, shares, [outcome for where, outcome in outcomes if where == task]))
            if len(tasks) > 1:
                lines.append(row("all", name, shares, [outcome for _, outcome in outcomes]))
    header = ("task", "rungs", "compared by", "best kept", "behind", "random", "dense", "updates")
    print(table(header, lines))


if __name__ == "__main__":
    main()
