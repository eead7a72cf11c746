"""The data of scripts/report.py: every run under some folders, as rows, and their means over seeds."""

import argparse
import csv
import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from models.layer_losses import INTERMEDIATE_LOSSES
from scripts.report_costs import costs_of
from utils.arguments import intermediate_weights
from utils.errors import InputError
from utils.files import checkpoint_digest, written_beside
from utils.folder import run_folders
from utils.paths import checkpoint_name, sparsity_of
from utils.settings import OF_TEACHERS, RECIPE, recipe_of
from utils.tasks import task_of

MACHINE = ("num_processes", "hardware", "cpu_threads", "torch_version", "transformers_version", "git_commit")
SETTINGS = ("seed", "model_path", *RECIPE, "unlabelled", "score_split", "halving", *MACHINE)
TEACHER, ALONE, TRIAL = "the teacher itself", "no teacher", "dense teacher"


class Checkpoint(NamedTuple):
    """A finished checkpoint: where it is, and what it says of itself."""

    folder: Path  # of the run
    name: str  # ckpt or ckpt_<teacher sparsity>
    args: dict[str, Any]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One number: what a model came to, and how it was made."""

    task: str
    student: str  # "3 layers", "70 % pruned"; blank for a teacher
    method: str  # TEACHER, ALONE, TRIAL, "lam 0.5", "random", or a score and, after a comma, a variant
    variant: str  # "60 30 0 % in turn", "0 % of 30 %'s spread"; blank where it learnt from one teacher's plain logits
    teacher_sparsity: int | None  # percent; None where no sparse teacher took part, or several did
    seed: int
    metric: str
    value: float
    dev_select: float  # --selection_metric on the rows that weights and sparsity were selected on
    teacher_value: float | None
    selected_on: str  # "dev" or "half of dev"
    seconds: float | None
    rows: int | None  # that the value is of; None of checkpoints that do not say
    commoner_share: float | None  # of the commonest class among them; None of regression
    only_answer: str | None  # what the model says to every row; None if it tells rows apart
    diverged: str | None  # where and how training did
    dropped_at: int | None  # the update at which --halving ended its training
    parameters: int | None  # of this model; None where config.json is gone
    macs: int | None  # for an example of report_costs.LENGTH tokens
    recipe: dict[str, Any]  # RECIPE's settings that it was trained with, BATCH as examples_per_update
    folder: str

    @property
    def is_swept(self) -> bool:
        """Whether it learnt from the plain logits of one sparse teacher."""
        return self.teacher_sparsity is not None and not self.variant

    @property
    def checkpoint(self) -> Path:
        """The folder of the model's checkpoint, whose weights may be gone."""
        return Path(self.folder, checkpoint_name(self.teacher_sparsity))


class Mean(NamedTuple):
    """Over seeds."""

    mean: float
    deviation: float | None  # sample standard deviation; None of a single seed
    seeds: int


def checkpoints(roots: Iterable[Path]) -> Iterator[Checkpoint]:
    """Every finished checkpoint below these folders; one that is being made again is none until it is there.

    Raises:
        InputError: there is none below one of them.
    """
    for root in roots:
        found = [
            Checkpoint(folder.path, name, folder.settings(name), result)
            for folder in run_folders(root)
            for name, result in folder.results().items()
            if folder.settings(name)
        ]
        if not found:
            raise InputError(
                f"{root}: no metrics.json below it of a finished checkpoint, expected the output folder of a run or of "
                "a sweep"
            )
        yield from found


def collect(found: Iterable[Checkpoint]) -> list[Row]:
    """The rows of these checkpoints.

    Raises:
        InputError: two are the same but for other settings, and would count as two seeds; or an own task is defined in
            two ways, whose metrics are not to be compared.
    """
    found = list(found)
    _check_definitions(found)
    rows = [row for checkpoint in found if (row := _row(*checkpoint))]
    places: dict[tuple, Row] = {}
    for row in rows:
        same = places.setdefault((row.task, row.student, row.method, row.teacher_sparsity, row.seed), row)
        if same is not row:
            raise InputError(
                f"{same.folder} and {row.folder}: both {row.task}, {row.student or row.method}, {row.method}, seed "
                f"{row.seed}; expected one of them: name the folders to report on"
            )
    return rows


def _check_definitions(found: list[Checkpoint]) -> None:
    """Raise InputError if two checkpoints of an own task had different definitions of it."""
    first: dict[str, Checkpoint] = {}
    for checkpoint in found:
        name = checkpoint.args["task_name"]
        other = first.setdefault(name, checkpoint)
        if checkpoint.args.get("task") != other.args.get("task"):
            raise InputError(
                f"{other.folder} and {checkpoint.folder}: two tasks of the name {name}, whose task.json differ; name "
                "the folders to report on"
            )


def with_dense_ends(rows: list[Row]) -> list[Row]:
    """The rows, and for each method without one at 0 % another method's: whatever sorted it, that teacher is dense."""
    swept = [row for row in rows if row.is_swept]
    halved = {(row.task, row.student, row.method) for row in swept if row.dropped_at is not None}
    whole = [row for row in swept if row.teacher_sparsity == 0 and (row.task, row.student, row.method) not in halved]
    dense = {(row.task, row.student, row.seed): row for row in whole}
    there = {(row.task, row.student, row.seed, row.method) for row in swept if row.teacher_sparsity == 0}
    lacking = dict.fromkeys((row.task, row.student, row.seed, row.method) for row in swept).keys() - there
    return rows + [replace(dense[key[:3]], method=key[3]) for key in sorted(lacking) if key[:3] in dense]


