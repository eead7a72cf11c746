"""What scripts/report.py knows: every run under some folders, as rows, means over seeds, and paired comparisons."""

import argparse
import csv
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from utils.arguments import inside_weights
from utils.errors import InputError
from utils.files import read_json, written_beside
from utils.glue import TASKS

SETTINGS = (
    ("model_path", "num_train_epochs", "num_patience_epochs", "log_interval", "per_device_train_batch_size")
    + ("learning_rate", "temperature", "alpha", "use_bf16", "use_fp16", "num_processes", "hardware", "cpu_threads")
    + ("torch_version", "transformers_version", "git_commit")
)
Run = tuple[Path, dict[str, Any], dict[str, Any]]  # folder, args.json, metrics.json
TEACHER, ALONE, TRIAL = "the teacher itself", "no teacher", "dense teacher"


@dataclass(frozen=True)
class Row:
    """One number: what a model came to, and how it was made."""

    task: str
    student: str  # "3 layers", "70 % pruned"; blank for a teacher
    method: str  # TEACHER, ALONE, TRIAL, "lam 0.5", "random"
    teacher_sparsity: int | None  # percent; None where no sparse teacher took part
    seed: int
    metric: str
    value: float
    selecting: float  # the same metric on the rows that weights and sparsity were selected on
    teacher_value: float | None
    selected_on: str  # "dev" or "half of dev"
    seconds: float | None
    folder: str


class Mean(NamedTuple):
    """Over seeds."""

    mean: float
    deviation: float | None  # sample standard deviation; None of a single seed
    seeds: int


class Comparison(NamedTuple):
    """Of two methods over the same seeds."""

    difference: float  # mean
    low: float | None  # of the 95 % interval of Student's t; None of a single seed and of equal differences
    high: float | None
    better: int  # seeds in which the first was
    worse: int
    sign_p: float  # two-sided sign test, ties left out
    seeds: int


def runs(roots: Iterable[Path]) -> Iterator[Run]:
    """Folder, args.json and metrics.json of every finished run below these folders.

    Raises:
        InputError: there is no metrics.json below one of them.
    """
    for root in roots:
        folders = [path.parent for path in sorted(root.rglob("args.json")) if (path.parent / "metrics.json").is_file()]
        if not folders:
            raise InputError(f"{root}: no metrics.json below it, expected the output folder of a run or of a sweep")
        for folder in folders:
            yield folder, read_json(folder / "args.json"), read_json(folder / "metrics.json")


def collect(found: Iterable[Run]) -> list[Row]:
    """The rows of these runs.

    Raises:
        InputError: two are the same but for other settings, and would count as two seeds.
    """
    rows = [row for run in found for row in _rows(*run)]
    places: dict[tuple, Row] = {}
    for row in rows:
        same = places.setdefault((row.task, row.student, row.method, row.teacher_sparsity, row.seed), row)
        if same is not row:
            raise InputError(
                f"{same.folder} and {row.folder}: both {row.task}, {row.student or row.method}, {row.method}, seed "
                f"{row.seed}; expected one of them: name the folders to report on"
            )
    return rows


def with_dense_ends(rows: list[Row]) -> list[Row]:
    """The rows, and for each method without one at 0 % another method's: whatever sorted it, that teacher is dense."""
    swept = [row for row in rows if row.teacher_sparsity is not None]
    dense = {(row.task, row.student, row.seed): row for row in swept if row.teacher_sparsity == 0}
    there = {(row.task, row.student, row.seed, row.method) for row in swept if row.teacher_sparsity == 0}
    lacking = dict.fromkeys((row.task, row.student, row.seed, row.method) for row in swept).keys() - there
    return rows + [replace(dense[key[:3]], method=key[3]) for key in sorted(lacking) if key[:3] in dense]


def settings(found: Iterable[Run]) -> dict[str, dict[str, list]]:
    """What these runs were made with: task -> setting -> all its values; and the hours they took together.

    Hours are those of scoring, training and asking teachers, without loading.
    """
    tasks: dict[str, dict[str, list]] = {}
    for _, args, metrics in found:
        mine = tasks.setdefault(args["task_name"], {"hours": [0.0]})
        parts = metrics.get("sparsity", {}).values() if "best_teacher_sparsity" in metrics else [metrics]
        known = [
            part.get("train_seconds", part.get("seconds", 0.0)) + part.get("teacher_seconds", 0.0) for part in parts
        ]
        mine["hours"][0] += sum(known) / 3600
        for name in SETTINGS:
            own = name != "model_path" or args.get("stage") == "finetuning"  # where it all begins
            if name in args and own and args[name] not in mine.setdefault(name, []):
                mine[name].append(args[name])
    return tasks


def _rows(folder: Path, args: dict[str, Any], metrics: dict[str, Any]) -> list[Row]:
    name = TASKS[args["task_name"]].metric

    def row(method: str, result: dict, sparsity: int | None = None) -> Row:
        teacher = result.get("teacher")
        return Row(
            task=args["task_name"],
            student=_student(args) if method != TEACHER else "",
            method=method,
            teacher_sparsity=sparsity,
            seed=args["seed"],
            metric=name,
            value=result.get("report", result["dev"])[name],
            selecting=result["dev"][name],
            teacher_value=teacher and teacher[name],
            selected_on="half of dev" if args.get("selection_split") == "half" else "dev",
            seconds=result.get("train_seconds"),
            folder=str(folder),
        )

    if "best_teacher_sparsity" in metrics:
        score = args.get("score", "knowledgeable")
        method = f"lam {args['lam']:g}" if score == "knowledgeable" else score
        return [row(method, result, int(sparsity)) for sparsity, result in metrics["sparsity"].items()]
    if "dev" not in metrics:  # stages 2 and 4 train nothing
        return []
    if "teacher" in metrics:
        return [row(ALONE if args["model_type"] == "ft" else TRIAL, metrics)]
    return [row(TEACHER, metrics)]


def _student(args: dict[str, Any]) -> str:
    weights = inside_weights(argparse.Namespace(**args))
    inside = "".join(f" + {weight:g} {name}" for name, weight in weights.items())
    if args.get("student_sparsity") is not None:
        return f"{args['student_sparsity']} % pruned{inside}"
    choice = args.get("layer_choice", "first")
    return f"{args['student_layer']} layers{'' if choice == 'first' else f' ({choice})'}{inside}"


def mean_over_seeds(values: Iterable[float]) -> Mean | None:
    """Mean and sample standard deviation; None of nothing."""
    values = list(values)
    if not values:
        return None
    return Mean(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def best_by_seed(rows: Iterable[Row]) -> dict[int, Row]:
    """Of each seed the row with the best metric on the selecting rows; of equals the lowest sparsity."""
    best: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: row.teacher_sparsity or 0):
        if row.seed not in best or row.selecting > best[row.seed].selecting:
            best[row.seed] = row
    return best


def compare(ours: dict[int, float], theirs: dict[int, float]) -> Comparison | None:
    """Paired over the seeds that both have: seed -> value; None if there is none."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if not differences:
        return None
    mean, low, high = statistics.fmean(differences), None, None
    if len(differences) > 1 and (error := stats.sem(differences)) > 0:
        low, high = (float(end) for end in stats.t.interval(0.95, len(differences) - 1, mean, error))
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    sign = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    return Comparison(mean, low, high, better, worse, float(sign), len(differences))


def write_csv(path: Path, rows: list[Row]) -> None:
    """One line a number."""
    with written_beside(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(Row.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
