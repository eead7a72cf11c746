"""Atomic writes, JSON files, digests and lock files.

Everything is written under a hidden name in the same folder, flushed to the disk, and renamed: other processes see a
file or folder complete or not at all.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import logging
import math
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from safetensors import SafetensorError

from utils.errors import InputError

logger = logging.getLogger("stark")
SCORES_FILE = "scores.safetensors"  # in a sorted checkpoint beside its weights
# errors of Lustre, CIFS, NFS and FUSE where they have no locks, or cannot flush folders
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A context that yields a hidden path to write to; at its end that file or folder replaces `path`.

    After an error the hidden one is removed and `path` stays as it was. A folder cannot be replaced in one step: the
    old one is moved aside first, and `recover` puts it back if the process is killed in between. A symbolic link is
    replaced itself, not its target.

    Raises:
        OSError: it cannot be written; the message names `path` and the reason, such as a full disk.
    """
    beside = _part(path)
    old = path.with_name(f".{path.name}.old")
    _remove(beside)
    try:
        yield beside
        # all content must be on the disk before its name is
        for part in (beside, *beside.rglob("*")):
            _flush(part)
        # the old folder stays until the new one can be renamed into its place
        if beside.is_dir() and os.path.lexists(path):
            recover(path)
            path.rename(old)
        os.replace(beside, path)
        _flush(path.parent)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk, as torch and safetensors raise it
        raise _cannot_write(path, error) from error
    finally:
        _remove(beside)
        recover(path)


def _cannot_write(path: Path, error: Exception) -> OSError:
    """An OSError with the same reason that names the final path, not the hidden one."""
    reason = getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, RuntimeError) and shutil.disk_usage(path.parent).free < 2**20:
        reason = os.strerror(errno.ENOSPC)  # which torch's message does not mention
    named = OSError(f"{path}: cannot be written: {reason}")
    named.strerror = reason  # read by the `written_beside` of the folder around it
    return named


def recover(path: Path) -> None:
    """Put back a folder that `written_beside` had moved aside when its process was killed, or remove one left over."""
    old = path.with_name(f".{path.name}.old")
    if os.path.lexists(old) and not os.path.lexists(path):
        old.rename(path)
    _remove(old)


def remove_part(path: Path) -> None:
    """Remove what `written_beside` had written of a file or folder when its process was killed."""
    _remove(_part(path))


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        FloatingPointError: a number in it is infinite or NaN, which JSON cannot hold.
    """
    for keys, number in _numbers(content):
        if not math.isfinite(number):
            raise FloatingPointError(f"{path}: {keys} would be {number}, expected a finite number")
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _numbers(content: Any, keys: str = "") -> Iterator[tuple[str, float]]:
    """All floats in a JSON value, each with its path of keys and indices, such as history.0.loss."""
    if isinstance(content, float):
        yield keys, content
    elif isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield from _numbers(value, f"{keys}.{key}" if keys else str(key))


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; {} if there is no such file.

    Raises:
        InputError: the file is not JSON, or does not hold an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content


def fingerprint(paths: Iterable[Path]) -> str:
    """A digest of the names and contents of files, independent of their folders."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        with open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def checkpoint_digest(folder: Path) -> str:
    """A digest of a checkpoint's configuration, weights and vocabulary, without its settings and metrics."""
    vocabularies = ("vocab.txt", "vocab.json", "merges.txt", "*.model")
    patterns = ("config.json", *vocabularies, "*token*.json", "*.safetensors", "*.bin")
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.name != SCORES_FILE]
    return fingerprint(paths)


def has_weights(folder: Path) -> bool:
    """Whether a checkpoint has its weights; users may delete them to save space."""
    paths = [path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern)]
    return any(path.name != SCORES_FILE for path in paths)


_open_locks: dict[Path, TextIO] = {}  # the lock files that this process holds


def lock(path: Path, wait: bool = False) -> None:
    """Hold a lock file until `release` or the end of this process, even by SIGKILL.

    On a file system without locks it logs a warning and returns.

    Args:
        wait: block until another process releases the lock, instead of raising.

    Raises:
        InputError: another process holds the lock; the message names it.
    """
    while path not in _open_locks:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115, open for as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(f"{path.parent}: {holder} is writing here; wait for it, or stop it") from error
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            _warn_no_locks(path.parent)
        # the previous holder may have removed the file between open and flock: then this lock is of nothing, try again
        if path.exists() and os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            _open_locks[path] = file


@functools.cache  # once for each folder
def _warn_no_locks(folder: Path) -> None:
    logger.warning("%s: this file system has no locks; nothing keeps a second run out of this folder", folder)


def is_locked(path: Path) -> bool:
    """Whether another process holds this lock file; False on a file system without locks."""
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    return False


def release(*paths: Path) -> None:
    """Release these locks, or all that this process holds."""
    for path in paths or list(_open_locks):
        path.unlink(missing_ok=True)
        _open_locks.pop(path).close()


def _flush(path: Path) -> None:
    """Flush a file or folder to the disk; some file systems cannot do so for folders, which is ignored."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in {*UNSUPPORTED, errno.EPERM, errno.EACCES, errno.EBADF}):
            raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
