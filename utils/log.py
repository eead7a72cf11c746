"""Log lines on the terminal."""

import logging
import sys
from pathlib import Path

from tqdm.auto import tqdm

logger = logging.getLogger("stark")


class Console(logging.Handler):
    """Log lines that leave the progress bar whole."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line above the bar."""
        tqdm.write(self.format(record), file=sys.stdout)


def log_to_console(quiet: bool = False) -> None:
    """Log to the terminal, and no longer to the files of an earlier run in the same process; quiet logs nothing."""
    logger.setLevel(logging.CRITICAL if quiet else logging.INFO)
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    console = Console()
    console.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(console)


def log_to_file(path: Path) -> None:
    """Log to this file, too."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
