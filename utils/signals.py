"""Handlers of SIGINT (Ctrl-C) and SIGTERM, by which clusters end a job.

with handled():                      # a script's main: the first signal raises Stopped, a second one exits at once
    ...
    with deferred() as stop_signal:  # training: the first signal is recorded, so that the state can be saved
        ...
        if stop_signal():
            raise Stopped(stop_signal(), "after update 120")
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from utils import log, processes

STOPS = (signal.SIGINT, signal.SIGTERM)
REPEAT_SECONDS = 0.1  # a second signal within this time is the same one: `timeout` sends it to process and group


class Stopped(KeyboardInterrupt):
    """A signal has stopped this process; `status` is its exit status: 130 after SIGINT, 143 after SIGTERM."""

    def __init__(self, number: int, where: str = ""):
        name = signal.Signals(number).name
        super().__init__(f"stopped {where}" if where else f"stopped by {name}")
        self.status = 128 + number


class _Handler:
    """The signal handler that `handled` installs."""

    def __init__(self):
        self.deferring = False
        self.signum: int | None = None  # the first signal
        self.received_at = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        stopped = Stopped(number)

        # a second signal exits without saving
        if self.signum is not None:
            if time.monotonic() - self.received_at > REPEAT_SECONDS:
                os._exit(stopped.status)
            return
        self.received_at = time.monotonic()
        self.signum = number

        # several processes get the signal at different updates: saving needs all of them and would wait for ever
        if processes.world_size() > 1:
            if processes.is_main():
                with contextlib.suppress(Exception):  # the signal may have interrupted another write
                    log.last_line(str(stopped))
            os._exit(stopped.status)

        if not self.deferring:
            raise stopped


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """A context in which the first signal raises Stopped, a KeyboardInterrupt, and a second one exits at once.

    With several processes, the first one exits at once, too. Signals that are ignored, as under nohup, stay ignored.
    Python allows signal handlers in the main thread only; in another thread this does nothing.
    """
    handler = _Handler()
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                previous[number] = signal.getsignal(number)
    try:
        for number in previous:
            signal.signal(number, handler)
        yield
    finally:
        for number, action in previous.items():
            signal.signal(number, action)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """A context in which the first signal is recorded, not raised; yields a function that returns it, or None.

    Raises Stopped at its end if a signal has come. Outside of `handled` it does nothing.
    """
    handlers = [handler for handler in map(signal.getsignal, STOPS) if isinstance(handler, _Handler)]
    if not handlers or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    handler = handlers[0]
    handler.deferring = True
    try:
        yield lambda: handler.signum
    finally:
        handler.deferring = False
    if handler.signum:
        raise Stopped(handler.signum)
