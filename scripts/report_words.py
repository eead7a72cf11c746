"""What scripts/report.py says of its numbers: the conclusion, in one sentence, and what each figure shows."""

import statistics
from typing import NamedTuple

from scripts import report_data as data
from scripts.report_tables import METRICS, by_choice, groups, listed, methods_of
from utils.glue import TASKS

LISTED = 4  # differences that the conclusion names one by one


class Verdict(NamedTuple):
    """On a task and a student: the best sparse teacher's students less the dense one's."""

    where: str
    metric: str
    compared: data.Comparison
    random: data.Comparison | None  # randomly cut teachers' students less the dense one's
    over_random: data.Comparison | None  # the best less those


def conclusion(rows: list[data.Row]) -> tuple[str, str]:
    """One sentence, are students of the best sparse teacher ahead of the dense one's and beyond noise; and its limits."""
    if not methods_of(rows):
        return "No student of a sparse teacher has been trained yet, so there is nothing to compare.", ""
    found = [verdict for task, student in groups(rows) if (verdict := _verdict(rows, task, student))]
    if not found:
        return "No seed has students of both a sparse and the dense teacher, so there is nothing to compare.", ""
    seeds = [verdict.compared.seeds for verdict in found]
    over = f"over {'-'.join(map(str, dict.fromkeys((min(seeds), max(seeds)))))} seed{'s' * (max(seeds) > 1)}"
    differences = f"students of the best sparse teacher differ from the dense teacher's by {_differences(found)}"
    return f"{_outcome(found, max(seeds))}: {over}, {differences}.", _limits(rows, found)


def _verdict(rows: list[data.Row], task: str, student: str) -> Verdict | None:
    """By the score that does best on the selecting rows; random, which is there to be compared with, is none."""
    mine = [row for row in rows if (row.task, row.student) == (task, student)]
    by_method = {method: [row for row in mine if row.method == method] for method in methods_of(mine)}
    values = {method: by_choice(found)["best"] for method, found in by_method.items()}
    dense = {row.seed: 100 * row.value for row in mine if row.method == data.TRIAL}
    random = values.pop("random", {})
    if not values:
        return None
    best = max(values, key=lambda m: statistics.fmean(r.selecting for r in data.best_by_seed(by_method[m]).values()))
    compared = data.compare(values[best], dense)
    several = len({row.student for row in rows if row.task == task and row.student}) > 1
    where = f"{TASKS[task].title}{f' ({student})' if several else ''}"
    over_random = data.compare(values[best], random)
    metric = METRICS[mine[0].metric]
    return compared and Verdict(where, metric, compared, data.compare(random, dense), over_random)


def _outcome(found: list[Verdict], seeds: int) -> str:
    """What the numbers say as a whole, in a few words."""
    ahead, behind = (sum(v.compared.is_beyond_noise and s * v.compared.difference > 0 for v in found) for s in (1, -1))
    if seeds == 1:
        return "One seed cannot tell an effect from noise"
    if not ahead + behind:
        return "No difference beyond the noise of seeds"
    parts = " and ".join(f"{word} in {count}" for word, count in (("ahead", ahead), ("behind", behind)) if count)
    but = f", but in {_ahead_of_random(found)} of randomly cut teachers'" if any(v.over_random for v in found) else ""
    return f"Beyond the noise of seeds {parts} of {len(found)} comparison{'s' * (len(found) > 1)}{but}"


def _ahead_of_random(found: list[Verdict]) -> str:
    known = [verdict.over_random for verdict in found if verdict.over_random]
    return f"{sum(compared.is_beyond_noise and compared.difference > 0 for compared in known)} of {len(known)} ahead"


def _differences(found: list[Verdict]) -> str:
    """Each difference with its metric, or of many how they spread."""
    if len(found) > LISTED:
        values = [verdict.compared.difference for verdict in found]
        spread = f"{min(values):+.2f} to {max(values):+.2f} points"
        return (
            f"{spread} of each task's metric, {statistics.fmean(values):+.2f} in the mean of {len(found)} comparisons"
        )
    texts, metric = [], None
    for verdict in found:
        unit = "" if verdict.metric == metric else f" points ({verdict.metric})"
        noise = " (beyond noise)" if verdict.compared.is_beyond_noise else ""
        texts.append(f"{verdict.compared.difference:+.2f}{unit} on {verdict.where}{noise}")
        metric = verdict.metric
    return listed(texts)


def _limits(rows: list[data.Row], found: list[Verdict]) -> str:
    """What keeps the differences from being taken for more than they are."""
    scores = [method for method in methods_of(rows) if method != "random"]
    sparse = [row for row in rows if row.method in scores]
    sparsities = len({row.teacher_sparsity for row in sparse})
    chosen = f"{sparsities} teacher sparsit{'ies' if sparsities > 1 else 'y'} and {listed(scores)}"
    same = "" if {row.selected_on for row in sparse} == {"half of dev"} else ", on the rows reported, which flatters it"
    text = [f"The best is picked among {chosen}{same}; noise is what a 95 % interval over seeds covers."]
    known = [verdict for verdict in found if verdict.random and verdict.over_random]
    if known:
        gains = listed([f"{verdict.random.difference:+.2f} on {verdict.where}" for verdict in known[:LISTED]])
        text.append(f"Teachers cut at random, which chose among as many, come to {gains}.")
    return " ".join(text)


def curve_caption(rows: list[data.Row]) -> str:
    """How many points of a task's and student's curves are apart from the dense teacher's students."""
    dense = data.mean_over_seeds(100 * row.value for row in rows if row.method == data.TRIAL)
    cut = {(row.method, row.teacher_sparsity) for row in rows if row.teacher_sparsity}
    means = [statistics.fmean(100 * r.value for r in rows if (r.method, r.teacher_sparsity) == point) for point in cut]
    if dense is None:
        return "There are no students of the dense teacher to hold these against."
    above, of = sum(mean > dense.mean for mean in means), f"of {len(means)} points of cut teachers"
    if not dense.deviation:
        return f"{above} {of} lie above the dashed line."
    within = sum(abs(mean - dense.mean) <= dense.deviation for mean in means)
    return f"{above} {of} lie above the dashed line, {within} within the grey band."


CURVES = (
    "Each point is the mean over seeds of students whose teacher had lost that share of its heads and neurons; the dashed "
    "line is the dense teacher's students. The grey band is one standard deviation of theirs, which seeds alone make: a "
    "point within it cannot be told from the line."
)
CLOSER = {  # a kind of figure -> what it shows, and what to make of it
    "panels": "Each score by itself, with a band of one standard deviation and a dot for each seed. Where bands overlap, "
    "seeds decide more than teachers.",
    "training": "How the students of one run learn, by their teacher's sparsity. A metric that still rises at the end had "
    "no time to converge, and compares how fast students learn.",
    "kept": "Heads and neurons that each layer of the teacher keeps as it is cut. One ranking goes over all layers, so "
    "layers thin out unevenly: those that keep most hold what the score took for knowledge.",
    "scores": "What decided which of the teacher's heads went first: the dark ones. Where expressive and friendly differ, "
    "the trial student asked for other heads than the task did.",
}
