"""The parser of all scripts, and types of flags: functions of the text, which raise ArgumentTypeError."""

import argparse
import math
from collections.abc import Callable

MAX_LENGTH = 128  # default of --max_length, in tokens; less where the model takes fewer


class Help(argparse.RawDescriptionHelpFormatter):
    """A help formatter that appends the default of a flag, unless its help text names one already."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.default in (None, False, argparse.SUPPRESS) or "default" in text or not action.option_strings:
            return text
        return f"{text} (default %(default)s)".lstrip()


class Parser(argparse.ArgumentParser):
    """An argument parser with errors in one line, no abbreviated flags, --debug, and checks across flags."""

    def __init__(self, description: str | None):
        super().__init__(description=description, formatter_class=Help, allow_abbrev=False)
        self.add_argument("--debug", action="store_true", help="show an error's traceback (default: one line)")
        self.checks: list[Callable[[argparse.Namespace], None]] = []  # run by parse(); each calls error() on bad flags

    def error(self, message: str) -> None:
        """Print the message in one line, without the usage, and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """An argparse type: an int or a float from `low` to `high`, both included."""
    noun = "an integer" if kind is int else "a number"
    expected = f"{noun} from {low} to {high}" if high < math.inf else f"{noun} of at least {low}"

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or value == math.inf:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")
        return value

    return convert


COUNT = number(int, 1)


def sparsity(text: str) -> int | None:
    """An argparse type: percent of units removed, 0 to 99; None if blank."""
    return int(number(int, 0, 99)(text)) if text.strip() else None


def layer_choice(text: str) -> str:
    """An argparse type: first, last, spaced, or ascending layers separated by commas."""
    if text in ("first", "last", "spaced"):
        return text
    layers = text.split(",")
    if all(layer.isdigit() for layer in layers):
        ascending = [str(layer) for layer in sorted({int(layer) for layer in layers})]
        if layers == ascending:
            return text
    raise argparse.ArgumentTypeError(f"found {text!r}, expected first, last, spaced, or layers as in 0,3,7,11")
