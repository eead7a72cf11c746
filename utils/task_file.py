"""The definition of an own task, which its task.json holds, checked.

{"text_columns": ["title", "body"], "label_column": "stars", "labels": ["1", "2", "3"], "metric": "acc"}
{"text_columns": ["text"], "label_column": "percent", "score_range": [0, 100], "metric": "corr"}
"""

from typing import Any

from utils.errors import InputError
from utils.metrics import metric_fault

KEYS = ({"text_columns", "label_column", "labels", "metric"}, {"text_columns", "label_column", "score_range", "metric"})
LARGEST = 1e300  # of a score_range, either side of 0


def check_definition(definition: Any, source: str) -> None:
    """Check that the content of a task.json defines a task.

    Args:
        definition: what the file holds.
        source: where it stands, for the message.

    Raises:
        InputError: something is missing, left over, or not what it has to be.
    """
    if not isinstance(definition, dict) or set(definition) not in KEYS:
        found = ", ".join(definition) if isinstance(definition, dict) else definition
        expected = "text_columns, label_column, metric, and labels or score_range"
        raise InputError(f"{source}: found {found or 'nothing'}, expected {expected}")

    text, label_column, metric = (definition[key] for key in ("text_columns", "label_column", "metric"))
    columns = [*text, label_column] if isinstance(text, list) else []
    if not are_names(columns) or len(columns) not in (2, 3):
        raise InputError(
            f"{source}: text_columns {text}, label_column {label_column}; expected one or two names and another one"
        )
    labels = definition.get("labels", [])
    if "labels" in definition and (not are_names(labels) or len(labels) < 2):
        raise InputError(f"{source}: labels {str(labels)[:200]}, expected at least two names in quotes, each once")
    if "score_range" in definition and not is_range(definition["score_range"]):
        raise InputError(f"{source}: score_range {definition['score_range']}, expected [lowest, highest]")
    fault = metric_fault(str(metric), labels)
    if fault:
        raise InputError(f"{source}: metric {metric}, {fault}")


def are_names(values: Any) -> bool:
    """Whether this is a list of different texts, each in one line and without white space around it."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return False
    return all(value.splitlines() == [value.strip()] for value in values) and len(set(values)) == len(values)


def is_range(ends: Any) -> bool:
    """Whether these are two finite numbers whose difference is finite, too, the lower one first."""
    are_two = isinstance(ends, list | tuple) and len(ends) == 2
    are_numbers = are_two and all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
    return are_numbers and -LARGEST < ends[0] < ends[1] < LARGEST
