"""The sentences of scripts/report.py: the conclusion, its limits, and the captions of the figures."""

import statistics
from collections import Counter
from typing import NamedTuple

from scripts import report_data as data
from scripts.report_choices import OVERALL, choices_of, complete, points, unlike
from scripts.report_statistics import MIN_SEEDS, RESAMPLES, Comparison, compare
from scripts.report_tables import METRICS, groups, listed, methods_of
from utils.tasks import title_of

HALF_A_POINT = 0.5  # of the metric x 100, the difference that the seeds needed are for
LISTED = 4  # differences that the conclusion names one by one


class Verdict(NamedTuple):
    """On a task and a student: students of sparse teachers less those of the dense one."""

    where: str
    metric: str
    best: Comparison  # of the best score's students, each seed's best
    cut: Comparison | None  # of that score's students, the mean of all cut teachers'
    random: Comparison | None  # of randomly cut teachers' students, each seed's best
    over_random: Comparison | None  # the best less those, at the sparsities that both have
    unlike: str  # in which settings students of sparse teachers and of the dense one were trained otherwise


def conclusion(rows: list[data.Row]) -> tuple[str, str]:
    """One sentence: are students of the best sparse teacher ahead of the dense one's, beyond noise? Then its limits."""
    if not methods_of(rows):
        return "No student of a single sparse teacher has been trained yet, so there is nothing to compare.", ""
    students = groups(rows)
    of_task = Counter(task for task, _ in students)
    found = []
    for (task, student), mine in students.items():
        verdict = _verdict(f"{title_of(task)}{f' with {student}' * (of_task[task] > 1)}", mine)
        found += [verdict] if verdict else []
    if not found:
        return "No seed has students of both the dense teacher and one cut by a score: there is nothing to compare.", ""
    seeds = [verdict.best.seeds for verdict in found]
    over = f"over {'-'.join(map(str, dict.fromkeys((min(seeds), max(seeds)))))} seeds, " if max(seeds) > 1 else ""
    scored = [row for row in rows if row.method in methods_of(rows) and row.method != "random"]
    count = len({(row.method, row.teacher_sparsity) for row in scored if row.teacher_sparsity})
    has_dense = any(row.teacher_sparsity == 0 for row in scored)
    sparse = f"{count} sparse teacher{'s' * (count > 1)}{' and the dense one' * has_dense}"
    teacher = f"the best of {sparse}" if count + has_dense > 1 else "the sparse teacher"
    if count + has_dense > 1 and {row.selected_on for row in scored} != {"half of dev"}:
        teacher += ", picked on the rows reported, which flatters it,"
    differences = f"students of {teacher} differ from the dense one's by {_differences(found)}"
    return f"{_outcome(found, max(seeds))}: {over}{differences}.", _limits(found)


def _verdict(where: str, mine: list[data.Row]) -> Verdict | None:
    """By the score that does best on dev_select; random, which is there to be compared with, is none."""
    by_method = {method: [row for row in mine if row.method == method] for method in methods_of(mine)}
    random = by_method.pop("random", [])
    bests = {method: best for method, found in by_method.items() if (best := data.best_by_seed(found))}
    if not bests:
        return None
    method = max(bests, key=lambda name: statistics.fmean(row.dev_select for row in bests[name].values()))
    choices = choices_of(by_method[method])
    dense = {row.seed: [row] for row in mine if row.method == data.TRIAL}
    compared, cut = (compare(points(choices.get(choice, {})), points(dense)) for choice in OVERALL)
    return compared and Verdict(
        where=where,
        metric=METRICS[mine[0].metric],
        best=compared,
        cut=cut,
        random=compare(_best(random), points(dense)),
        over_random=compare(*map(_best, complete(by_method[method], random))),
        unlike=unlike(choices["best"], dense),
    )


def _best(found: list[data.Row]) -> dict[int, float]:
    """Seed -> 100 x the metric of its best student."""
    return points(choices_of(found)["best"])


def _outcome(found: list[Verdict], seeds: int) -> str:
    """The conclusion of all comparisons, in a few words."""
    ahead, behind = (sum(v.best.is_beyond_noise and sign * v.best.difference > 0 for v in found) for sign in (1, -1))
    if seeds == 1:
        return "One seed cannot tell an effect from noise"
    if not ahead + behind:
        return "No difference beyond the noise of seeds"
    parts = " and ".join(f"{word} in {count}" for word, count in (("ahead", ahead), ("behind", behind)) if count)
    text = f"{parts.capitalize()} of {len(found)} comparison{'s' * (len(found) > 1)} beyond the noise of seeds"
    known = [verdict.over_random for verdict in found if verdict.over_random]
    over = sum(compared.is_beyond_noise and compared.difference > 0 for compared in known)
    return f"{text}, but in {over or 'none'} ahead of randomly cut teachers" if known and ahead else text


def _differences(found: list[Verdict]) -> str:
    """Each difference with its metric, or of many how they spread."""
    if len(found) > LISTED:
        values = [verdict.best.difference for verdict in found]
        spread = f"{min(values):+.2f} to {max(values):+.2f} points of each task's metric"
        return f"{spread}, {statistics.fmean(values):+.2f} in the mean of {len(found)} comparisons"
    texts = []
    metric = None
    for verdict in found:
        unit = "" if verdict.metric == metric else f" points of {verdict.metric}"
        noise = " (beyond noise)" if verdict.best.is_beyond_noise else ""
        texts.append(f"{verdict.best.difference:+.2f}{unit} on {verdict.where}{noise}")
        metric = verdict.metric
    return listed(texts)


