"""Flag groups shared by the five scripts, their checks, and what the scripts make of them.

A script builds its parser from the groups it needs and calls `parse`; a flag that a script does not know is an error.
"""

import argparse

import torch

from utils.flags import layer_choice, number, sparsity
from utils.metrics import NAMES
from utils.tasks import TASKS, task_folder
from utils.trackers import TRACKERS
from utils.training import Recipe

SCORES = ("knowledgeable", "expressive", "friendly", "random", "magnitude")
SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
POLYNOMIAL_END = 1e-7  # learning rate at the end of transformers' polynomial schedule
MAX_LENGTH = 128


class Parser(argparse.ArgumentParser):
    """Flags spelled in full, errors in one line."""

    def error(self, message: str) -> None:
        """Print the message alone and leave with exit status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def argument_parser(doc: str, stage: str, model_types: tuple[str, ...]) -> Parser:
    """A parser with the flags that all stages have; `model_types` are the stage's, the default first."""
    parser = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.set_defaults(stage=stage)
    add = parser.add_argument_group("task and data").add_argument
    add("--task_name", choices=tuple(TASKS), default="rte", help="GLUE task (default rte)")
    add("--data_dir", default="datasets", help="folder that holds the tasks' folders of TSV files (default datasets)")
    add("--data_type", choices=("combined",), default="combined", help="both sentences in one sequence (default)")
    add(
        "--max_length",
        type=number(int, 4),
        default=MAX_LENGTH,
        help="tokens per example, more are cut (default 128, or what the model takes)",
    )
    add("--max_train_examples", type=number(int, 1), help="first so many rows of train (default all)")
    add("--max_eval_examples", type=number(int, 1), help="first so many rows of dev and test (default all)")
    add(
        "--selection_split",
        choices=("dev", "half"),
        default="dev",
        help="what selects and scores: dev, as in the paper, or a fixed half of it; the other reports (default dev)",
    )
    add("--per_device_eval_batch_size", type=number(int, 1), default=32, help="examples (default 32)")
    add = parser.add_argument_group("model and machine").add_argument
    add(
        "--model_type",
        choices=model_types,
        default=model_types[0],
        help=f"ft: task loss, kd: distillation (default {model_types[0]})",
    )
    add("--seed", type=number(int, 0, 2**32 - 1), default=776, help="of all random choices (default 776)")
    add("--use_cpu", action="store_true", help="do not use a GPU (default: use one if there is one)")
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--use_fp16", action="store_true", help="float16 autocast with loss scaling (default float32)"
    )
    precision.add_argument("--use_bf16", action="store_true", help="bfloat16 autocast (default float32)")
    add("--compile", action="store_true", help="compile the models with torch.compile (default off)")
    add("--overwrite", action="store_true", help="start afresh in a folder that holds a run (default go on)")
    add("--debug", action="store_true", help="show the traceback of an error (default: one line)")
    add = parser.add_argument_group("the paper's way, slower").add_argument
    add("--pad_to_max_length", action="store_true", help="pad all batches to --max_length (default: to their longest)")
    add("--no_group_by_length", action="store_true", help="batches of any lengths (default: of similar lengths)")
    add(
        "--no_exact_shortcuts",
        action="store_true",
        help="last layer for all tokens, plain attention and products, AdamW on all rows",
    )
    return parser


def add_training_flags(parser: Parser, do_flag: str) -> None:
    """How to train, for the stages that do; the task has the defaults of its sizes, the others are the paper's."""
    add, default = parser.add_argument_group("training").add_argument, Recipe()
    add("--per_device_train_batch_size", type=number(int, 1), help="examples (default the task's: 16 or 32)")
    add(
        "--num_grad_accum_steps",
        type=number(int, 1),
        default=default.num_grad_accum_steps,
        help="batches per update (default 1)",
    )
    add("--learning_rate", type=number(float, 0), help="peak (default the task's: 3e-5)")
    add("--weight_decay", type=number(float, 0), default=default.weight_decay, help="(default 1e-2; 0 is off)")
    add("--num_train_epochs", type=number(int, 1), help="(default the task's: 3, 5 or 10)")
    add(
        "--num_patience_epochs",
        type=number(int, 0),
        default=default.num_patience_epochs,
        help="stop after so many without a better metric (default 5; 0 never)",
    )
    add(
        "--warmup_proportion",
        type=number(float, 0, 1),
        default=default.warmup_proportion,
        help="of all updates (default 0.1)",
    )
    add(
        "--max_grad_norm",
        type=number(float, 0),
        default=default.max_grad_norm,
        help="clip gradients to it (default 5.0; 0 is off)",
    )
    add("--lr_scheduler_type", choices=SCHEDULERS, default=default.lr_scheduler_type, help="(default linear)")
    add(
        "--log_interval",
        type=number(int, 1),
        help="updates between evaluations (default a tenth of an epoch, at least 10)",
    )
    add(
        "--save_interval",
        type=number(int, 1),
        help="updates between saves of the training state (default at evaluations, once a minute at most)",
    )
    add(
        "--report_to",
        choices=TRACKERS,
        default="none",
        help="training curves beside metrics.json; the package must be there (default none)",
    )
    add("--selection_metric", help="dev metric that selects the best weights (default the task's own)")
    add(do_flag, action="store_true", help="as in the paper's scripts; it is what the script does anyway")
    add("--do_test", action="store_true", help="then write the GLUE submission file for the test set (default off)")


