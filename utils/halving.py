"""Successive halving of the rewinds: all train to the first rung, the better half goes on to the next, and so on.

    rungs = rung_updates((0.125, 0.25, 0.5), total=1560, interval=15)       # [195, 390, 780, 1560]
    dropped_at({0: history, 10: history, ...}, rungs, "acc")                # {0: None, 10: 195, ...}
    Competition(folder, settings, [0, 10, ...], rungs).dropped(before=390)["ckpt_10"]      # from what is on the disk

Each student trains on the schedule of the full run, so that those that are not dropped end as they would have anyway.
Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization".
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from utils import processes
from utils.folder import RunFolder
from utils.paths import checkpoint_name

logger = logging.getLogger("stark")

RUNGS = (1 / 6, 1 / 3, 2 / 3)  # shares of the updates at which the worse half is dropped


def rung_updates(shares: Iterable[float], total: int, interval: int) -> list[int]:
    """The updates at which students are compared, each of them evaluated, and the last update, ascending.

    Args:
        shares: of all updates, between 0 and 1.
        total: number of updates of a full run.
        interval: updates between evaluations; rungs are its multiples.
    """
    rungs = {interval * math.ceil(share * total / interval - 1e-9) for share in shares}  # as 0.55 * 100 is above 55
    return [*sorted(rung for rung in rungs if 0 < rung < total), total]


def value_at(history: Sequence[Mapping], rung: int, metric: str) -> float:
    """The best value of a metric in the evaluations of a training up to a rung; -inf if there are none."""
    return max((entry[metric] for entry in history if entry["update"] <= rung), default=-math.inf)


def dropped_at(
    histories: Mapping[int, Sequence[Mapping]],
    rungs: Sequence[int],
    metric: str,
    value: Callable[[Sequence[Mapping], int, str], float] = value_at,
) -> dict[int, int | None]:
    """Teacher sparsity (percent) -> the rung at which its student is dropped; None if it goes on.

    Of n students the better ceil(n / 2) stay; of equals those with the denser teacher.

    Args:
        histories: teacher sparsity -> the evaluations of its student, as Result.history has them.
        rungs: the updates at which all students that are still there have been compared, ascending.
        metric: its name in the evaluations; higher is better.
        value: by which students are compared, of (history, rung, metric).
    """
    dropped: dict[int, int | None] = dict.fromkeys(histories)
    remaining = sorted(histories)
    for rung in rungs:
        values = {sparsity: value(histories[sparsity], rung, metric) for sparsity in remaining}
        ranked = sorted(remaining, key=lambda sparsity: (-values[sparsity], sparsity))
        stay = math.ceil(len(ranked) / 2)
        dropped |= dict.fromkeys(ranked[stay:], rung)
        remaining = ranked[:stay]
    return dropped


class Competition(NamedTuple):
    """The students of a sweep, of which each stands in the run's folder as far as it has come.

    Who is dropped follows from their histories on the disk, so that stopped runs, and runs that share a sweep, agree.
    """

    folder: RunFolder
    settings: dict[str, Any]  # of the run
    sparsities: Sequence[int]  # of all teachers, percent; none without --halving
    rungs: Sequence[int]  # updates, the last of which is the end

    def dropped(self, before: int) -> dict[str, int]:
        """Checkpoint -> the rung before this update at which its student was dropped; all have reached these rungs."""
        rungs = [rung for rung in self.rungs if rung < before]
        dropped: dict[int, int | None] = {}
        if processes.is_main() and self.sparsities and rungs:
            histories = {s: self.folder.history(checkpoint_name(s), self.settings) for s in self.sparsities}
            dropped = dropped_at(histories, rungs, self.settings["selection_metric"])
        return processes.broadcast({checkpoint_name(s): rung for s, rung in dropped.items() if rung is not None})

    def waits_at(self, rung: int) -> bool:
        """Whether students of other commands have not reached this rung yet, which is logged; at the last none wait."""
        names = map(checkpoint_name, self.sparsities if rung < self.rungs[-1] else ())
        missing = [name for name in names if not self.folder.has_reached(name, rung, self.settings)]
        missing = processes.broadcast(missing)
        if missing:
            message = "paused after update %d, which %s must reach, too; then the same command goes on"
            logger.info(message, rung, " ".join(missing))
        return bool(missing)