def _limits(found: list[Verdict]) -> str:
    """The limits of the conclusion: noise, choosing the best, and the differences of other teachers."""
    text = ["Noise is what a 95 % interval over seeds covers, and the best of several is ahead by being picked."]
    for what, name in (
        ("As a mean over all cut teachers, which picks nothing, students differ from the dense one's by", "cut"),
        ("Those of the best randomly cut teachers differ by", "random"),
    ):
        known = [(verdict.where, compared) for verdict in found if (compared := getattr(verdict, name))]
        if known and len(known) <= LISTED:
            text.append(f"{what} {listed([f'{compared.difference:+.2f} on {where}' for where, compared in known])}.")
    if apart := [f"{verdict.unlike} on {verdict.where}" for verdict in found if verdict.unlike]:
        text.append(f"Those of sparse teachers and of the dense one were not trained alike: {'; '.join(apart)}.")
    return " ".join(text)


def comparison_caption(overall: bool, beyond: int, intervals: int) -> str:
    """The caption of a table of comparisons, with how many intervals would leave out 0 by chance alone."""
    chosen = f"{CHOSEN} " if overall else ""
    text = f"Points of the metric x 100, the first students less those they are held against. {chosen}"
    if not intervals:
        return f"{text}Intervals (Student's t) take several seeds that differ."
    return (
        f"{text}In bold: intervals (Student's t) that leave out 0, {beyond} of {intervals}. They are not corrected for "
        f"their number: with no effect at all, {0.05 * intervals:.1f} would be expected to."
    )


def comparison_notes(without_rows: int, comparisons: int) -> tuple[str, ...]:
    """What the tests of a table of comparisons are; of so many no rows could be resampled."""
    lacking = (
        f"Rows are not resampled in {without_rows} of {comparisons} comparisons, whose checkpoints do not all hold "
        "predictions for the same rows; those made before predictions were kept have none (predictions.npy)."
    )
    return (*TESTS, lacking) if without_rows else TESTS


def curve_caption(rows: list[data.Row]) -> str:
    """How many points of a task's and student's curves are apart from the dense teacher's students."""
    dense = data.mean_over_seeds(100 * row.value for row in rows if row.method == data.TRIAL)
    cut = {(row.method, row.teacher_sparsity) for row in rows if row.is_swept and row.teacher_sparsity}
    means = [statistics.fmean(100 * r.value for r in rows if (r.method, r.teacher_sparsity) == point) for point in cut]
    if dense is None:
        return "There are no students of the dense teacher to hold these against."
    above = sum(mean > dense.mean for mean in means)
    of = f"of {len(means)} points of cut teachers"
    if not dense.deviation:
        return f"{above} {of} lie above the dashed line."
    within = sum(abs(mean - dense.mean) <= dense.deviation for mean in means)
    return f"{above} {of} lie above the dashed line, {within} within the grey band."


CHOSEN = (
    "Best: each seed's best sparsity, which flatters; mean of all cut: nothing is chosen. That mean, and what is held "
    "against random, is of the sparsities that all its seeds have; of a sweep with --halving, the best counts alone."
)
TESTS = (
    "p: exact sign-flip test over paired seeds, two-sided; with S seeds it is never below 2 / 2^S. Holm: corrected for "
    "the tasks that the same comparison was made on.",
    f"BCa: 95 % bootstrap interval over seeds. Seeds and rows: both resampled {RESAMPLES:,} times (multi-bootstrap), "
    f"95 % interval and two-sided p; what was chosen stays chosen. Both take {MIN_SEEDS} seeds, and are too narrow "
    "with few.",
    f"Seeds needed: for a true difference of {HALF_A_POINT} points to be found with 80 % power by a paired t-test at 5 "
    "%, two-sided, if differences have the standard deviation found, of which few seeds tell little.",
)
CURVES = (
    "Each point: students whose teacher had lost that share of its heads and neurons, as a mean over seeds; dashed: "
    "students of the dense teacher. Seeds alone move those by a standard deviation, the grey band where there are "
    "several seeds: a point within it cannot be told from the line."
)
DIFFERENCES = (
    "Each line: students less those of the dense teacher with the same seed, in points of the metric x 100. A small "
    "dot is one seed, the large mark their mean, the bar its 95 % interval over seeds (Student's t), uncorrected: "
    "where it crosses the dashed line, seeds alone would explain the difference."
)
CLOSER = {  # a kind of figure -> its heading, what it shows and what to make of it
    "panels": (
        "Score by score",
        "Each score by itself, with a band of one standard deviation and a dot for each seed. Where bands overlap, "
        "seeds decide more than teachers.",
    ),
    "training": (
        "Training",
        "How the students of one run learn, by their teacher's sparsity. A metric that still rises at the end had no "
        "time to converge. Losses are against each teacher's own logits: they fall, but do not compare teachers.",
    ),
    "kept": (
        "What the teacher keeps",
        "Heads and neurons that each layer of the teacher keeps as it is cut. One ranking goes over all layers, so "
        "they thin out unevenly: those that keep most hold what the score took for knowledge.",
    ),
    "scores": (
        "Scores of heads",
        "What decided which of the teacher's heads went first: the dark ones. Where expressive and friendly differ, "
        "the trial student asked for other heads than the task did.",
    ),
}
