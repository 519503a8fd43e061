"""What the log says about the meter: when it is lost and when it is back, and when checksum failures begin and end.

It logs the edge, not the level: however many requests fail while the meter is lost, the log gets one line when it is
lost and one when it is back. This module decides which lines those are. It does not know why a reading failed, nor who
asked for it, and the caller provides the lock.
"""

import logging
from collections import deque

from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.p1.line import LONGEST_SILENCE, LineCounters
from dsmr_rest.process import clock
from dsmr_rest.reading.document import Reading

log = logging.getLogger(__name__)

CALM = 60.0
"""Seconds without a checksum failure after which the trouble is over."""
LONGEST_PAUSE = 3 * LONGEST_SILENCE
"""Seconds of waiting, all requests together, after which the meter is lost although each of them was short.

A telegram may fall between two short waits, but not between that many."""

_ONLY_TIME_TELLS = (Fault.METER_SILENT, Fault.TELEGRAM_INCOMPLETE)


class MeterLog:
    """Collects log lines while the caller holds its lock, and writes them when it does not: writing may block.

    All methods except write() must be called with the same lock held. `timeout` is the number of seconds that a request
    waits unless its client is less patient.
    """

    def __init__(self, timeout: float, calm: float = CALM) -> None:
        self._timeout = timeout
        self._calm = calm
        self._lines: deque[str] = deque()  # its append and popleft need no lock
        self._failing_since: float | None = None
        self._is_lost = False
        self._waited = 0.0  # seconds, since the last reading, in which at least one request waited
        self._waited_until = 0.0
        self._counters_at_last_reading = LineCounters()
        self._counters_before_trouble: LineCounters | None = (
            None  # set while there are checksum failures
        )
        self._last_checksum_failure = 0.0

    def port_failed(self, error: MeterError) -> None:
        """Notes a fault of the port: the meter is lost at once."""
        self._note_failure(clock.now())
        self._lose(error)

    def wait_failed(self, error: MeterError, began: float, silence: float) -> None:
        """Notes a wait, since the time `began`, in which no reading arrived.

        `silence` is how long this meter may be silent and not be lost, in seconds.
        """
        if error.fault is Fault.SERVER_STALLED:
            return  # the reader has logged it, and it says nothing about the meter
        now = clock.now()
        self._note_failure(began)
        # Waits overlap: the time in which several requests waited counts once.
        self._waited += now - max(began, self._waited_until)
        self._waited_until = now
        was_patient = now - began >= self._patience(error, silence)
        if was_patient or self._waited >= LONGEST_PAUSE:
            self._lose(error)

    def reading_arrived(self, reading: Reading, counters: LineCounters) -> None:
        """Notes a reading, and what was counted on the line until then."""
        if self._is_lost and self._failing_since is not None:
            seconds = reading.arrived - self._failing_since
            self._lines.append(f'meter back after {seconds:.0f} s: {reading.identification}')
        self._failing_since = None
        self._is_lost = False
        self._waited = 0.0
        self._note_checksum_failures(reading.arrived, counters)

    def write(self) -> None:
        """Logs the lines that were collected. Call it without the lock."""
        while True:
            try:
                line = self._lines.popleft()
            except IndexError:
                return
            log.warning('%s', line)

    def _patience(self, error: MeterError, silence: float) -> float:
        """Seconds without a reading after which a single wait means that the meter is lost.

        What arrived and was no telegram speaks for itself. Silence means nothing before the meter's interval is over,
        whatever the patience of the request.
        """
        patience = min(self._timeout, LONGEST_SILENCE)
        if error.fault in _ONLY_TIME_TELLS:
            patience = max(patience, silence)
        return patience

    def _note_failure(self, since: float) -> None:
        if self._failing_since is None:
            self._failing_since = since

    def _lose(self, error: MeterError) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._lines.append(f'meter lost: {error.fault.code}: {error.detail}')

    def _note_checksum_failures(self, now: float, counters: LineCounters) -> None:
        has_new_failures = counters.damaged > self._counters_at_last_reading.damaged
        before_trouble = self._counters_before_trouble
        if has_new_failures:
            self._last_checksum_failure = now
            if before_trouble is None:
                self._counters_before_trouble = self._counters_at_last_reading
                self._lines.append(
                    'telegrams arrive damaged, and are not served: check the plugs of the cable, and that no other'
                    ' program reads the port'
                )
        elif before_trouble is not None and now - self._last_checksum_failure > self._calm:
            during = counters.since(before_trouble)
            self._lines.append(
                f'telegrams arrive intact again: {during.damaged} were damaged,'
                f' {during.telegrams} were not'
            )
            self._counters_before_trouble = None
        self._counters_at_last_reading = counters
