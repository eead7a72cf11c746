"""A task's examples, read, tokenised and put on the device as the flags say.

data = load_data(args, tokenizer, device, teacher.config, student.config)
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from utils import processes
from utils.batches import Examples, concatenate
from utils.cache import load_examples, load_unlabelled
from utils.errors import InputError
from utils.flags import MAX_LENGTH
from utils.settings import test_splits
from utils.tasks import split_path, submission_splits
from utils.tokenizer import Tokenizer
from utils.unlabelled import drop_rows, row_keys

logger = logging.getLogger("stark")
# model_types whose classes in Hugging Face's library count positions over tokens that are not the padding token
AFTER_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")
COMPILED_WIDTHS = 32  # tokens; compiled models see batches padded to its multiples, so that few shapes occur


def reader(
    args: argparse.Namespace, tokenizer: Tokenizer, device: torch.device, *configs: Any
) -> Callable[[str], Examples]:
    """How the flags have a split read, tokenised and put on the device: reader(...)("dev").

    The split "unlabelled" are the rows of the files of --unlabelled that are none of dev or test.

    Args:
        configs: the models' that will read the examples; where their positions are fewer than the default
            --max_length, that gives way, another one is refused.

    Raises:
        InputError: --max_length is more than the model takes, or the tokenizer knows tokens that the model does not;
            and from reading, what read_split or read_unlabelled raises, that all rows of a file are rows of dev or
            test, or that the model does not tell second sentences from first ones.
    """
    positions, token_types = limits(tokenizer, *configs)
    max_length = min(args.max_length, positions)
    if max_length < args.max_length:
        if args.max_length != MAX_LENGTH:
            raise InputError(f"--max_length {args.max_length}: the model takes at most {positions} tokens")
        logger.info("the model takes %d tokens: --max_length %d instead of %d", positions, positions, MAX_LENGTH)

    def read(split: str) -> Examples:
        with processes.main_first():  # the others find the tokens in the cache
            if split == "unlabelled":
                source = ", ".join(args.unlabelled)
                examples = _load_unlabelled(args, tokenizer, max_length)
            else:
                source = str(split_path(args.task_name, args.data_dir, split))
                limit = args.max_train_examples if split == "train" else args.max_eval_examples
                examples = load_examples(args.task_name, args.data_dir, split, tokenizer, max_length, limit)
        count, full = int(examples.lengths.sum()), int((examples.lengths == max_length).sum())
        logger.info("%s: %d examples, %d tokens, %d of full length", source, len(examples), count, full)
        check_token_types(examples, token_types, source)
        return replace(
            examples,
            pad_to=max_length if args.pad_to_max_length else None,
            pad_multiple=COMPILED_WIDTHS if args.compile else 1,
            group_by_length=not args.no_group_by_length,
        ).to(device)

    return read


def limits(tokenizer: Tokenizer, *configs: Any) -> tuple[int, int]:
    """How many positions and token types models of these configurations have, the fewest of them.

    Raises:
        InputError: the tokenizer knows tokens that a model does not.
    """
    for config in configs:
        if getattr(config, "model_type", None) in AFTER_PAD and tokenizer.pad_token_id != config.pad_token_id:
            logger.warning(
                "the tokenizer pads with id %s, config.json says %s: Hugging Face's class counts positions over tokens "
                "of other ids than that, this code over all; they differ if a text has such a token",
                tokenizer.pad_token_id,
                config.pad_token_id,
            )
    positions, vocabulary, token_types = (
        min(getattr(config, name) for config in configs)
        for name in ("max_position_embeddings", "vocab_size", "type_vocab_size")
    )
    if (highest := max(tokenizer.get_vocab().values())) >= vocabulary:
        raise InputError(f"the tokenizer's ids go up to {highest}, the model's embedding has {vocabulary} rows")
    return positions, token_types


def check_token_types(examples: Examples, token_types: int, source: str) -> None:
    """Raise InputError if there are second sentences, and the model does not tell them from first ones.

    Args:
        token_types: how many the model has.
        source: where the examples come from, for the message.
    """
    if token_types < 2 and bool((examples.segment_b_start < examples.lengths).any()):
        raise InputError(
            f"{source}: pairs of sentences, which take two token types; "
            f"type_vocab_size of the model's config.json is {token_types}"
        )


def _load_unlabelled(args: argparse.Namespace, tokenizer: Tokenizer, max_length: int) -> Examples:
    """The rows of all files of --unlabelled that are none of dev or test, of which all rows count, on the CPU."""
    held_out = set()
    for split in ("dev", *test_splits(args.task_name, args.data_dir)):
        held_out.update(row_keys(load_examples(args.task_name, args.data_dir, split, tokenizer, max_length)))
    parts = []
    for name in args.unlabelled:
        rows = load_unlabelled(args.task_name, args.data_dir, name, tokenizer, max_length)
        parts.append(drop_rows(rows, held_out, name))
    return concatenate(parts)


class Data(NamedTuple):
    """A task's examples, on the device."""

    train: Examples | None  # None if the stage reads none; its last rows are the unlabelled ones, if there are any
    dev_select: Examples  # the rows that scores, weights and sparsities are chosen on
    dev_report: Examples  # the rows that results are reported on
    unlabelled: Examples | None = None  # None without --unlabelled


def load_data(
    args: argparse.Namespace, tokenizer: Tokenizer, device: torch.device, *configs: Any, train: bool = True
) -> Data:
    """Read the splits that a stage needs; with --do_test see that those without labels can be read, too.

    Args:
        configs: as `reader` takes them.
        train: whether the stage reads the training set.

    Raises:
        InputError: what `reader` raises, for any of the splits.
    """
    read = reader(args, tokenizer, device, *configs)
    examples = read("train") if train else None
    unlabelled = read("unlabelled") if getattr(args, "unlabelled", None) else None
    if examples is not None and unlabelled is not None:
        taken = min(len(unlabelled), args.unlabelled_per_epoch or len(unlabelled))
        logger.info("an epoch takes %d rows with labels and %d of %d without", len(examples), taken, len(unlabelled))
        labelled = set(row_keys(examples))
        if repeated := sum(key in labelled for key in row_keys(unlabelled)):
            logger.warning("%d of the rows without labels are among those with labels, too, and count twice", repeated)
        examples = concatenate([examples, unlabelled])
    dev_select, dev_report = split_dev(args, read("dev"))
    if getattr(args, "do_test", False):
        for split in submission_splits(args.task_name, args.data_dir).values():
            read(split)
    return Data(examples, dev_select, dev_report, unlabelled)


def split_dev(args: argparse.Namespace, dev: Examples) -> tuple[Examples, Examples]:
    """The rows of dev that scores, weights and sparsities are chosen on, and those that the result is reported on.

    Raises:
        InputError: too few rows for two halves.
    """
    if args.selection_split == "dev":
        return dev, dev
    if len(dev) < 2:
        raise InputError(f"--selection_split half: found {len(dev)} row of dev, expected at least 2")
    return dev.halves()