def settings(found: Iterable[Checkpoint]) -> dict[str, dict[str, list]]:
    """The settings of these runs: task -> setting -> all its values; and the hours that they took together.

    Hours are those of scoring, training and computing teachers' logits, without loading.
    """
    tasks: dict[str, dict[str, list]] = {}
    for _, _, args, metrics in found:
        mine = tasks.setdefault(args["task_name"], {"rows": [], "hours": [0.0]})
        seconds = metrics.get("train_seconds", metrics.get("seconds", 0.0)) + metrics.get("teacher_seconds", 0.0)
        mine["hours"][0] += seconds / 3600
        rows = [metrics["rows"]] if "rows" in metrics else []
        mine["rows"] += [count for count in rows if count not in mine["rows"]]
        for name in SETTINGS:
            own = name != "model_path" or args.get("stage") == "finetuning"  # where it all begins
            if name in args and own and args[name] not in mine.setdefault(name, []):
                mine[name].append(args[name])
    return tasks


def sparse_teacher(run: Path, args: dict) -> Path | None:
    """The checkpoint that a rewinding run with these settings read as its teacher, known by its content; or none."""
    parts = run.absolute().parts
    beside = Path(*parts[:-3], "stark", *parts[-2:], "ckpt")
    digest = args.get("inputs", {}).get("teacher_model_path")
    for teacher in (beside, Path(args["teacher_model_path"])):
        if (teacher / "scores.safetensors").is_file() and checkpoint_digest(teacher) == digest:
            return teacher
    return None


def _row(folder: Path, name: str, args: dict[str, Any], metrics: dict[str, Any]) -> Row | None:
    """The number that a checkpoint stands for; None of stages 2 and 4, which train nothing."""
    if "dev" not in metrics:
        return None
    metric = task_of(args).metric
    teacher = metrics.get("teacher")
    method, variant = _method(name, args, metrics), _variant(name, args)
    costs = costs_of(folder / name)
    return Row(
        task=args["task_name"],
        student=_student(args, metrics) if method != TEACHER else "",
        method=f"{method}, {variant}" if variant else method,
        variant=variant,
        teacher_sparsity=None if args.get("teacher_schedule") else sparsity_of(name),
        seed=args["seed"],
        metric=metric,
        value=metrics.get("report", metrics["dev"])[metric],
        dev_select=metrics["dev"][args.get("selection_metric") or metric],
        teacher_value=teacher and teacher[metric],
        selected_on="half of dev" if args.get("selection_split") == "half" else "dev",
        seconds=metrics.get("train_seconds"),
        rows=metrics.get("rows"),
        commoner_share=metrics.get("commoner_share"),
        only_answer=metrics.get("only_answer"),
        diverged=metrics.get("diverged"),
        dropped_at=metrics.get("dropped_at"),
        parameters=costs and costs.parameters,
        macs=costs and costs.macs,
        recipe=_recipe(args),
        folder=str(folder),
    )


def _recipe(args: dict[str, Any]) -> dict[str, Any]:
    left_out = OF_TEACHERS if args.get("model_type") == "ft" else ()
    return {name: value for name, value in recipe_of(args).items() if name not in left_out}


def _method(name: str, args: dict[str, Any], metrics: dict[str, Any]) -> str:
    if args.get("teacher_schedule") or sparsity_of(name) is not None:
        score = args.get("score", "knowledgeable")
        return f"lam {args['lam']:g}" if score == "knowledgeable" else score
    if "teacher" not in metrics:
        return TEACHER
    return ALONE if args["model_type"] == "ft" else TRIAL


def _variant(name: str, args: dict[str, Any]) -> str:
    if schedule := args.get("teacher_schedule"):
        return f"{' '.join(map(str, schedule))} % in turn"
    spread = args.get("match_spread")
    return "" if spread is None else f"{sparsity_of(name)} % of {spread} %'s spread"


def _student(args: dict[str, Any], metrics: dict[str, Any]) -> str:
    weights = intermediate_weights(argparse.Namespace(**args), INTERMEDIATE_LOSSES)
    further = "".join(f" + {weight:g} {name}" for name, weight in weights.items())
    if rows := metrics.get("unlabelled_rows"):
        further += f" + {rows} unlabelled rows"
    if args.get("student_sparsity") is not None:
        return f"{args['student_sparsity']} % pruned{further}"
    choice = args.get("layer_choice", "first")
    return f"{args['student_layer']} layers{'' if choice == 'first' else f' ({choice})'}{further}"


def mean_over_seeds(values: Iterable[float]) -> Mean | None:
    """Mean and sample standard deviation; None of nothing."""
    values = list(values)
    if not values:
        return None
    return Mean(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def trained_to_the_end(rows: Iterable[Row]) -> list[Row]:
    """Those that --halving has not dropped, whose numbers alone can be compared."""
    return [row for row in rows if row.dropped_at is None]


def best_by_seed(rows: Iterable[Row]) -> dict[int, Row]:
    """For each seed the row with the best metric on dev_select; of several that tie, the lowest sparsity."""
    best: dict[int, Row] = {}
    for row in sorted(trained_to_the_end(rows), key=lambda row: row.teacher_sparsity or 0):
        if row.seed not in best or row.dev_select > best[row.seed].dev_select:
            best[row.seed] = row
    return best


def tied_seeds(rows: Iterable[Row]) -> int:
    """In how many seeds several teacher sparsities share the best metric on dev_select."""
    rows = trained_to_the_end(rows)
    tied = 0
    for best in best_by_seed(rows).values():
        tied += sum(row.seed == best.seed and row.dev_select == best.dev_select for row in rows) > 1
    return tied


def write_csv(path: Path, rows: list[Row]) -> None:
    """One line a number."""
    with written_beside(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(Row.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(row), "recipe": json.dumps(row.recipe)} for row in rows)
