"""The students of a model that fit into a budget of parameters or milliseconds, for inspect_model.py --budget.

budget = parse_budget("5M")                               # or 800k, 5_000_000, 20ms
sizes = measure_students(model, milliseconds, is_timed)   # every --student_layer and --student_sparsity
largest(sizes, budget)                                    # of each kind the largest that fits
"""

import argparse
import math
import re
from collections.abc import Callable
from typing import NamedTuple

from models.encoder import PrunableEncoder
from models.pruning import initial_student
from utils.errors import InputError
from utils.log import progress
from utils.tables import table

UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}


class Budget(NamedTuple):
    """What a student may cost at most."""

    text: str  # as it was given
    parameters: float = math.inf  # without embeddings
    milliseconds: float = math.inf  # of a forward pass

    @property
    def is_time(self) -> bool:
        """Whether it is one of milliseconds."""
        return self.milliseconds < math.inf


class Size(NamedTuple):
    """What a student costs."""

    flag: str  # that chooses it: --student_layer or --student_sparsity
    value: int
    parameters: int  # without embeddings
    milliseconds: float | None  # None if it was not timed

    def fits(self, budget: Budget) -> bool:
        """Whether it costs no more than this."""
        return self.parameters <= budget.parameters and (self.milliseconds or 0) <= budget.milliseconds

    def __str__(self) -> str:
        timed = "" if self.milliseconds is None else f", {self.milliseconds:.2f} ms"
        return f"{self.flag} {self.value} ({self.parameters:,} parameters{timed})"


def parse_budget(text: str) -> Budget:
    """An argparse type: a number of parameters, such as 5M, 800k or 5_000_000, or of milliseconds, such as 20ms."""
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?) ?(ms|k|M|B)?", text.strip())
    amount = float(match[1].replace("_", "")) if match else 0.0
    if not amount:
        expected = "parameters as in 5M, 800k or 5_000_000, or milliseconds as in 20ms"
        raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")
    if match[2] == "ms":
        return Budget(text, milliseconds=amount)
    return Budget(text, parameters=amount * UNITS[match[2] or ""])


def parameters(model: PrunableEncoder) -> tuple[int, int]:
    """How many parameters the embeddings have, and all the rest."""
    embeddings = sum(parameter.numel() for parameter in model.embeddings.parameters())
    return embeddings, model.num_parameters() - embeddings


def measure_students(
    model: PrunableEncoder, milliseconds: Callable[[PrunableEncoder], float], is_timed: bool
) -> list[Size]:
    """The sizes of all layer-dropped students, and of all parameter-pruned ones if the model is sorted.

    Args:
        model: the students' source, not changed.
        milliseconds: how long a student takes.
        is_timed: whether that is asked for.
    """
    choices = [("--student_layer", layers) for layers in range(1, len(model.layers) + 1)]
    choices += [("--student_sparsity", sparsity) for sparsity in sparsities(model)]
    sizes = []
    for flag, value in progress(choices, total=len(choices), desc="measuring", unit="student"):
        student = initial_student(model, value, value if flag == "--student_sparsity" else None)
        timed = milliseconds(student) if is_timed else None
        sizes.append(Size(flag, value, parameters(student)[1], timed))
    return sizes


def sparsities(model: PrunableEncoder) -> list[int]:
    """The sparsities (percent) that a sorted model can be cut at, ascending; [] if it is not sorted."""
    return sorted(map(int, getattr(model.config, "sparsity_map", None) or {}))


def students_table(sizes: list[Size], budget: Budget) -> str:
    """A table of all students, those that fit into the budget marked."""
    header = ["student", "value", "parameters", "ms", "fits"]
    rows = []
    for size in sizes:
        timed = None if size.milliseconds is None else f"{size.milliseconds:.2f}"
        rows.append((size.flag, size.value, f"{size.parameters:,}", timed, "yes" if size.fits(budget) else "no"))
    return table(header, rows)


def largest(sizes: list[Size], budget: Budget) -> list[str]:
    """For each kind of student the largest that fits into the budget, in words.

    Raises:
        InputError: none fits; the message names the smallest of each kind.
    """
    by_flag = {flag: [size for size in sizes if size.flag == flag] for flag, *_ in sizes}
    smallest = {flag: min(some, key=lambda size: size.parameters) for flag, some in by_flag.items()}
    if not any(size.fits(budget) for size in sizes):
        found = " and ".join(map(str, smallest.values()))
        unit = "" if budget.is_time else " parameters"
        raise InputError(f"--budget {budget.text}{unit}: no student fits; the smallest are {found}")
    lines = []
    for flag, some in by_flag.items():
        fitting = [size for size in some if size.fits(budget)]
        lines.append(
            str(max(fitting, key=lambda size: size.parameters))
            if fitting
            else f"no {flag} fits, the smallest is {smallest[flag]}"
        )
    return lines
