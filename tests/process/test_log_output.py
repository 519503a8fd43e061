"""The log on a descriptor that takes nothing, or to which some lines cannot be written."""

import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from dsmr_rest.process.log_output import LINES_LIMIT, LogOutput, log_to_stderr
from tests.conftest import ROOT, wait_for

PATIENCE = 60.0
MISSING = 'lines of the log are missing here'
TOO_LONG = 'x' * 4_000_000
"""A line that cannot be written to a socket of messages."""


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({'msg': text})


def log_thread() -> threading.Thread:
    """The thread that writes the log."""
    (thread,) = (thread for thread in threading.enumerate() if thread.name == 'log')
    return thread


@contextmanager
def log_to(descriptor: int, drain: Callable[[], object]) -> Iterator[LogOutput]:
    """A log; at the end `drain` is called again and again until all lines have been written."""
    output = LogOutput(descriptor)
    output.start()
    thread = log_thread()
    try:
        yield output
    finally:
        ending = threading.Thread(target=output.finish, args=(PATIENCE,))
        ending.start()
        while thread.is_alive():
            drain()
            thread.join(0.01)
        ending.join()


# Lines that cannot be written.


class Messages:
    """A log to a socket, to which each line is a message of its own, and the lines that were written to it."""

    def __init__(self) -> None:
        self._receiving, self._sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._receiving.settimeout(PATIENCE)

    @contextmanager
    def log(self) -> Iterator[LogOutput]:
        with (
            self._receiving,
            self._sending,
            log_to(self._sending.fileno(), drain=lambda: None) as output,
        ):
            yield output

    def next(self) -> str:
        return self._receiving.recv(65536).decode().rstrip('\n')


def test_what_cannot_be_written_is_counted_once() -> None:
    """When lines can be written again, the log says how many are missing, once."""
    messages = Messages()
    with messages.log() as output:
        for text in (TOO_LONG, TOO_LONG, TOO_LONG, 'first'):
            output.handle(record(text))
        assert messages.next() == 'first'
        assert messages.next().startswith(f'3 {MISSING}')
        for text in ('second', 'third'):
            output.handle(record(text))
            assert messages.next() == text


def test_a_record_that_cannot_be_formatted_fails_nobody() -> None:
    """A record whose arguments do not match costs its line, and not the request that logs it."""
    messages = Messages()
    wrong = logging.makeLogRecord({'msg': '%d', 'args': ('text',)})
    with messages.log() as output:
        output.handle(wrong)
        output.handle(record('next'))
        assert messages.next() == 'next'


class LongAtFirst(logging.Formatter):
    """The line that says what is missing cannot be written when it is made for the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.was_missing = threading.Event()

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if MISSING in text and not self.was_missing.is_set():
            self.was_missing.set()
            return TOO_LONG
        return text


def test_a_count_that_cannot_be_written_is_kept() -> None:
    """When even the line cannot be written that says how many are missing, the next one says it."""
    messages = Messages()
    with messages.log() as output:
        formatter = LongAtFirst()
        output.setFormatter(formatter)
        for text in (TOO_LONG, TOO_LONG, TOO_LONG, 'first'):
            output.handle(record(text))
        assert messages.next() == 'first'
        assert formatter.was_missing.wait(PATIENCE)
        output.handle(record('second'))
        assert messages.next() == 'second'
        assert messages.next().startswith(f'3 {MISSING}')


# A pipe that nobody reads.


class FullPipe:
    """A pipe that is full, and does not block."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self.writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.writing, b'.' * 4096)
        self.received = b''

    def drain(self) -> None:
        """Reads what is in it."""
        with suppress(BlockingIOError):
            while data := os.read(self._reading, 65536):
                self.received += data

    def close(self) -> None:
        self.drain()
        os.close(self._reading)
        os.close(self.writing)


def test_what_does_not_fit_is_counted() -> None:
    """When a pipe is read again, the log has the lines that could wait, and how many could not."""
    logged = LINES_LIMIT + 500
    pipe = FullPipe()

    def lines_and_count() -> re.Match[bytes] | None:
        pipe.drain()
        return re.search(rb'((?:waits\n)+)(\d+) ' + MISSING.encode(), pipe.received)

    with log_to(pipe.writing, pipe.drain) as output:
        for _ in range(logged):
            output.handle(record('waits'))
        found = wait_for(lines_and_count)
    pipe.close()
    assert found[1].count(b'waits') + int(found[2]) == logged


