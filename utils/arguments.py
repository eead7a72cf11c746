"""Groups of command line flags that the five scripts share, and the settings that are made of them.

    parser = argument_parser(__doc__, "distillation", model_types=("kd", "ft"))
    add_training_flags(parser, do_flag="--do_distil")
    args = parse(parser, argv)

A script takes the groups it needs; a flag of another group is an error.
"""

import argparse
from collections.abc import Callable, Iterable

import torch

from utils.flags import COUNT, MAX_LENGTH, Parser, layer_choice, number, sparsity
from utils.halving import RUNGS
from utils.metrics import NAMES
from utils.paths import STAGES, output_dir
from utils.recipe import Recipe
from utils.tasks import find_task, task_folder
from utils.trackers import TRACKERS
from utils.unlabelled import check_name
from utils.unlabelled_flags import add_unlabelled_flags, check_unlabelled

SCORES = ("knowledgeable", "expressive", "friendly", "random", "magnitude")
SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
POLYNOMIAL_END = 1e-7  # learning rate at the end of transformers' polynomial schedule


def argument_parser(doc: str, stage: str, model_types: tuple[str, ...]) -> Parser:
    """A parser with the flags that all stages share.

    Args:
        doc: docstring of the script, shown by --help.
        stage: a key of utils.paths.STAGES, or another name for a script that writes no run folder.
        model_types: choices of --model_type, the default first.
    """
    parser = Parser(doc)
    parser.set_defaults(stage=stage)

    # which examples
    add = parser.add_argument_group("task and data").add_argument
    add("--task_name", default="rte", help="a task of GLUE's, or an own one that scripts/add_task.py has added")
    add("--data_dir", default="datasets", help="folder that holds the tasks' folders of files")
    add("--data_type", choices=("combined",), default="combined", help="both sentences in one sequence")
    text = "longest sequence in tokens, the rest is cut off (default %(default)s, or what the model takes if less)"
    add("--max_length", type=number(int, 4), default=MAX_LENGTH, help=text)
    text = "use the first rows of train, this many; of --unlabelled all rows (default all)"
    add("--max_train_examples", type=COUNT, help=text)
    add("--max_eval_examples", type=COUNT, help="use the first rows of dev and test, this many (default all)")
    text = "rows that select weights and score units: dev, as in the paper, or a fixed half; the other half reports"
    add("--selection_split", choices=("dev", "half"), default="dev", help=text)
    add("--per_device_eval_batch_size", type=COUNT, default=32, help="examples per forward pass in evaluation")

    # what computes, where, and how precisely
    group = parser.add_argument_group("model and machine")
    add = group.add_argument
    add("--model_type", choices=model_types, default=model_types[0], help="ft: task loss; kd: distillation loss")
    add("--seed", type=number(int, 0, 2**32 - 1), default=Recipe().seed, help="seed of all random choices")
    add("--use_cpu", action="store_true", help="do not use a GPU (default: use one if there is one)")
    precision_flags = group.add_mutually_exclusive_group()
    text = "float16 autocast with loss scaling (default float32)"
    precision_flags.add_argument("--use_fp16", action="store_true", help=text)
    precision_flags.add_argument("--use_bf16", action="store_true", help="bfloat16 autocast (default float32)")
    add("--compile", action="store_true", help="compile the models with torch.compile (default off)")
    if stage in STAGES:  # a benchmark leaves no run folder
        add("--output_dir", default=output_dir(stage), help="folder of the runs' folders")
    add("--overwrite", action="store_true", help="start afresh where there is a run already (default: go on)")

    # switches back to the paper's code
    add = parser.add_argument_group("slower, as in the paper's code").add_argument
    add("--pad_to_max_length", action="store_true", help="pad all batches to --max_length (default: to their longest)")
    add("--no_group_by_length", action="store_true", help="batches of any lengths (default: of similar lengths)")
    text = "last layer for all tokens; attention in steps; torch's products and dropout; AdamW on all embedding rows"
    add("--no_exact_shortcuts", action="store_true", help=text)
    return parser


