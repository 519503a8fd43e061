"""The log on stderr, written in a thread of its own: no request ever waits for whoever reads it.

A terminal stopped with Ctrl-S, a pager or a hung log collector takes nothing, and a write to it waits for ever. So a
log record becomes a line of text in the thread that logs it, and goes into a queue. Where the queue is full, the line
is dropped and counted. The writing thread sleeps while the queue is empty. It writes to the file descriptor, not to
sys.stderr, whose lock it would hold while it waits.

logging.handlers has a QueueHandler, of which everything would have to be replaced here but one try statement. It loads
pickle, which takes 0.4 MB.
"""

import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from dsmr_rest.printable import PrintableFormatter
from dsmr_rest.process import threads

log = logging.getLogger(__name__)

LINES_LIMIT = 1000
"""Lines that wait to be written; a line is a record, with its traceback if it has one."""


class LogOutput(logging.Handler):
    """A logging handler that writes to a file descriptor without ever keeping the caller waiting."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_LIMIT)  # None ends the thread
        self._descriptor = descriptor
        self._count_lock = threading.Lock()  # guards _dropped
        self._dropped = 0  # lines since the last report of how many there were
        self._thread = threading.Thread(target=self._write_lines, name='log', daemon=True)

    def start(self) -> None:
        """Starts to write. Raises threads.NoThreadError."""
        threads.start(self._thread)

    def finish(self, seconds: float) -> None:
        """Waits for at most that long until all lines have been written; later ones are not."""
        deadline = time.monotonic() + seconds
        try:
            self._lines.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging. What the record refers to, such as the frames of an exception, is not kept."""
        try:
            line = self.format(record)
        # Whatever is wrong with the record must not fail the request that logs it.
        except Exception:  # noqa: BLE001 as logging's own handlers do
            self.handleError(record)
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._count_dropped(1)

    def _write_lines(self) -> None:
        """The thread."""
        line = self._lines.get()
        while line is not None:
            if not self._write(line):
                self._count_dropped(1)
            elif self._lines.empty():
                self._report_dropped()
            line = self._lines.get()

    def _write(self, line: str) -> bool:
        """Writes a line, however long that takes. False when it cannot be written, on a full disk for example."""
        unwritten = line.encode(errors='backslashreplace') + b'\n'
        try:
            while unwritten:
                unwritten = unwritten[self._write_some(unwritten) :]
        except OSError:
            return False
        return True

    def _write_some(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # another program has made the terminal non-blocking
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0

    def _count_dropped(self, lines: int) -> None:
        with self._count_lock:
            self._dropped += lines

    def _report_dropped(self) -> None:
        with self._count_lock:
            dropped = self._dropped
            self._dropped = 0
        if not dropped:
            return
        text = f'{dropped} lines of the log are missing here, because they could not be written'
        record = logging.makeLogRecord({'levelno': logging.WARNING, 'msg': text})
        if not self._write(self.format(record)):
            self._count_dropped(dropped)


def log_to_stderr(*, verbose: bool) -> Callable[[float], None]:
    """Sends the log to stderr, and what a thread dies of to the log. Raises threads.NoThreadError.

    Returns the function that waits, for at most so many seconds, until the last lines have been written.
    """
    logging.raiseExceptions = (
        False  # logging would write about its own errors to stderr, and might wait
    )
    threading.excepthook = _log_death
    if (
        sys.stderr is None
    ):  # closed by whoever started the server; the descriptor may be something else's by now
        logging.basicConfig(handlers=[logging.NullHandler()])
        return lambda _seconds: None
    output = LogOutput(sys.stderr.fileno())
    output.setFormatter(PrintableFormatter('%(asctime)s %(message)s'))
    level = logging.WARNING
    if verbose:
        level = logging.INFO
    logging.basicConfig(level=level, handlers=[output])
    output.start()
    return output.finish


def _log_death(death: threading.ExceptHookArgs) -> None:
    """One line, in the form of the log, about a thread that ended with an error."""
    name = 'a thread'
    if death.thread is not None:
        name = f'the thread {death.thread.name}'
    log.error('%s failed: %s', name, _in_one_line(death))


def _in_one_line(death: threading.ExceptHookArgs) -> str:
    error = death.exc_type.__name__
    if death.exc_value is not None and str(death.exc_value):
        error = f'{error}: {death.exc_value}'
    if death.exc_traceback is None:
        return error
    return f'{error} ({_innermost(death.exc_traceback)})'


def _innermost(traceback: TracebackType) -> str:
    """The line of code at which an error was raised."""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f'{traceback.tb_frame.f_code.co_filename}, line {traceback.tb_lineno}'
