"""Starting threads, and keeping them going, on a machine that may have neither memory nor threads left.

Two things go wrong then. No thread can be started: NoThreadError. Or Thread.start() never returns: it waits for the
first sign of the new thread, which ran out of memory before it could give one. Nothing in the waiting thread can end
that wait. So, from watch_starts() on, a timer of the kernel runs while a thread is being started: it sends SIGALRM to
the process after START_TIME. At rest no timer runs. What SIGALRM does is up to the caller of watch_starts().

The names and the work of threads are not known here.
"""

import signal
import threading
import time
from collections.abc import Callable

START_TIME = 10.0
"""Seconds after which a thread that has given no sign will never give one. A slow machine needs milliseconds."""

FAILURE_PAUSE = 0.1
"""Seconds after a step that failed: when memory is short, the next would fail at once."""


class NoThreadError(Exception):
    """No thread can be started: the system's limit is reached, or memory is short."""


class _Watch:
    """The timer that runs while threads are being started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below, and the timer
        self._under_way = 0  # how many threads are being started
        self._is_on = False

    def switch(self, *, on: bool) -> None:
        with self._lock:
            self._is_on = on
            if on and self._under_way > 0:
                signal.setitimer(signal.ITIMER_REAL, START_TIME)

    def begin(self) -> None:
        """Notes that a thread is being started."""
        with self._lock:
            self._under_way += 1
            # If one never starts, the number never becomes zero again, so the timer runs out however many others start.
            if self._is_on and self._under_way == 1:
                signal.setitimer(signal.ITIMER_REAL, START_TIME)

    def end(self) -> None:
        """Notes that it has started, or will not."""
        with self._lock:
            self._under_way -= 1
            if self._is_on and self._under_way == 0:
                signal.setitimer(signal.ITIMER_REAL, 0)


_watch = _Watch()


def watch_starts() -> None:
    """From now on the process gets SIGALRM when a thread has not started within START_TIME."""
    _watch.switch(on=True)


def stop_watching() -> None:
    """From now on this module leaves the timer of the process, ITIMER_REAL, alone."""
    _watch.switch(on=False)


def start(thread: threading.Thread) -> None:
    """Starts a thread. Raises NoThreadError."""
    _watch.begin()
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise NoThreadError(f'no thread can be started ({error})') from error
    finally:
        _watch.end()


def repeat(step: Callable[[], None], stopped: threading.Event) -> None:
    """Does a step again and again until `stopped` is set. An error in a step costs a pause, and not the thread."""
    while not stopped.is_set():
        try:
            step()
        except Exception:  # noqa: BLE001 memory is short, so it cannot even be logged
            time.sleep(FAILURE_PAUSE)
