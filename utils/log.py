"""Log lines, progress bars and error lines. No failure of the output stops a run.

A line is lost if the terminal was closed or the reading process has ended (`| head -1`); characters that the terminal
cannot encode are escaped.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO, TypeVar

from tqdm import tqdm

from utils import processes

T = TypeVar("T")
logger = logging.getLogger("stark")


class Console(logging.Handler):
    """A log handler that writes to stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, unless `last_line` has written it to stderr."""
        if not getattr(record, "is_on_stderr", False):
            write_line(self.format(record))


def start() -> None:
    """Log to the console from now on, and no longer to the files of an earlier run in this process."""
    stop()
    logger.setLevel(logging.INFO)
    console = Console()
    console.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    console.addFilter(lambda record: processes.is_main())  # of several processes, only the main one logs
    logger.addHandler(console)


class File(logging.FileHandler):
    """A log handler that writes to a file, and drops lines that cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, logging's name
        """Ignore the error, for which logging would print a traceback."""


def to_file(path: Path) -> None:
    """Append log lines to this file, too, from now on."""
    handler = File(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)


def stop() -> None:
    """Close the log files; flush stdout and stderr, whose error at exit would change the exit status."""
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)


def write_line(text: str, stream: TextIO | None = None) -> None:
    """Write a line above the progress bars and flush it; `stream` is stdout by default."""
    stream = stream or sys.stdout
    if stream is None:  # it was closed before Python started
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line = text.encode(encoding, "backslashreplace").decode(encoding) + "\n"
    try:
        with tqdm.external_write_mode(file=stream):
            stream.write(line)
    except (OSError, ValueError):
        _discard(stream)
    _flush(stream)


def last_line(text: str) -> None:
    """Write the reason why this process exits to stderr and to log.txt."""
    write_line(text, sys.stderr)
    logger.info(text, extra={"is_on_stderr": True})


def progress(
    iterable: Iterable[T], *, total: int, desc: str, unit: str, done: int = 0, delay: float = 0.0
) -> "tqdm[T]":
    """A progress bar over an iterable, shown by the main process if stderr is a terminal.

    Args:
        total: number of steps in all.
        desc: text in front of the bar.
        unit: noun for a step.
        done: steps that an earlier process has made.
        delay: seconds before the bar appears.

    The environment variable TQDM_DISABLE hides it, too.
    """
    options = {"total": total, "initial": done, "desc": desc, "unit": unit, "delay": delay, "leave": False}
    if not (processes.is_main() and _is_terminal(sys.stderr)):  # a file would fill with carriage returns
        options["disable"] = True  # not False otherwise, which would override TQDM_DISABLE
    return tqdm(iterable, **options)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _flush(stream: TextIO | None) -> None:
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        _discard(stream)


def _discard(stream: TextIO) -> None:
    """Redirect a broken stream to the null device, so that later writes raise no error."""
    # a stream without a file behind it has no fileno
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), stream.fileno())
