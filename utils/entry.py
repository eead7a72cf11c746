"""How a script ends: errors in one line, with an exit status that says whose they are."""

import functools
import sys
import traceback
from collections.abc import Callable

import torch
from safetensors import SafetensorError

from utils import log, processes, signals
from utils.errors import InputError
from utils.files import release

NO_MEMORY = ("allocate memory", "out of memory", "ALLOC_FAILED")  # in errors of torch, CUDA and its libraries


def entry_point(*user_errors: type[Exception]) -> Callable[[Callable], Callable]:
    """Decorate a script's main: errors are one line on stderr, with exit status 2 if the user's input caused them.

    A full disk, a folder that cannot be written, memory that ends and numbers that are none leave with status 1. With
    --debug the traceback comes, too. Ctrl-C and SIGTERM are one line as well, with status 130 and 143.
    """
    theirs = (InputError, *user_errors)
    ours = (OSError, SafetensorError, FloatingPointError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)

    def decorate(main: Callable) -> Callable:
        @functools.wraps(main)
        def wrapped(argv: list[str] | None = None) -> None:
            with signals.handled():
                try:
                    try:
                        main(argv)
                    finally:
                        release()
                        processes.stop()
                except KeyboardInterrupt as stopped:
                    release()  # the signal may have come while this was done
                    log.last_line(str(stopped) or "stopped")
                    sys.exit(getattr(stopped, "status", 130))
                except (*theirs, *ours, RuntimeError) as error:
                    if not isinstance(error, (*theirs, *ours)) and not any(words in str(error) for words in NO_MEMORY):
                        raise  # a bug
                    if "--debug" in (sys.argv if argv is None else argv):
                        traceback.print_exc()
                    log.last_line(f"error: {str(error).strip() or type(error).__name__}".splitlines()[0])
                    sys.exit(2 if isinstance(error, theirs) else 1)
                finally:
                    log.stop()

        return wrapped

    return decorate
