"""Types of flags: each takes the text and says in one line what it expected."""

import argparse
import math
from collections.abc import Callable

MAX_LENGTH = 128  # tokens an example, unless told or the model takes fewer


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """An argparse type: an int or a float from low to high."""

    bounds = f"from {low} to {high}" if high < math.inf else f"of at least {low}"
    expected = f"{'an integer' if kind is int else 'a number'} {bounds}"

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or value == math.inf:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")
        return value

    return convert


def sparsity(text: str) -> int | None:
    """An argparse type: percent of units removed, 0 to 99; blank is none."""
    return int(number(int, 0, 99)(text)) if text.strip() else None


def layer_choice(text: str) -> str:
    """An argparse type: first, last, spaced, or ascending layers with commas between."""
    names = text.split(",")
    if text not in ("first", "last", "spaced") and not (
        all(name.isdigit() for name in names) and names == [str(n) for n in sorted({int(name) for name in names})]
    ):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected first, last, spaced, or layers as in 0,3,7,11")
    return text
