"""The README.md of a checkpoint: what it is, what it came to, where it comes from, how it was made."""

from typing import Any

from utils.paths import STAGES, script_name, sparsity_of
from utils.tasks import TASKS

NOT_SHOWN = ("inputs", "num_processes", "stage", "task_name", "debug", "overwrite", "save_interval")


def model_card(folder: str, name: str, settings: dict[str, Any], config: Any, result: dict[str, Any]) -> str:
    """Markdown with the front matter that the hub reads.

    Args:
        folder: the run's name, kd_4_rte_0.5.
        name: of the checkpoint, ckpt or ckpt_<teacher sparsity>.
        settings: as utils.settings.settings gives them.
        config: the model's, for its layers and sparsity.
        result: what the checkpoint's metrics.json says, as far as it does: "report" or "dev", "teacher", "rows".
    """
    task = TASKS[settings["task_name"]].title
    description = STAGES[settings["stage"]].description.format(task=task)
    teacher_sparsity = sparsity_of(name)
    facts = [
        ("task", f"GLUE {task}"),
        ("layers", config.num_hidden_layers),
        ("heads and neurons removed", f"{getattr(config, 'sparsity', '0')} %"),
        ("teacher sparsity", None if teacher_sparsity is None else f"{teacher_sparsity} %"),
        ("metrics", _numbers(result.get("report") or result.get("dev"))),
        ("its teacher's", _numbers(result.get("teacher"))),
        ("on rows", _rows(result)),
        ("answers to every row", result.get("only_answer")),
        ("trained on processes", settings["num_processes"]),
        ("selected on", "half of dev, reported on the other" if settings["selection_split"] == "half" else "dev"),
    ]
    lineage = [
        (flag, f"`{settings[flag]}`, digest {digest}")
        for flag, digest in settings["inputs"].items()
        if flag in settings
    ]
    other_students = ("student_layer", "layer_choice") if settings.get("student_sparsity") is not None else ()
    flags = [
        (f"--{flag}", value)
        for flag, value in sorted(settings.items())
        if flag not in NOT_SHOWN and flag not in other_students
    ]
    return "\n".join(
        [
            "---\nlanguage: en\ntags: [bert, glue, knowledge-distillation, pruning]\n---\n",
            f"# {folder}/{name}\n",
            f"This is {description}.\n",
            *_table(("fact", ""), facts),
            "\nIt is loaded with `PrunableBert.from_pretrained` of the repository that made it, cut or not.\n",
            "## Where it comes from\n",
            *_table(("from", "what"), lineage),
            "\n## How it was made\n",
            *_table((script_name(settings["stage"]), ""), flags),
            "",
        ]
    )


def _numbers(metrics: dict[str, float] | None) -> str | None:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()) if metrics else None


def _rows(result: dict[str, Any]) -> str | None:
    """How many rows the metrics are of, and what share of them one gets right without reading."""
    if "rows" not in result:
        return None
    share = f", {100 * result['commoner_share']:.2f} % {result['commoner_class']}" if "commoner_class" in result else ""
    return f"{result['rows']}{share}"


def _table(header: tuple[str, str], rows: list[tuple[str, Any]]) -> list[str]:
    """Of the rows that have a value."""
    lines = [f"| {key} | {value} |" for key, value in rows if value is not None]
    return [f"| {header[0]} | {header[1]} |", "|---|---|", *lines]