def test_the_end_does_not_wait_for_who_takes_nothing() -> None:
    """However many lines wait for a pipe that nobody reads, finish() returns."""
    for lines in (1, LINES_LIMIT + 10):
        pipe = FullPipe()
        with log_to(pipe.writing, pipe.drain) as output:
            for _ in range(lines):
                output.handle(record('waits'))
            ending = threading.Thread(target=output.finish, args=(0.1,))
            ending.start()
            ending.join(PATIENCE)
            has_ended = not ending.is_alive()
        ending.join()
        pipe.close()
        assert has_ended


def test_the_end_waits_for_the_last_lines() -> None:
    """As long as it may, finish() waits for who takes the lines late; then all have been written."""
    pipe = FullPipe()
    with log_to(pipe.writing, pipe.drain) as output:
        output.handle(record('the last line'))
        ending = threading.Thread(target=output.finish, args=(PATIENCE,))
        ending.start()
        ending.join(0.3)
        waited = ending.is_alive()
    ending.join()
    pipe.close()
    assert waited
    assert pipe.received.endswith(b'the last line\n')


def test_a_pipe_that_does_not_block_is_waited_for_asleep() -> None:
    """Where another program has made the terminal non-blocking, a line waits without using the processor."""
    pipe = FullPipe()
    with log_to(pipe.writing, pipe.drain) as output:
        output.handle(record('waits'))
        ident = log_thread().ident
        assert ident is not None
        clock = time.pthread_getcpuclockid(ident)
        before = time.clock_gettime(clock)
        time.sleep(0.5)
        assert time.clock_gettime(clock) - before < 0.1
    pipe.close()
    assert pipe.received.endswith(b'waits\n')


# What a process sends there.


@contextmanager
def without_stderr() -> Iterator[Callable[[float], None]]:
    """A block in which this process logs as one that was started with stderr closed; the function that ends that."""
    with pytest.MonkeyPatch.context() as process:
        # What is changed for the whole process, so that it is as before afterwards.
        process.setattr(logging, 'raiseExceptions', logging.raiseExceptions)
        process.setattr(threading, 'excepthook', threading.excepthook)
        process.setattr(logging.getLogger(), 'handlers', [])
        with process.context() as closed:
            closed.setattr(sys, 'stderr', None)
            finish = log_to_stderr(verbose=True)
        yield finish


def test_without_stderr_the_log_goes_nowhere() -> None:
    """Where stderr is closed, its descriptor may be some other file's by now, to which no line is written."""
    with without_stderr() as finish:
        (handler,) = logging.getLogger().handlers
        finish(PATIENCE)
    assert isinstance(handler, logging.NullHandler)


def test_a_thread_that_dies_is_one_line_of_the_log() -> None:
    """Whatever a thread dies of, the log has one line in its own form, without a traceback."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import threading
from dsmr_rest.process.log_output import log_to_stderr
finish = log_to_stderr(verbose=False)
thread = threading.Thread(target=lambda: int('two\\nlines'), name='example')
thread.start()
thread.join()
finish(10)
"""
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=True
    )
    (line,) = done.stderr.splitlines()
    assert 'the thread example failed: ValueError: invalid literal for int()' in line
    assert line.endswith('(<string>, line 7)')


EXAMPLE = threading.Thread(name='example')


@pytest.mark.parametrize(
    ('death', 'line'),
    [
        ((OSError, OSError('why'), None, EXAMPLE), 'the thread example failed: OSError: why'),
        ((MemoryError, MemoryError(), None, EXAMPLE), 'the thread example failed: MemoryError'),
        ((MemoryError, None, None, None), 'a thread failed: MemoryError'),
    ],
)
def test_a_death_of_which_little_is_known_is_one_line(
    death: Any, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a thread that dies when memory is short, Python may not even know which it was."""
    with without_stderr():
        logging.getLogger().addHandler(caplog.handler)
        threading.excepthook(threading.ExceptHookArgs(death))
    assert caplog.messages == [line]
