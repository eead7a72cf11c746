"""Stops from outside: Ctrl-C, which is SIGINT, and SIGTERM, with which clusters end a job.

with handled():                      # a script's main: the first signal raises Stopped, a second one leaves at once
    ...
    with deferred() as stop_signal:  # training: the first signal is noted, so that the state can be saved
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
ONE_STOP = 0.1  # seconds within which signals are one: `timeout` sends each to the process and to its group


class Stopped(KeyboardInterrupt):
    """A signal has stopped this process; `status` is its exit status, 130 after SIGINT and 143 after SIGTERM."""

    def __init__(self, number: int, where: str = ""):
        name = signal.Signals(number).name
        super().__init__(f"stopped {where}" if where else f"stopped by {name}")
        self.status = 128 + number


class _Handler:
    """What the signals call."""

    def __init__(self):
        self.deferring = False
        self.noted: int | None = None  # the first signal
        self.since = 0.0  # when it came

    def __call__(self, number: int, frame: FrameType | None) -> None:
        stopped = Stopped(number)
        if self.noted is not None:
            if time.monotonic() - self.since > ONE_STOP:
                os._exit(stopped.status)
            return
        self.noted, self.since = number, time.monotonic()
        if processes.world_size() > 1:  # each at an update of its own: whoever saves or leaves, the others may wait for
            if processes.is_main():
                with contextlib.suppress(Exception):  # the signal may have come in the middle of another line
                    log.last_line(str(stopped))
            os._exit(stopped.status)
        if not self.deferring:
            raise stopped


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Within it, the first signal raises Stopped, a KeyboardInterrupt; a second one ends the process at once.

    Of several processes, each ends at once. A signal that is ignored, as under nohup, stays so. Python has signal
    handlers in its main thread only: in another thread, nothing is changed.
    """
    handler, before = _Handler(), {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in STOPS}
        before = {number: was for number, was in before.items() if was not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Within it, the first signal is noted instead of raised; yields what returns it, or None as long as none came.

    Raises Stopped at its end, if a signal came and nobody has acted on it. Outside of `handled` it changes nothing.
    """
    handlers = [found for number in STOPS if isinstance(found := signal.getsignal(number), _Handler)]
    if not handlers or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    handler = handlers[0]
    handler.deferring = True
    try:
        yield lambda: handler.noted
    finally:
        handler.deferring = False
    if handler.noted:
        raise Stopped(handler.noted)
