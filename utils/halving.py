"""Successive halving of the rewinds: all train to the first rung, the better half goes on to the next, and so on.

    rungs = rung_updates((0.125, 0.25, 0.5), total=1560, interval=15)       # [195, 390, 780, 1560]
    dropped_at({0: history, 10: history, ...}, rungs, "acc")                # {0: None, 10: 195, ...}

Each student trains on the schedule of the full run, so that those that are not dropped end as they would have anyway.
Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization".
"""

import math
from collections.abc import Iterable, Mapping, Sequence

RUNGS = (0.125, 0.25, 0.5)  # shares of the updates at which the worse half is dropped


def rung_updates(shares: Iterable[float], total: int, interval: int) -> list[int]:
    """The updates at which students are compared, each of them evaluated, and the last update, ascending.

    Args:
        shares: of all updates, between 0 and 1.
        total: number of updates of a full run.
        interval: updates between evaluations; rungs are its multiples.
    """
    rungs = {interval * math.ceil(share * total / interval) for share in shares}
    return [*sorted(rung for rung in rungs if rung < total), total]


def value_at(history: Sequence[Mapping], rung: int, metric: str) -> float:
    """The best value of a metric in the evaluations of a training up to a rung; -inf if there are none."""
    return max((entry[metric] for entry in history if entry["update"] <= rung), default=-math.inf)


def dropped_at(histories: Mapping[int, Sequence[Mapping]], rungs: Sequence[int], metric: str) -> dict[int, int | None]:
    """Teacher sparsity (percent) -> the rung at which its student is dropped; None if it goes on.

    Of n students the better ceil(n / 2) stay; of equals those with the denser teacher.

    Args:
        histories: teacher sparsity -> the evaluations of its student, as Result.history has them.
        rungs: the updates at which all students that are still there have been compared, ascending.
        metric: its name in the evaluations; higher is better.
    """
    dropped: dict[int, int | None] = dict.fromkeys(histories)
    remaining = sorted(histories)
    for rung in rungs:
        values = {sparsity: value_at(histories[sparsity], rung, metric) for sparsity in remaining}
        ranked = sorted(remaining, key=lambda sparsity: (-values[sparsity], sparsity))
        stay = math.ceil(len(ranked) / 2)
        dropped |= dict.fromkeys(ranked[stay:], rung)
        remaining = ranked[:stay]
    return dropped
