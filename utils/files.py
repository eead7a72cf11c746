"""Files that appear complete or not at all, and folders that one process at a time writes into.

Everything is written beside its place under a name that begins with a dot, flushed to the disk, and renamed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from utils.errors import InputError


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Write the file or folder that is yielded; it replaces `path` when all went well, and is removed if not.

    Of a folder that is replaced, the old one is moved aside first; `recover` brings it back if all stops right there.
    """
    beside, old = (path.with_name(f".{path.name}.{suffix}") for suffix in ("part", "old"))
    _remove(beside)
    try:
        yield beside
        for part in (beside, *beside.rglob("*")):
            _flush(part)
        if path.is_dir():
            recover(path)
            path.rename(old)
        os.replace(beside, path)
        _flush(path.parent)
    finally:
        _remove(beside)
        recover(path)


def recover(path: Path) -> None:
    """Put back an old folder that a process killed between two renames had moved aside, or remove one left over."""
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)
    _remove(old)


def write_text(path: Path, text: str) -> None:
    """Write a text file, complete or not at all."""
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, complete or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; {} if there is no such file.

    Raises:
        InputError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file: {error}") from error


def fingerprint(paths: Iterable[Path]) -> str:
    """A digest of files' names and contents: the same for the same bytes, wherever they lie."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        with open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def checkpoint_digest(folder: Path) -> str:
    """Of what a checkpoint is read for: configuration, weights, vocabulary; not of how it came about."""
    names = ("config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "*.safetensors", "*.bin")
    kept = [path for name in names for path in folder.glob(name) if path.name != "scores.safetensors"]
    return fingerprint(kept)


def has_weights(folder: Path) -> bool:
    """Whether a checkpoint still has the weights that may be deleted to save space."""
    found = [path for kind in ("*.safetensors", "*.bin") for path in folder.glob(kind)]
    return any(path.name != "scores.safetensors" for path in found)


_held: dict[Path, TextIO] = {}


def lock(path: Path, wait: bool = False) -> None:
    """Hold a lock file until `release` or the end of this process, however it ends; `wait` for another's end.

    Raises:
        InputError: another process holds it, which is named.
    """
    while path not in _held:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115, open for as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(f"{path.parent}: {holder} is writing here; wait for it, or stop it") from error
        if path.exists() and os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:  # not removed by its last holder
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            _held[path] = file


def is_locked(path: Path) -> bool:
    """Whether another process holds this lock file."""
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def release(*paths: Path) -> None:
    """Let go of these locks, or of all that this process holds."""
    for path in paths or list(_held):
        path.unlink(missing_ok=True)
        _held.pop(path).close()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
