"""The comparisons of scripts/report.py: sparse against dense teachers, paired over seeds, with their tests."""

import re
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scripts import report_data as data
from scripts import report_statistics as statistic
from scripts import report_variants as variants
from scripts import report_words as words
from scripts.report_choices import OVERALL, BySeed, choices_of, complete, points, unlike
from scripts.report_tables import Table, groups, methods_of
from utils.predictions import read_predictions
from utils.tasks import title_of

COMPARED = ("task", "student", "taught by", "against")
NUMBERS = ("its students", "difference", "95 % interval\nStudent's t", "better / worse", "p\nsign flips")
NUMBERS += ("BCa\n95 % interval", "seeds and rows\n95 % interval, p", f"seeds needed\nfor {words.HALF_A_POINT} points")


class Resampled(NamedTuple):
    """A checkpoint's metric on resampled rows."""

    rows: bytes  # their labels: what is paired has the same
    values: np.ndarray  # (B,), x 100


class Pair(NamedTuple):
    """Students of one kind and those that they are held against: seed -> those whose mean counts."""

    task: str
    student: str
    method: str
    choice: str  # blank where there is one student a seed
    against: str
    ours: BySeed
    theirs: BySeed

    @property
    def name(self) -> str:
        """Method and choice."""
        return ", ".join(filter(None, (self.method, self.choice)))

    @property
    def family(self) -> tuple[str, ...]:
        """The same for one comparison on several tasks, which have texts without labels of their own."""
        return re.sub(r"\d+ (?=unlabelled)", "", self.student), self.method, self.choice, self.against

    @property
    def is_overall(self) -> bool:
        """Whether it is more than one sparsity's students against the dense teacher's."""
        return not self.choice.endswith("%") or "," in self.against


class Arm(NamedTuple):
    """Students that are held against the dense teacher's, all their sparsities together, for a figure."""

    group: str  # task, and student
    label: str  # method, and choice
    method: str
    compared: statistic.Comparison


def arms(rows: list[data.Row]) -> list[Arm]:
    """Of each task and student those of each method, or of its only sparsity, those without a teacher, and variants."""
    pairs = [pair for pair in _pairs(rows) if pair.against == "dense" and pair.ours]
    sparsities = Counter((pair.task, pair.student, pair.method) for pair in pairs if not pair.is_overall)
    found = []
    for pair in pairs:
        has_one = sparsities[pair.task, pair.student, pair.method] == 1
        is_drawn = pair.choice not in OVERALL if has_one else pair.is_overall
        if is_drawn and (compared := statistic.compare(points(pair.ours), points(pair.theirs))):
            [method] = {row.method for students in pair.ours.values() for row in students}
            found.append(Arm(f"{title_of(pair.task)}, student: {pair.student}", pair.name, method, compared))
    return found


def resampled_rows(rows: list[data.Row]) -> dict[Path, Resampled]:
    """The metrics of all students whose predictions were kept, on the same resamples of their rows: by checkpoint.

    Raises:
        InputError: raised by read_predictions.
    """
    found: dict[Path, Resampled] = {}
    students = [row for row in rows if row.student]
    for row in sorted(students, key=lambda row: row.task):  # so that one task's resamples are held at a time
        columns = read_predictions(row.checkpoint) if row.checkpoint not in found else None
        if columns is not None:
            labels = columns["label"]
            counts = statistic.row_counts(len(labels))
            values = statistic.resampled_metric(row.metric, columns["prediction"], labels, counts)
            found[row.checkpoint] = Resampled(labels.tobytes(), 100 * values)
    return found


def comparison_table(rows: list[data.Row], overall: bool, resampled: dict[Path, Resampled]) -> Table:
    """Students less the dense teacher's, and less those of randomly cut teachers, paired over seeds.

    Args:
        rows: all there are.
        overall: of all sparsities together, else of each.
        resampled: by checkpoint, of resampled_rows.
    """
    pairs = [pair for pair in _pairs(rows) if pair.is_overall == overall and pair.ours]
    compared = [statistic.compare(points(pair.ours), points(pair.theirs)) for pair in pairs]
    p_values = [None if found is None else statistic.sign_flip_p(found.differences) for found in compared]
    corrected = _corrected(pairs, p_values)
    over_rows = [_over_rows(pair, resampled) for pair in pairs]
    lines = []
    remarks: dict[str, None] = {}
    for pair, *found in zip(pairs, compared, p_values, corrected, over_rows, strict=True):
        names = (title_of(pair.task), pair.student, pair.name, pair.against)
        ours = points({seed: rows for seed, rows in pair.ours.items() if seed in pair.theirs or not pair.theirs})
        mean = f"{statistics.fmean(ours.values()):.2f}" if ours else "-"
        difference, *others = _cells(*found)
        if apart := unlike(pair.ours, pair.theirs):
            difference += " †"
            remarks[f"† {', '.join((*names[:2], pair.method))} and {pair.against}: not trained alike, {apart}."] = None
        lines.append((*names, mean, difference, *others))
    title = "Sparse against dense teachers, paired over seeds" if overall else "The same at each teacher sparsity"
    there = [found for found in compared if found]
    caption = words.comparison_caption(
        overall, sum(found.is_beyond_noise for found in there), sum(found.low is not None for found in there)
    )
    lacking = sum(found is not None and rows is None for found, rows in zip(compared, over_rows, strict=True))
    notes = (*remarks, *words.comparison_notes(lacking, len(there)))
    return Table(title, (*COMPARED, *NUMBERS), lines, 2, len(COMPARED), caption, notes)


