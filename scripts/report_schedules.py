"""Students of several sparse teachers in turn in the tables of scripts/report.py, each schedule being a method."""

from collections.abc import Iterator

from scripts import report_data as data


def methods_of(rows: list[data.Row]) -> list[str]:
    """Those whose students learnt from several sparse teachers in turn, which have no sparsity of their own."""
    others = (data.TEACHER, data.ALONE, data.TRIAL)
    return sorted({row.method for row in rows if row.teacher_sparsity is None and row.method not in others})


def pairs(
    rows: list[data.Row], swept: dict[str, dict[str, dict[int, float]]], dense: dict[int, float]
) -> Iterator[tuple[str, str, dict[int, float], str, dict[int, float]]]:
    """What a schedule's students are held against, as comparisons (score, schedule, values, against, values).

    The dense teacher's, the best of the same score's at one sparsity, and those of randomly cut teachers in the same
    turns; values are seed -> 100 x the metric.

    Args:
        rows: of one task and student.
        swept: score -> choice of its students at one sparsity -> values.
        dense: values of the dense teacher's.
    """
    found = {name: {row.seed: 100 * row.value for row in rows if row.method == name} for name in methods_of(rows)}
    for name, values in found.items():
        score, schedule = name.split(", ", 1)
        yield score, schedule, values, "dense", dense
        if score in swept:
            yield score, schedule, values, f"{score}, best", swept[score]["best"]
        random = f"random, {schedule}"
        if random in found and random != name:
            yield score, schedule, values, random, found[random]
