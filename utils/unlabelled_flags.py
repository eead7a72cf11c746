"""Flags of rows without labels, and which others they do not go with.

add_unlabelled_flags(parser)  # stages 3 and 5, and the sweep
add_score_split_flags(parser)  # stage 4
"""

import argparse
from collections.abc import Callable

from utils.flags import COUNT, Parser, number

SCORE_SPLITS = ("dev", "train", "unlabelled")  # rows that score units, the default first


def add_unlabelled_flags(parser: Parser) -> None:
    """Flags of the rows without labels that students are trained on."""
    add = parser.add_argument_group("text without labels, which the teacher labels").add_argument
    _add_unlabelled(add, "files of further rows to train on, without labels")
    text = "factor of the loss of a row without a label (default 1)"
    add("--unlabelled_weight", type=number(float, 0), help=text)
    text = "rows without a label that an epoch takes, beside all of train, each time the next ones (default all)"
    add("--unlabelled_per_epoch", type=COUNT, help=text)


def _add_unlabelled(add: Callable, purpose: str) -> None:
    """The flag that names files of rows without labels; `add` is add_argument of a parser or group."""
    text = ".csv, .tsv or .jsonl with the task's text columns, or .txt, a sentence a line; without rows of dev and test"
    add("--unlabelled", nargs="+", metavar="FILE", help=f"{purpose}: {text}")


def check_unlabelled(parser: Parser, args: argparse.Namespace, has_other_losses: bool) -> None:
    """Exit with an error if a flag of rows without labels would have no effect; set the weight that was not given."""
    if args.unlabelled:
        if args.model_type != "kd":
            parser.error(f"--unlabelled: for --model_type kd, found {args.model_type}")
        if not args.alpha and not has_other_losses:
            parser.error("--unlabelled: the teacher alone labels these rows, found --alpha 0")
        if args.unlabelled_weight is None:
            args.unlabelled_weight = 1.0
        return
    for flag in ("unlabelled_weight", "unlabelled_per_epoch"):
        if getattr(args, flag) is not None:
            parser.error(f"--{flag}: of the rows of --unlabelled, which is not given")


def add_score_split_flags(parser: Parser) -> None:
    """Flags of the examples that score units."""
    text = "examples that score units; unlabelled ones only for friendliness, which needs no label, beside dev"
    parser.add_argument("--score_split", choices=SCORE_SPLITS, default=SCORE_SPLITS[0], help=text)
    _add_unlabelled(parser.add_argument, "files of the rows of --score_split unlabelled")

    def check(args: argparse.Namespace) -> None:
        if args.score_split == "unlabelled" and not args.unlabelled:
            parser.error("--score_split unlabelled: expected --unlabelled FILE, which names these rows")
        if args.unlabelled and args.score_split != "unlabelled":
            parser.error(f"--unlabelled: for --score_split unlabelled, found {args.score_split}")
        if args.unlabelled and not args.alpha:
            parser.error("--unlabelled: the teacher alone labels these rows, found --alpha 0")

    parser.checks.append(check)
