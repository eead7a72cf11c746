"""Tokenised splits on disk, keyed by the content of what they were made from.

dev = load_examples("rte", "datasets", "dev", tokenizer, max_length=128)    # reads and tokenises
dev = load_examples("rte", "datasets", "dev", tokenizer, max_length=128)    # reads the tokens
"""

import functools
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from utils.batches import Examples, tokenise
from utils.readers import Split, read_split
from utils.tasks import Task, find_task, split_path
from utils.tokenizer import Tokenizer
from utils.unlabelled import existing_file, read_unlabelled

logger = logging.getLogger("stark")
FORMAT = "3"  # to be raised when the reader or the tokenising changes what it makes of a file
ARRAYS = [field.name for field in fields(Examples) if field.type in (Tensor, "Tensor")]


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/stark, or ~/.cache/stark.

    Raises:
        OSError: neither is known, as in a container whose user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "stark")
    except RuntimeError as error:
        raise FileNotFoundError("no home folder; XDG_CACHE_HOME names another place") from error


def load_examples(
    task_name: str,
    data_dir: str,
    split: str,
    tokenizer: Tokenizer,
    max_length: int,
    max_examples: int | None = None,
) -> Examples:
    """A split of a task, tokenised.

    Args:
        task_name, data_dir, split, max_examples: as read_split takes them, which raises what it raises.
        tokenizer, max_length: as tokenise takes them.
    """
    task = find_task(task_name, data_dir)
    path = split_path(task_name, data_dir, split)
    read = functools.partial(read_split, task_name, data_dir, split, max_examples)
    return _load(path, read, task, f"{task_name} {split}", tokenizer, max_length, max_examples)


def load_unlabelled(task_name: str, data_dir: str, name: str, tokenizer: Tokenizer, max_length: int) -> Examples:
    """The rows of a file without labels, tokenised.

    Args:
        task_name, data_dir: as find_task takes them.
        name: as existing_file takes it, which raises what it raises, as does read_unlabelled.
        tokenizer, max_length: as tokenise takes them.
    """
    task = find_task(task_name, data_dir)
    path = existing_file(name, task)
    read = functools.partial(read_unlabelled, path, task)
    return _load(path, read, task, f"{task_name} unlabelled{path.suffix.lower()}", tokenizer, max_length)


def _load(
    path: Path,
    read: Callable[[], Split],
    task: Task,
    kind: str,
    tokenizer: Tokenizer,
    max_length: int,
    max_examples: int | None = None,
) -> Examples:
    """A file of a task, tokenised: from the cache if these bytes were tokenised so before, else read and cached.

    The key is the content of file and tokenizer and every number that matters, so that a changed file is never served
    from the cache; an entry is written beside and renamed, so that half of one is never read. A cache that cannot be
    written or read costs time, no more.

    Args:
        read: reads the file at `path`.
        kind: name of the task, and the split or which other kind of file it is.
    """
    key = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    key.update(f"{FORMAT} {kind} {max_length} {max_examples} {tokenizer.special_tokens_map}".encode())
    key.update(str(tokenizer.template).encode())
    if task.is_own:  # GLUE's name says all of this
        key.update(f"{path.name} {task.definition}".encode())
    with open(path, "rb") as file:
        key.update(hashlib.file_digest(file, "sha256").digest())
    entry = f"{kind.replace(' ', '-')}-{key.hexdigest()[:32]}.safetensors"
    if arrays := _read(entry):
        examples = Examples(**arrays, pad_id=tokenizer.pad_token_id)
    else:
        examples = tokenise(read(), tokenizer, max_length, regression=not task.labels)
        _write(entry, {name: getattr(examples, name) for name in ARRAYS})
    return examples


def _read(entry: str) -> dict[str, Tensor] | None:
    try:
        return load_file(cache_folder() / entry)
    except (OSError, SafetensorError):
        return None


def _write(entry: str, arrays: dict[str, Tensor]) -> None:
    try:
        folder = cache_folder()
        beside = folder / f".{entry}.{os.getpid()}.part"
        folder.mkdir(parents=True, exist_ok=True)
        save_file(arrays, beside)
        os.replace(beside, folder / entry)
    except (OSError, SafetensorError) as error:
        _warn(f"tokens not cached: {error}")


@functools.cache  # once, not for each split
def _warn(line: str) -> None:
    logger.warning(line)
