"""Meter: one port, shared by all who wait. The only module (simulated meter aside) with threads and locks of its own.

Whoever waits counts itself in and sleeps on the one Condition. The first starts the reading thread, which hands each
telegram, or a fault of the port, to all who wait at that moment, and closes the port when nobody does. A reading is
never changed, so it is handed over by reference. Nothing blocks and nothing is rendered while the lock is held.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.p1_reader import LONGEST_SILENCE, P1Reader
from dsmr_rest.reading import Reading
from dsmr_rest.serial_line import LineCounters

log = logging.getLogger(__name__)

STOP_TIME = 1.0
"""Seconds for the reading thread to end: it looks up from a silent port every TICK, but connecting may take longer."""

SLOW = 2.0
"""Seconds between telegrams from which a meter is slow: up to DSMR 4 they speak every 10 s, later every 1 s."""
POLL_PAUSE = 90.0
"""Seconds that a slow meter's port stays open behind a poll: Prometheus polls every minute unless told otherwise."""
LONG = 3 * LONGEST_SILENCE
"""Seconds of short waits in vain before the meter is called lost: a telegram may fall between two, not three."""
CALM = 60.0
"""Seconds of telegrams with right checksums before checksum trouble is over."""


class Tally:
    """Counts by name, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _counts
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """One more."""
        with self._lock:
            self._counts[name] += 1

    def counts(self) -> dict[str, int]:
        """All counts so far, by name in order."""
        with self._lock:
            return dict(sorted(self._counts.items()))


class Meter:
    """The meter as any number of threads see it. `on_first` is called once, by the reading thread, with a reading."""

    def __init__(self, reader: P1Reader, on_first: Callable[[Reading], None] = lambda _: None) -> None:
        self.reader = reader
        self._on_first = on_first
        self.errors = Tally()
        self._settings = reader.settings
        # Guards all below. The reading thread wakes all who wait when _event has moved; stop() wakes them too.
        self._changed = threading.Condition()
        self._event = 0  # moves with every telegram and every fault
        self._waiting = 0  # how many wait for it to move
        self._latest: Reading | None = None
        self._interval: float | None = None  # seconds between the last two telegrams of one opening
        self._fault: MeterError | None = None  # what the last event was, when it was no telegram
        self._keep_open = 0.0  # the longest that those who wait ask for
        self._open_until = 0.0
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._watch = _Watch(min(self._settings.timeout, LONGEST_SILENCE))

    @property
    def latest(self) -> Reading | None:
        """The last reading, of whatever age."""
        return self._latest

    def read(
        self,
        deadline: float | None = None,
        max_age: float | None = None,
        after: Reading | None = None,
        keep_open: float | None = None,
    ) -> Reading:
        """A reading that arrives before `deadline` (monotonic), is at most `max_age` s old, or newer than `after`.

        The port stays open for `keep_open` s behind it. What is not given is as in the settings. Raises MeterError: at
        once for a fault of the port, at the deadline for a silent or garbled line, and when the meter is stopped.
        """
        began = time.monotonic()
        deadline = began + self._settings.timeout if deadline is None else deadline
        max_age = self._settings.max_age if max_age is None else max_age
        keep_open = self._settings.keep_open if keep_open is None else keep_open
        with self._changed:
            latest = self._latest
            if latest and ((after and latest is not after) or (max_age and began - latest.arrived <= max_age)):
                self._open_until = max(self._open_until, began + keep_open)
                return latest
            self._keep_open = max(self._keep_open, keep_open)
            outcome = self._wait(began, deadline)
        if isinstance(outcome, Reading):
            return outcome
        self.errors.add(outcome.fault.code)
        self._watch.tell()
        raise MeterError(outcome.fault, outcome.detail)  # one of its own: many may wait for the same fault

    def poll(self, deadline: float) -> Reading:
        """A reading for a client that asks again and again, perhaps more often than the meter speaks.

        It may be as old as the time between two telegrams, and a slow meter's port stays open until the next poll.
        """
        interval = min(self._interval or LONGEST_SILENCE, LONGEST_SILENCE)
        return self.read(
            deadline,
            max_age=max(self._settings.max_age, 0.0 if self._fault else interval),
            keep_open=max(self._settings.keep_open, POLL_PAUSE if interval > SLOW else 0.0),
        )

    def open(self, seconds: float) -> None:
        """Opens the port for so long, before anybody asks."""
        with self._changed:
            self._open_until = time.monotonic() + seconds
            self._start()

    def _wait(self, began: float, deadline: float) -> Reading | MeterError:
        seen = self.reader.counters
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            event = self._event
            self._start()
            self._waiting += 1
            self._changed.wait_for(lambda event=event: self._event != event or self._stopping, left)  # type: ignore[misc]
            if self._event == event:
                self._waiting -= 1
            elif self._fault:
                return self._fault
            elif self._latest and self._latest.arrived >= began:
                return self._latest
        if self._stopping:
            return MeterError(Fault.STOPPING, 'the server is stopping')
        error = self.reader.nothing_usable(seen, time.monotonic() - began)
        self._watch.failed(error, began)
        return error

    def counters(self) -> dict[str, Any]:
        """What happened since the start, by name; errors by code."""
        seen = self.reader.counters
        return {
            'telegrams': seen.telegrams,
            'checksumFailures': seen.checksum_failures,
            'incompleteTelegrams': seen.incomplete_telegrams,
            'decryptionFailures': seen.decryption_failures,
            'portOpenings': seen.port_openings,
            'portLosses': seen.port_losses,
            'receivedBytes': seen.received_bytes,
            'errorsByCode': self.errors.counts(),
        }

    def stop(self) -> None:
        """Ends the reading thread and every wait; takes at most STOP_TIME."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread:
            thread.join(STOP_TIME)

    def _start(self) -> None:
        if not self._thread:
            thread = threading.Thread(target=self._run, name='meter', daemon=True)
            thread.start()  # may fail: what has not started must not stand for what reads
            self._thread = thread

    def _run(self) -> None:
        """The reading thread, and where its errors end: whatever fails, those who wait are told."""
        while True:
            fault = None
            try:
                self._read_until_idle()
            except MeterError as error:
                fault = MeterError(error.fault, error.detail)  # without the frames, which hold the port
            except Exception as error:
                if not self._fault:  # an edge of it, as of all else
                    log.exception('reading failed')
                fault = MeterError(Fault.PORT_LOST, f'{self._settings.port} could not be read: {error}')
            with self._changed:
                if fault:
                    self._watch.failed(fault)
                    self._hand_out(fault)
                ends = self._stopping or not self._waiting
                if ends:
                    self._thread = None
            self._watch.tell()
            if ends:
                return

    def _read_until_idle(self) -> None:
        before: Reading | None = None  # in this opening
        with closing(self.reader.read()) as readings:
            for reading in readings:
                first = self._latest is None
                with self._changed:
                    if reading:
                        self._watch.works(reading, self.reader.counters)
                        self._interval = reading.arrived - before.arrived if before else self._interval
                        self._latest = before = reading
                        self._open_until = max(self._open_until, time.monotonic() + self._keep_open)
                        self._hand_out(None)
                    idle = self._stopping or not (self._waiting or time.monotonic() < self._open_until)
                self._watch.tell()
                if reading and first:
                    self._on_first(reading)
                if idle:
                    return

    def _hand_out(self, fault: MeterError | None) -> None:
        self._fault = fault
        self._event += 1
        self._waiting = 0
        self._keep_open = 0.0
        self._changed.notify_all()


