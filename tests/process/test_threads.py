"""Starting threads: the timer that ends a start which never ends, and no other."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from dsmr_rest.process import threads
from tests.conftest import ROOT, wait_for

PATIENCE = 60.0


class SlowThread(threading.Thread):
    """A thread whose start() returns when `go_on` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.is_starting = threading.Event()
        self.go_on = threading.Event()

    def start(self) -> None:
        self.is_starting.set()
        self.go_on.wait(PATIENCE)
        super().start()


def seconds_left() -> float:
    """Of the timer of this process; 0 when it does not run."""
    seconds, _ = signal.getitimer(signal.ITIMER_REAL)
    return seconds


@pytest.fixture
def slow() -> Iterator[SlowThread]:
    """A thread that is being started during the test."""
    thread = SlowThread()
    starting = threading.Thread(target=threads.start, args=(thread,))
    starting.start()
    assert thread.is_starting.wait(PATIENCE)
    try:
        yield thread
    finally:
        thread.go_on.set()
        starting.join()
        thread.join()
        threads.stop_watching()
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_start_that_is_under_way_is_watched_too(slow: SlowThread) -> None:
    """The timer runs from the moment on at which starts are watched until the thread has started."""
    assert seconds_left() == 0
    threads.watch_starts()
    assert 0 < seconds_left() <= threads.START_TIME
    slow.go_on.set()
    wait_for(lambda: seconds_left() == 0)


def test_at_rest_no_timer_runs() -> None:
    """Once a thread has started, the timer is off."""
    threads.watch_starts()
    try:
        thread = threading.Thread(target=str)
        threads.start(thread)
        thread.join()
        assert seconds_left() == 0
    finally:
        threads.stop_watching()
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_threads_that_start_do_not_hide_one_that_never_does() -> None:
    """The timer of a start that hangs runs out, however many other threads are started meanwhile."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import threading, time
from dsmr_rest.process import threads
class Hung(threading.Thread):
    def start(self):
        threading.Event().wait()
threads.START_TIME = 2.0
threads.watch_starts()
hangs = threading.Thread(target=threads.start, args=(Hung(),), daemon=True)
hangs.start()
while True:
    threads.start(threading.Thread(target=str))
    time.sleep(0.01)
"""
    done = subprocess.run([sys.executable, '-c', script], check=False, timeout=PATIENCE)
    assert done.returncode == -signal.SIGALRM


def test_where_no_thread_is_being_started_no_timer_runs() -> None:
    """It would end a server that has nothing to start for a while."""
    threads.watch_starts()
    try:
        assert seconds_left() == 0
    finally:
        threads.stop_watching()
        signal.setitimer(signal.ITIMER_REAL, 0)
