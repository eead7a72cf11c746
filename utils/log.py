"""What a run shows: log lines, progress bars, the last line before it leaves. Nothing here can stop the run.

A terminal that closes, a reader that leaves (`| head -1`) or a character that the terminal cannot show costs the line.
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
    """Log lines on stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, unless `last_line` has it on stderr."""
        if not getattr(record, "is_on_stderr", False):
            write_line(self.format(record))


def start() -> None:
    """Log to the console from here on, and no more to where an earlier run in this process did."""
    stop()
    logger.setLevel(logging.INFO)
    console = Console()
    console.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    console.addFilter(lambda record: processes.is_main())  # one of several processes speaks
    logger.addHandler(console)


class File(logging.FileHandler):
    """Log lines in a file, as long as the disk takes them."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, logging's name
        """Lose the line, where logging would print a traceback."""


def to_file(path: Path) -> None:
    """Append what is logged from here on to a file, too."""
    handler = File(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)


def stop() -> None:
    """Close the log's files, and lose what stdout and stderr cannot take, which would change the exit status."""
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)


def write_line(text: str, stream: TextIO | None = None) -> None:
    """A line above the progress bars, at once: on stdout, or on another stream."""
    stream = stream or sys.stdout
    if stream is None:  # closed before Python began
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
    """Why this process leaves, on stderr and in log.txt."""
    write_line(text, sys.stderr)
    logger.info(text, extra={"is_on_stderr": True})


def progress(
    iterable: Iterable[T], *, total: int, desc: str, unit: str, done: int = 0, delay: float = 0.0
) -> "tqdm[T]":
    """A progress bar over an iterable, on a terminal: a file would fill with carriage returns.

    Args:
        total, done: steps in all, and those that an earlier process made.
        delay: seconds before the bar shows.

    The user's TQDM_DISABLE counts; of several processes, the main one has a bar.
    """
    hidden = {} if processes.is_main() and _is_terminal(sys.stderr) else {"disable": True}
    return tqdm(iterable, total=total, initial=done, desc=desc, unit=unit, delay=delay, leave=False, **hidden)


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
    """From here on, what is written to a stream that takes nothing any more is lost, not an error each time."""
    # a stream without a file behind it has no fileno
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