class _Watch:
    """Notes when the meter is lost and back, to log the edge and not the level. Used under the meter's lock.

    Only tell() is not: writing a log may block.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience  # seconds without a reading before the meter is called lost: a client may wait less
        self._since: float | None = None
        self._lost = False
        self._waited = self._waited_until = 0.0  # seconds that somebody waited since the last reading, and until when
        self._checked = LineCounters()  # at the last telegram
        self._trouble: LineCounters | None = None  # as it was when checksum failures began
        self._trouble_at = 0.0
        self._lines: deque[str] = deque()

    def tell(self) -> None:
        """Logs what was noted."""
        while self._lines:
            with suppress(IndexError):  # another thread told it
                log.warning(self._lines.popleft())

    def failed(self, error: MeterError, began: float | None = None) -> None:
        """There was no reading: at once for a fault, from `began` on for a line that gave none."""
        now = time.monotonic()
        self._since = self._since or began or now
        in_vain = began is None or now - began >= self._patience
        if began is not None:
            self._waited += now - max(began, self._waited_until)
            self._waited_until = now
        if not self._lost and (in_vain or self._waited >= LONG):
            self._lost = True
            self._lines.append(f'meter lost: {error.fault.code}: {error.detail}')

    def works(self, reading: Reading, seen: LineCounters) -> None:
        """There is a reading."""
        if self._lost and self._since is not None:
            self._lines.append(f'meter back after {reading.arrived - self._since:.0f} s: {reading.identification}')
        self._since, self._lost, self._waited = None, False, 0.0
        if seen.checksum_failures > self._checked.checksum_failures:
            self._trouble_at = reading.arrived
            if not self._trouble:
                self._trouble = self._checked
                self._lines.append('checksum trouble begins: telegrams arrive damaged')
        elif self._trouble and reading.arrived - self._trouble_at > CALM:
            during = seen.since(self._trouble)
            self._lines.append(
                f'checksum trouble is over: {during.checksum_failures} telegrams were damaged, {during.telegrams} good'
            )
            self._trouble = None
        self._checked = seen
