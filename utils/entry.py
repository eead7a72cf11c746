"""Entry point of a script: errors and signals become one line on stderr and a documented exit status."""

import functools
import sys
import traceback
from collections.abc import Callable

import torch
from safetensors import SafetensorError

from utils import log, processes, signals
from utils.errors import InputError
from utils.files import release

OUT_OF_MEMORY = ("allocate memory", "out of memory", "ALLOC_FAILED")  # in messages of torch, CUDA and its libraries
# errors of the machine or of the numbers, exit status 1
ENVIRONMENT_ERRORS = (
    OSError,
    SafetensorError,
    FloatingPointError,
    MemoryError,
    torch.OutOfMemoryError,
    torch.AcceleratorError,
)


def entry_point(*user_errors: type[Exception]) -> Callable[[Callable], Callable]:
    """A decorator of a script's main(argv), which turns known errors into one line on stderr and an exit status.

    Status 2: InputError and `user_errors`, caused by what the user gave. Status 1: a full disk, a folder without write
    permission, exhausted memory, a loss or logits that are not finite. Status 130 and 143: Ctrl-C and SIGTERM. Any
    other error is a bug and keeps its traceback; --debug prints the traceback of the known ones, too.
    """
    input_errors = (InputError, *user_errors)
    known_errors = (*input_errors, *ENVIRONMENT_ERRORS)

    def decorate(main: Callable) -> Callable:
        @functools.wraps(main)
        def wrapped(argv: list[str] | None = None) -> None:
            with signals.handled():
                try:
                    try:
                        main(argv)
                    finally:  # whatever happened, other processes may write to the folder again
                        release()
                        processes.stop()
                except KeyboardInterrupt as stopped:
                    release()  # again: the signal may have interrupted the first call
                    log.last_line(str(stopped) or "stopped")
                    sys.exit(getattr(stopped, "status", 130))
                except (*known_errors, RuntimeError) as error:
                    # out of memory is a plain RuntimeError in some libraries
                    is_known = isinstance(error, known_errors) or any(part in str(error) for part in OUT_OF_MEMORY)
                    if not is_known:
                        raise  # a bug
                    if "--debug" in (sys.argv if argv is None else argv):
                        traceback.print_exc()
                    message = str(error).strip() or type(error).__name__
                    log.last_line(f"error: {message}".splitlines()[0])
                    sys.exit(2 if isinstance(error, input_errors) else 1)
                finally:
                    log.stop()

        return wrapped

    return decorate
