"""Tables of results for the terminal, and the notes below them."""

from collections.abc import Iterable, Iterator
from typing import Any

from utils.paths import CHECKPOINT


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Text of a table with right-aligned columns; floats have four decimals, None is -."""
    cells = [list(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def footnotes(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Notes below a table of results: number of rows, share of the commoner class, models with constant predictions.

    Args:
        results: name of a checkpoint -> its metrics.json.
    """
    first = next(iter(results.values()), {})
    if "rows" in first:
        commoner = first.get("commoner_class")
        share = f", {100 * first['commoner_share']:.2f} % of them {commoner}" if commoner else ""
        yield f"metrics are of {first['rows']} rows{share}"
    for name, result in results.items():
        answer = result.get("only_answer")
        if answer:
            yield f"{name} answers {answer} to every row"


def diverged_of(results: dict[str, dict[str, Any]]) -> str | None:
    """The checkpoints whose training diverged and the reasons, in one line; None if there are none.

    Args:
        results: name of a checkpoint -> its metrics.json.
    """
    reasons = {name: result["diverged"] for name, result in results.items() if result.get("diverged")}
    lines = [reason if name == CHECKPOINT else f"{name}: {reason}" for name, reason in reasons.items()]
    return "; ".join(lines) or None