def add_student_flags(parser: Parser) -> None:
    """Which student; the pruned one if a sparsity is given."""
    add = parser.add_argument_group("student").add_argument
    add(
        "--student_layer",
        type=number(int, 1),
        default=4,
        help="layers kept of a layer-dropped student (default 4)",
    )
    add(
        "--layer_choice",
        type=layer_choice,
        default="first",
        help="which layers a layer-dropped student keeps: first, last, spaced, or as 0,3,7,11 (default first)",
    )
    add(
        "--student_sparsity",
        type=sparsity,
        help="percent cut from a parameter-pruned student (default blank: layer-dropped)",
    )


def add_distillation_flags(parser: Parser) -> None:
    """The distillation loss."""
    add = parser.add_argument_group("distillation loss").add_argument
    add("--temperature", type=number(float, 1e-3), default=2.0, help="T of both softmaxes (default 2.0)")
    add(
        "--alpha",
        type=number(float, 0, 1),
        default=0.5,
        help="the teacher's share, the labels have the rest (default 0.5)",
    )


def add_inside_flags(parser: Parser) -> None:
    """Losses between the layers of student and teacher; the teacher is then asked in every step."""
    add = parser.add_argument_group("weights of losses between layers, beside the logits").add_argument
    add(
        "--pkd_weight", type=number(float, 0), default=0.0, help="PKD: [CLS] states (theirs 10 to 1000; default 0, off)"
    )
    add(
        "--tinybert_weight",
        type=number(float, 0),
        default=0.0,
        help="TinyBERT: hidden states and attention (theirs 1; default 0, off)",
    )
    add(
        "--minilm_weight",
        type=number(float, 0),
        default=0.0,
        help="MiniLMv2: self-attention relations of the last layer (theirs 1; default 0, off)",
    )


def add_teacher_cache_flag(parser: Parser) -> None:
    """For the stages that train under a teacher."""
    parser.add_argument(
        "--no_teacher_cache",
        action="store_true",
        help="ask the teacher in every step, as the paper's code does (default: once)",
    )


def add_score_flags(parser: Parser) -> None:
    """By what the teacher's units are sorted."""
    parser.add_argument(
        "--score",
        choices=SCORES,
        default=SCORES[0],
        help="what units are sorted by; random is seeded, magnitude is their weights' norm (default knowledgeable)",
    )
    parser.add_argument(
        "--lam",
        type=number(float, 0, 1),
        default=0.5,
        help="share of expressiveness in the knowledgeable score (default 0.5)",
    )


def parse(parser: Parser, argv: list[str] | None) -> argparse.Namespace:
    """Parse and check what argparse alone cannot.

    Raises:
        InputError: the task's folder is missing.
        SystemExit: status 2 and one line, for a flag out of range.
    """
    args = parser.parse_args(argv)
    _fill_in_sizes(args)
    metric = TASKS[args.task_name].metric
    if "selection_metric" in args:
        args.selection_metric = args.selection_metric or metric
        if args.selection_metric not in NAMES[metric]:
            expected = f"one of {', '.join(NAMES[metric])} for {args.task_name}"
            parser.error(f"--selection_metric: found {args.selection_metric!r}, expected {expected}")
    if getattr(args, "lr_scheduler_type", None) == "polynomial" and args.learning_rate <= POLYNOMIAL_END:
        expected = f"more than the {POLYNOMIAL_END} at which --lr_scheduler_type polynomial ends"
        parser.error(f"--learning_rate: found {args.learning_rate}, expected {expected}")
    if getattr(args, "layer_choice", "first") != "first":
        named = args.layer_choice.split(",")
        if args.student_sparsity is not None:
            parser.error("--layer_choice: for layer-dropped students, found --student_sparsity")
        if named[0].isdigit() and len(named) != args.student_layer:
            parser.error(f"--layer_choice: found {len(named)} layers, expected --student_layer {args.student_layer}")
    if weights := inside_weights(args):
        if args.model_type != "kd":
            parser.error(f"--{min(weights)}_weight: for --model_type kd, found {args.model_type}")
        if args.compile:
            parser.error(f"--{min(weights)}_weight: not with --compile, which does not show what layers say")
        args.no_teacher_cache = True
    task_folder(args.task_name, args.data_dir)
    return args


def _fill_in_sizes(args: argparse.Namespace) -> None:
    """Give the flags of a training's size that were not given the values of the task."""
    for flag, size in TASKS[args.task_name].sizes._asdict().items():
        if flag in args and getattr(args, flag) is None:
            setattr(args, flag, size)


def inside_weights(args: argparse.Namespace) -> dict[str, float]:
    """The weights of losses between layers that are not 0, by the name that the flag begins with."""
    weights = {name: getattr(args, f"{name}_weight", 0.0) for name in ("pkd", "tinybert", "minilm")}
    return {name: weight for name, weight in weights.items() if weight}


def precision(args: argparse.Namespace) -> torch.dtype | None:
    """The autocast type that the flags ask for."""
    return torch.float16 if args.use_fp16 else torch.bfloat16 if args.use_bf16 else None


def recipe(args: argparse.Namespace) -> Recipe:
    """The training flags as the loop takes them."""
    same = {name: getattr(args, name) for name in Recipe._fields if hasattr(args, name)}
    return Recipe(
        **same, batch_size=args.per_device_train_batch_size, dtype=precision(args), plain=args.no_exact_shortcuts
    )