def add_training_flags(parser: Parser, do_flag: str) -> None:
    """Flags of the stages that train; defaults are the task's own sizes, else the paper's values for RTE.

    Args:
        do_flag: the flag of the paper's scripts that switches training on, accepted without effect.
    """
    add = parser.add_argument_group("training").add_argument
    default = Recipe()
    add("--per_device_train_batch_size", type=COUNT, help="examples per forward pass (default the task's: 16 or 32)")
    add("--num_grad_accum_steps", type=COUNT, default=default.num_grad_accum_steps, help="forward passes per update")
    add("--learning_rate", type=number(float, 0), help="its peak (default the task's: 3e-5)")
    add("--weight_decay", type=number(float, 0), default=default.weight_decay, help="of AdamW; 0 is off")
    add("--num_train_epochs", type=COUNT, help="passes over train (default the task's: 3, 5 or 10)")
    text = "stop after this many without a better dev metric; 0 is off"
    add("--num_patience_epochs", type=number(int, 0), default=default.num_patience_epochs, help=text)
    add("--warmup_proportion", type=number(float, 0, 1), default=default.warmup_proportion, help="share of updates")
    add("--max_grad_norm", type=number(float, 0), default=default.max_grad_norm, help="of clipping; 0 is off")
    add("--lr_scheduler_type", choices=SCHEDULERS, default=default.lr_scheduler_type, help="after warm-up")
    add("--log_interval", type=COUNT, help="updates between evaluations (default a tenth of an epoch, at least 10)")
    text = "updates between saves of the training state (default at evaluations, once a minute at most)"
    add("--save_interval", type=COUNT, help=text)
    text = "log training curves with this package, too; it must be installed"
    add("--report_to", choices=TRACKERS, default="none", help=text)
    add("--selection_metric", help="dev metric that selects the best weights (default the task's own)")
    add(do_flag, action="store_true", help="accepted as in the paper's scripts, without effect")
    add(
        "--do_test",
        action="store_true",
        help="predict the test set and write GLUE's submission file, or a .csv (default off)",
    )

    def check(args: argparse.Namespace) -> None:
        # sizes that were not given are those of the task
        task = find_task(args.task_name, args.data_dir)
        for flag, size in task.sizes._asdict().items():
            if getattr(args, flag) is None:
                setattr(args, flag, size)
        # the metric that selects weights must be one that the task has
        args.selection_metric = args.selection_metric or task.metric
        if args.selection_metric not in NAMES[task.metric]:
            expected = f"one of {', '.join(NAMES[task.metric])} for {args.task_name}"
            parser.error(f"--selection_metric: found {args.selection_metric!r}, expected {expected}")
        # transformers raises an error of its own on a polynomial schedule that would have to rise
        if args.lr_scheduler_type == "polynomial" and args.learning_rate <= POLYNOMIAL_END:
            expected = f"more than the {POLYNOMIAL_END} at which --lr_scheduler_type polynomial ends"
            parser.error(f"--learning_rate: found {args.learning_rate}, expected {expected}")
        # and divides by the updates after warm-up
        if args.lr_scheduler_type == "polynomial" and args.warmup_proportion == 1:
            parser.error("--warmup_proportion: found 1, expected less with --lr_scheduler_type polynomial")

    parser.checks.append(check)


def add_student_flags(parser: Parser) -> None:
    """Flags that name the student: parameter-pruned if --student_sparsity is given, else layer-dropped."""
    add = parser.add_argument_group("student").add_argument
    add("--student_layer", type=COUNT, default=4, help="how many layers a layer-dropped student keeps")
    text = "which layers a layer-dropped student keeps: first, last, spaced, or as 0,3,7,11"
    add("--layer_choice", type=layer_choice, default="first", help=text)
    text = "percent of units cut from a parameter-pruned student (default: layer-dropped)"
    add("--student_sparsity", type=sparsity, help=text)

    def check(args: argparse.Namespace) -> None:
        layers = args.layer_choice.split(",")
        if args.layer_choice != "first" and args.student_sparsity is not None:
            parser.error("--layer_choice: for layer-dropped students, found --student_sparsity")
        if layers[0].isdigit() and len(layers) != args.student_layer:
            parser.error(f"--layer_choice: found {len(layers)} layers, expected --student_layer {args.student_layer}")

    parser.checks.append(check)


def add_distillation_flags(parser: Parser) -> None:
    """Flags of the distillation loss."""
    add = parser.add_argument_group("distillation loss").add_argument
    add("--temperature", type=number(float, 1e-3), default=2.0, help="temperature T of teacher's and student's softmax")
    add("--alpha", type=number(float, 0, 1), default=0.5, help="weight of the teacher; the labels' is 1 - alpha")


def add_teacher_flags(parser: Parser, intermediate_losses: dict[str, Callable]) -> None:
    """Flags of the stages that train with a teacher: caching its logits, rows without labels, losses between layers.

    Args:
        intermediate_losses: name -> loss; each becomes a flag --<name>_weight, and the first sentence of its docstring
            the help text.
    """
    text = "run the teacher in every step, as the paper's code does (default: cache its logits)"
    parser.add_argument("--no_teacher_cache", action="store_true", help=text)
    add_unlabelled_flags(parser)
    group = parser.add_argument_group("weights of losses between layers, added to the distillation loss; 0 is off")
    for name, loss in intermediate_losses.items():
        text = loss.__doc__.split(":")[0].split(".")[0]
        group.add_argument(f"--{name}_weight", type=number(float, 0), default=0.0, help=text)

    def check(args: argparse.Namespace) -> None:
        check_unlabelled(parser, args, has_other_losses=bool(intermediate_weights(args, intermediate_losses)))
        for name in intermediate_weights(args, intermediate_losses):
            if args.model_type != "kd":
                parser.error(f"--{name}_weight: for --model_type kd, found {args.model_type}")
            if args.compile:
                parser.error(f"--{name}_weight: not with --compile, which hides what layers compute")

    parser.checks.append(check)


