"""Numbers as people read them: tables on a terminal."""

from collections.abc import Iterable, Iterator
from typing import Any

from utils.paths import CHECKPOINT


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Right-aligned columns under a header; floats with four decimals, None as -."""
    cells = [list(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def footnotes(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What has to be known to read the numbers, a line each: rows, the commoner class, models that always answer it.

    Args:
        results: name of a checkpoint -> its metrics.json.
    """
    first = next(iter(results.values()), {})
    if "rows" in first:
        commoner = first.get("commoner_class")
        share = f", {100 * first['commoner_share']:.2f} % of them {commoner}" if commoner else ""
        yield f"metrics are of {first['rows']} rows{share}"
    for name, result in results.items():
        if answer := result.get("only_answer"):
            yield f"{name} answers {answer} to every row"


def diverged_of(results: dict[str, dict[str, Any]]) -> str | None:
    """Which checkpoints' training diverged, and how; None if none did.

    Args:
        results: name of a checkpoint -> its metrics.json.
    """
    found = {name: result["diverged"] for name, result in results.items() if result.get("diverged")}
    return "; ".join(why if name == CHECKPOINT else f"{name}: {why}" for name, why in found.items()) or None
