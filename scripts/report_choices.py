"""Which students scripts/report.py holds against each other: of a method the best, all, or those of one sparsity."""

import itertools
import statistics

from scripts import report_data as data

OVERALL = ("best", "mean of all cut")  # what to take of all teacher sparsities' students
BySeed = dict[int, list[data.Row]]


def choices_of(found: list[data.Row]) -> dict[str, BySeed]:
    """Choice of a method's students (best, mean of all cut, a sparsity) -> seed -> those whose mean it is.

    Where --halving has dropped some, the best alone: the others are there because they were better than those. The mean
    is of `complete` ones.
    """
    best, mean = OVERALL
    choices = {best: {seed: [row] for seed, row in data.best_by_seed(found).items()}}
    if len(data.trained_to_the_end(found)) < len(found):
        return choices
    [cut] = complete([row for row in found if row.teacher_sparsity])
    choices[mean] = {seed: [row for row in cut if row.seed == seed] for seed in sorted({row.seed for row in cut})}
    for sparsity in sorted({row.teacher_sparsity for row in found}):
        choices[f"{sparsity} %"] = {row.seed: [row] for row in found if row.teacher_sparsity == sparsity}
    return choices


def complete(*methods: list[data.Row]) -> list[list[data.Row]]:
    """Of each method the students at the same teacher sparsities in the same seeds, all of which are there.

    The sparsities are those that some seed has of all methods, and seeds that lack one are left out: of these the
    choice that keeps most students.
    """
    seeds = set.intersection(*({row.seed for row in rows} for rows in methods))
    there = {
        seed: frozenset.intersection(
            *(frozenset(row.teacher_sparsity for row in rows if row.seed == seed) for rows in methods)
        )
        for seed in seeds
    }

    def size(sparsities: frozenset[int]) -> tuple[int, list[int]]:
        return len(sparsities) * sum(sparsities <= other for other in there.values()), sorted(sparsities)

    kept = max(there.values(), key=size, default=frozenset())
    return [[r for r in rows if r.teacher_sparsity in kept and kept <= there.get(r.seed, set())] for rows in methods]


def points(by_seed: BySeed) -> dict[int, float]:
    """Seed -> 100 x the metric, the mean of its students."""
    return {seed: statistics.fmean(100 * row.value for row in rows) for seed, rows in by_seed.items()}


def unlike(ours: BySeed, theirs: BySeed) -> str:
    """In which settings of the recipe students of the same seed differ, in words; blank if in none."""
    values: dict[str, tuple] = {}  # of the first seed that differs
    for seed in sorted(ours.keys() & theirs.keys()):
        for mine, other in itertools.product(ours[seed], theirs[seed]):
            both = [name for name in mine.recipe if name in other.recipe]
            apart = {name: (mine.recipe[name], other.recipe[name]) for name in both}
            values = {name: pair for name, pair in apart.items() if pair[0] != pair[1]} | values
    return ", ".join(f"{name} {first} against {second}" for name, (first, second) in sorted(values.items()))