def add_logits_flags(parser: Parser, intermediate_losses: Iterable[str]) -> None:
    """Flags of students that learn from several teachers' logits in turn, or from logits of another spread.

    Args:
        intermediate_losses: their names, each of a flag --<name>_weight.
    """
    text = "percents of units cut from the teachers of one student, in turn, as 70 30 0 (default: a student for each)"
    parser.add_argument("--teacher_schedule", nargs="+", type=number(int, 0, 99), help=text)
    text = "smooth or sharpen a teacher's logits to the spread that those of this teacher, cut at so many percent, have"
    parser.add_argument("--match_spread", type=number(int, 0, 99), help=f"{text} (default: leave them)")
    runs_teacher = ["no_teacher_cache", *(f"{name}_weight" for name in intermediate_losses)]
    runs_teacher = dict.fromkeys(runs_teacher, "which runs the teacher in every step")
    refused = {
        "match_spread": {"teacher_schedule": "which has several teachers", **runs_teacher},
        "teacher_schedule": {
            "teacher_sparsity": "which trains a student for each",
            "halving": "which compares several students",
            **runs_teacher,
        },
    }

    def check(args: argparse.Namespace) -> None:
        given = {name for name, value in vars(args).items() if value != parser.get_default(name)}
        for flag in given.intersection(refused):
            for other, reason in refused[flag].items():
                if other in given:
                    parser.error(f"--{flag}: not with --{other}, {reason}")

    parser.checks.append(check)


def add_halving_flags(parser: Parser) -> None:
    """Flags of successive halving, of the stage that trains several students."""
    add = parser.add_argument_group(
        "successive halving: the worse half of the students is dropped at each rung"
    ).add_argument
    text = "drop students early; of several commands that share a sweep, all name all its teacher sparsities here"
    add("--halving", nargs="*", type=number(int, 0, 99), help=f"{text} (default off; alone: those of this command)")
    text = "shares of the updates at which students are compared (default a sixth, a third, two thirds)"
    add("--halving_rungs", nargs="+", type=number(float, 0, 1), help=text)

    def check(args: argparse.Namespace) -> None:
        if args.halving is None and args.halving_rungs:
            parser.error("--halving_rungs: found without --halving")
        if args.halving is not None:
            args.halving_rungs = sorted(set(args.halving_rungs or RUNGS))
        without_effect = [share for share in args.halving_rungs or () if share in (0, 1)]
        if without_effect:
            parser.error(f"--halving_rungs: found {without_effect[0]}, expected shares above 0 and below 1")
        if args.halving and not args.teacher_sparsity:
            parser.error(
                "--halving: found teacher sparsities, expected those of this command in --teacher_sparsity, too"
            )
        if args.halving and (others := sorted(set(args.teacher_sparsity) - set(args.halving))):
            parser.error(f"--teacher_sparsity: found {others[0]}, expected one of --halving")

    parser.checks.append(check)


def add_score_flags(parser: Parser) -> None:
    """Flags of the score by which the teacher's units are sorted."""
    text = "score that sorts units; random is drawn from --seed, magnitude is the norm of a unit's weights"
    parser.add_argument("--score", choices=SCORES, default=SCORES[0], help=text)
    text = "share of expressiveness in the knowledgeable score"
    parser.add_argument("--lam", type=number(float, 0, 1), default=0.5, help=text)


def parse(parser: Parser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line, then run the checks across flags.

    Raises:
        InputError: there is no such task, its folder is missing, or a file of --unlabelled cannot hold its rows.
        SystemExit: status 2 and one line, for a flag out of range.
    """
    args = parser.parse_args(argv)
    for check in parser.checks:
        check(args)
    task_folder(args.task_name, args.data_dir)
    task = find_task(args.task_name, args.data_dir)
    for name in getattr(args, "unlabelled", None) or ():
        check_name(name, task)
    return args


def intermediate_weights(args: argparse.Namespace, names: Iterable[str]) -> dict[str, float]:
    """Weights of the losses between layers, by name, without those that are 0."""
    weights = {name: getattr(args, f"{name}_weight", 0.0) for name in names}
    return {name: weight for name, weight in weights.items() if weight}


def precision(args: argparse.Namespace) -> torch.dtype | None:
    """The dtype of autocast that the flags select; None is float32."""
    if args.use_fp16:
        return torch.float16
    return torch.bfloat16 if args.use_bf16 else None


def recipe(args: argparse.Namespace) -> Recipe:
    """The recipe that utils.training.fit takes, from the training flags."""
    return Recipe(
        batch_size=args.per_device_train_batch_size,
        num_grad_accum_steps=args.num_grad_accum_steps,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        num_train_epochs=args.num_train_epochs,
        num_patience_epochs=args.num_patience_epochs,
        warmup_proportion=args.warmup_proportion,
        max_grad_norm=args.max_grad_norm,
        lr_scheduler_type=args.lr_scheduler_type,
        log_interval=args.log_interval,
        seed=args.seed,
        unlabelled_per_epoch=getattr(args, "unlabelled_per_epoch", None),
        dtype=precision(args),
        exact_shortcuts=not args.no_exact_shortcuts,
    )
