"""The end of the server: a signal ends it with exit status 0 within END_TIME, whatever hangs.

Until the server serves, a signal ends the process at once: there is nothing to be put in order, and the main thread may
be waiting for a terminal or a name server. From then on, signals are blocked in all threads, and the main thread does
nothing but wait for one: so no number of signals can disturb the orderly end.

While that end is under way, two timers run in case a part of it hangs. The first interrupts whatever the main thread
waits for, and ends the process with the intended status. The second is faulthandler's, which needs neither the
interpreter nor any of its threads, and ends the process with status 1.

Nothing here knows what the server consists of. This module is imported before everything else, so it imports little.
"""

import faulthandler
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from dsmr_rest.process import threads

END_TIME = 1.6
"""Seconds from the signal to the end if a part of the orderly end hangs."""
LAST_RESORT_TIME = 1.8
"""The same, if even the interpreter hangs."""


def _end_signals() -> list[signal.Signals]:
    """The signals that end the server. Under nohup, SIGHUP is ignored, and so it does not."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


END_SIGNALS = _end_signals()


def end_at_once_on_signals() -> None:
    """From now on, until they are blocked, each of END_SIGNALS ends the process with status 0."""
    for number in END_SIGNALS:
        signal.signal(number, _end_at_once)


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """A block in which threads may be started: they inherit that these signals are blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*END_SIGNALS, signal.SIGALRM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class EndSignal:
    """Waits for the signal that ends the server. For the main thread, which blocks the signals from now on."""

    def __init__(self) -> None:
        self._number: int | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, [*END_SIGNALS, signal.SIGALRM])
        threads.watch_starts()

    @property
    def is_hung(self) -> bool:
        """Whether it is the signal that a thread never started, see threads.py."""
        return self._number == signal.SIGALRM

    def wait(self) -> None:
        """Sleeps until there is a signal."""
        if self._number is None:
            self._number = signal.sigwait([*END_SIGNALS, signal.SIGALRM])

    def wait_for(self, seconds: float) -> bool:
        """Sleeps for that long, or until there is a signal. Returns whether there was one."""
        if self._number is None:
            received = signal.sigtimedwait([*END_SIGNALS, signal.SIGALRM], seconds)
            if received is not None:
                self._number = received.si_signo
        return self._number is not None


class LastResort:
    """Ends the process if the orderly end takes too long. A file is opened now, because that may fail later."""

    def __init__(self) -> None:
        self._nowhere = os.open(os.devnull, os.O_WRONLY)  # until the process ends

    def arm(self, status: int) -> None:
        """Ends the process after END_TIME with this exit status, or after LAST_RESORT_TIME with 1."""

        def end(_number: int, _frame: FrameType | None) -> None:
            os._exit(status)

        threads.stop_watching()
        signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, END_TIME)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        with suppress(RuntimeError):  # no thread of the system's can be started either
            faulthandler.dump_traceback_later(LAST_RESORT_TIME, exit=True, file=self._nowhere)


def end_now(status: int) -> NoReturn:
    """Ends the process.

    The interpreter is not taken down: threads of clients may still run, and it would wait for what they hold. It would
    also change the status to 120 where stdout cannot be written any more.
    """
    os._exit(status)
