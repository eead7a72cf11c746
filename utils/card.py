"""The model card (README.md) of a checkpoint: description, metrics, origin, flags."""

from typing import Any

from utils.paths import STAGES, script_name, sparsity_of
from utils.tasks import Task, task_of

NOT_SHOWN = ("inputs", "task", "num_processes", "stage", "task_name", "debug", "overwrite", "save_interval")


def model_card(folder: str, name: str, settings: dict[str, Any], config: Any, result: dict[str, Any]) -> str:
    """Text of the model card, in Markdown with the front matter that the Hugging Face hub reads.

    Args:
        folder: name of the run, such as kd_4_rte_0.5.
        name: name of the checkpoint, ckpt or ckpt_<teacher sparsity>.
        settings: settings of the run, as utils.settings.settings returns them.
        config: configuration of the model, with its layers and sparsity.
        result: content of the checkpoint's metrics.json; all of its keys are optional.
    """
    # what the checkpoint is, and its results; the table leaves out facts without a value
    task = task_of(settings)
    without_teacher = _has_no_teacher(settings)
    teacher_sparsity = sparsity_of(name)
    facts = [
        ("task", task.title if task.is_own else f"GLUE {task.title}"),
        *(_own_facts(task) if task.is_own else ()),
        ("encoder", config.model_type),
        ("layers", config.num_hidden_layers),
        ("heads and neurons removed", f"{getattr(config, 'sparsity', '0')} %"),
        ("teacher sparsity", None if teacher_sparsity is None else f"{teacher_sparsity} %"),
        ("teacher sparsities in turn", ", ".join(f"{s} %" for s in settings.get("teacher_schedule") or ()) or None),
        ("its teacher's logits divided by", result.get("spread_factor") and f"{result['spread_factor']:.3f}"),
        ("metrics", _format_metrics(result.get("report") or result.get("dev"))),
        ("its teacher's", None if without_teacher else _format_metrics(result.get("teacher"))),
        *((f"its teacher's at {s} %", _format_metrics(found)) for s, found in result.get("teachers", {}).items()),
        ("on rows", _format_rows(result)),
        ("rows without labels", result.get("unlabelled_rows")),
        ("answers to every row", result.get("only_answer")),
        ("dropped by --halving after update", result.get("dropped_at")),
        ("trained on processes", settings["num_processes"]),
        ("selected on", "half of dev, reported on the other" if settings["selection_split"] == "half" else "dev"),
    ]
    # the checkpoints that it was made from
    lineage = [
        (flag, f"`{settings[flag]}`, digest {digest}")
        for flag, digest in settings["inputs"].items()
        if flag in settings
    ]

    # the flags of the run; those of a layer-dropped student had no effect on a parameter-pruned one
    hidden = set(NOT_SHOWN)
    if settings.get("student_sparsity") is not None:
        hidden |= {"student_layer", "layer_choice"}
    flags = [(f"--{flag}", value) for flag, value in sorted(settings.items()) if flag not in hidden]
    return "\n".join(
        [
            _front_matter(config.model_type, task),
            f"# {folder}/{name}\n",
            f"This is {_description(settings, task)}.\n",
            *_table(("fact", ""), facts),
            "\nThe repository that made it loads it, cut or not: `from models import load_model`,",
            "or together with its tokenizer, to be called with texts: `from student import load_student`.\n",
            "## Where it comes from\n",
            *_table(("from", "what"), lineage),
            "\n## How it was made\n",
            *_table((script_name(settings["stage"]), ""), flags),
            "",
        ]
    )


def _has_no_teacher(settings: dict[str, Any]) -> bool:
    return settings["stage"] == "distillation" and settings["model_type"] == "ft"


def _description(settings: dict[str, Any], task: Task) -> str:
    """What the checkpoint is, in half a sentence."""
    if _has_no_teacher(settings):
        return f"a student for {task.title}, trained without a teacher"
    if settings.get("teacher_schedule"):
        return f"a student for {task.title}, distilled from sparse teachers in turn"
    return STAGES[settings["stage"]].description.format(task=task.title)


def _front_matter(model_type: str, task: Task) -> str:
    """What the hub reads; GLUE is English, which language an own task is in is not known."""
    if task.is_own:
        return f"---\ntags: [{model_type}, knowledge-distillation, pruning]\n---\n"
    return f"---\nlanguage: en\ntags: [{model_type}, glue, knowledge-distillation, pruning]\n---\n"


def _own_facts(task: Task) -> list[tuple[str, str | None]]:
    """What an own task reads and predicts."""
    lowest, highest = task.score_range
    return [
        ("reads", ", ".join(task.text)),
        ("predicts", task.label_column),
        ("classes", ", ".join(task.labels) or None),
        ("scores", None if task.labels else f"from {lowest:g} to {highest:g}"),
    ]


def _format_metrics(metrics: dict[str, float] | None) -> str | None:
    if not metrics:
        return None
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _format_rows(result: dict[str, Any]) -> str | None:
    """The number of rows that the metrics are of, with the share of the commoner class, the accuracy of guessing."""
    if "rows" not in result:
        return None
    if "commoner_class" not in result:
        return str(result["rows"])
    return f"{result['rows']}, {100 * result['commoner_share']:.2f} % {result['commoner_class']}"


def _table(header: tuple[str, str], rows: list[tuple[str, Any]]) -> list[str]:
    """A Markdown table of two columns, without the rows whose value is None."""
    lines = [f"| {key} | {_escaped(value)} |" for key, value in rows if value is not None]
    return [f"| {header[0]} | {header[1]} |", "|---|---|", *lines]


def _escaped(value: Any) -> str:
    """A cell's text, in which a label may hold the table's separator."""
    return str(value).replace("|", "\\|")
