"""Students of several sparse teachers in turn, or of another spread, in the tables of scripts/report.py.

Each schedule and each spread is a method of its own, which has no sparsity.
"""

import re
from collections.abc import Iterator

from scripts import report_data as data
from scripts.report_choices import BySeed


def methods_of(rows: list[data.Row]) -> list[str]:
    """Those whose students did not learn from the plain logits of one sparse teacher."""
    return sorted({row.method for row in rows if row.variant})


def pairs(
    rows: list[data.Row], swept: dict[str, dict[str, BySeed]], dense: BySeed
) -> Iterator[tuple[str, str, str, BySeed, BySeed]]:
    """What such students are held against, as comparisons (score, choice, against, students, students).

    All against the dense teacher's, and against those of randomly cut teachers treated alike; a schedule's against the
    best of the same score's at one sparsity; those of the teacher that lent its spread against those that took it.

    Args:
        rows: of one task and student.
        swept: score -> choice of its students at one sparsity -> students by seed.
        dense: students of the dense teacher by seed.
    """
    found = {name: {row.seed: [row] for row in rows if row.method == name} for name in methods_of(rows)}
    variant_of = {row.method: row.variant for row in rows}
    for name, students in found.items():
        variant = variant_of[name]
        score = name.removesuffix(f", {variant}")
        choices = swept.get(score, {})
        yield score, variant, "dense", students, dense
        spread = re.search(r"(\d+ %)'s spread", variant)
        if spread and spread[1] in choices:
            yield score, spread[1], name, choices[spread[1]], students
        elif choices and not spread:
            yield score, variant, f"{score}, best", students, choices["best"]
        random = f"random, {variant}"
        if random in found and random != name:
            yield score, variant, random, students, found[random]