def _pairs(rows: list[data.Row]) -> Iterator[Pair]:
    """Every choice of every method's students and those of the dense teacher, then of randomly cut ones.

    Those are held against students at the same sparsities. Then students without a teacher against the dense one's,
    and what report_variants compares.
    """
    for (task, student), mine in groups(rows).items():
        dense = {row.seed: [row] for row in mine if row.method == data.TRIAL}
        rows_of = {method: [row for row in mine if row.method == method] for method in methods_of(mine)}
        methods = {method: choices_of(found) for method, found in rows_of.items()}
        for method, choices in methods.items():
            for choice, ours in choices.items():
                yield Pair(task, student, method, choice, "dense", ours, dense)
        for method in [m for m in methods if "random" in methods and m != "random"]:
            scored, random = map(choices_of, complete(rows_of[method], rows_of["random"]))
            for choice in [name for name in scored if name in random and name != "0 %"]:
                yield Pair(task, student, method, choice, "random", scored[choice], random[choice])
        alone = {row.seed: [row] for row in mine if row.method == data.ALONE}
        yield Pair(task, student, data.ALONE, "", "dense", alone, dense)
        halved = {row.method for row in mine if row.dropped_at is not None}
        for comparison in variants.pairs([row for row in mine if row.method not in halved], methods, dense):
            yield Pair(task, student, *comparison)


def _corrected(pairs: list[Pair], p_values: list[float | None]) -> list[float | None]:
    """Each p corrected for the other tasks' of the same comparison; None where there are none."""
    corrected: list[float | None] = [None] * len(pairs)
    # several amounts of text on one task are families of their own
    count = Counter((pair.family, pair.task) for pair in pairs)
    several = {family for (family, _), found in count.items() if found > 1}
    families = [(pair.family, pair.student * (pair.family in several)) for pair in pairs]
    for family in set(families):
        places = [i for i, p in enumerate(p_values) if families[i] == family and p is not None]
        if len(places) > 1:
            for place, p in zip(places, statistic.holm([p_values[i] for i in places]), strict=True):
                corrected[place] = p
    return corrected


def _over_rows(pair: Pair, resampled: dict[Path, Resampled]) -> np.ndarray | None:
    """The difference of each seed that both have on each resample of the rows, (B, S); None without predictions."""
    seeds = sorted(pair.ours.keys() & pair.theirs.keys())
    sides = [
        [[resampled.get(row.checkpoint) for row in side[seed]] for seed in seeds] for side in (pair.ours, pair.theirs)
    ]
    found = [students for side in sides for of_seed in side for students in of_seed]
    if None in found or len({students.rows for students in found}) != 1:
        return None
    ours, theirs = (np.stack([np.mean([s.values for s in of_seed], 0) for of_seed in side], 1) for side in sides)
    return ours - theirs


def _cells(
    compared: statistic.Comparison | None, p: float | None, corrected: float | None, over_rows: np.ndarray | None
) -> tuple[str, ...]:
    """Difference, Student's t, better and worse seeds, p, BCa, seeds and rows, seeds needed."""
    if compared is None:
        return ("missing",) * (len(NUMBERS) - 1)
    interval = "-" if compared.low is None else _signed(compared.low, compared.high)
    needed = None
    if compared.seeds > 1:
        needed = statistic.seeds_needed(statistics.stdev(compared.differences), words.HALF_A_POINT)
    bca = statistic.bca_interval(compared.differences)
    return (
        f"{compared.difference:+.2f}",
        f"**{interval}**" if compared.is_beyond_noise else interval,
        f"{compared.better} / {compared.worse} of {compared.seeds}",
        f"{p:.3f}" if corrected is None else f"{p:.3f}\nHolm {corrected:.3f}",
        _signed(*bca) if bca else statistic.unresampled(compared.differences),
        _rows_cell(over_rows),
        "-" if needed is None else f"{needed:,}",
    )


def _rows_cell(over_rows: np.ndarray | None) -> str:
    if over_rows is None:
        return "-"
    if reason := statistic.unresampled(over_rows):
        return reason
    found = statistic.multi_bootstrap(over_rows)
    return f"{_signed(*found.interval)}\np {found.p:.3f}"


def _signed(low: float, high: float) -> str:
    return f"{low:+.2f} to {high:+.2f}"
