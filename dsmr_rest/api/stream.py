"""The events of GET /stream: one per reading, a problem when the meter is lost, and a comment when all is quiet.

It does not know how events are sent: the HTTP server iterates over them, and closes them at the end.
"""

import time
from collections.abc import Iterator

from dsmr_rest.api.places import STREAMS
from dsmr_rest.api.service import Service, meter_problem
from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.http.message import Request
from dsmr_rest.reading.document import Reading

STREAM_BEAT = 15.0
"""Seconds without an event after which a stream sends a comment, so that its client knows that it is alive."""
STREAM_RETRY = 1.0
"""Seconds between a stream's attempts to open a lost port, and that the port is kept open for its next reading."""


class ReadingStream:
    """The events of one stream. It holds a place among the streams, which close() gives back.

    The stream is a waiter of the Meter that waits again after each reading. When there is no reading it reports a
    problem, once for each kind of fault in a row, and keeps trying: a fault of the port comes at once, so it pauses for
    STREAM_RETRY between attempts. Silence is a problem when it is longer than a healthy meter's, whatever the patience
    of requests. It ends when the meter is stopped. `beat` is in seconds, see STREAM_BEAT.
    """

    def __init__(self, service: Service, request: Request, beat: float = STREAM_BEAT) -> None:
        self._service = service
        self._beat = beat
        self._is_wanted = request.is_wanted
        self._keep_open = max(STREAM_RETRY, service.meter.reader.settings.keep_open)

    def __iter__(self) -> Iterator[bytes]:
        """Yields events (WHATWG HTML, server-sent events) as they happen."""
        latest: Reading | None = None
        reported: Fault | None = None
        last_event = time.monotonic()
        silent_since = last_event
        while True:
            try:
                latest = self._next_reading(latest, last_event)
            except MeterError as error:
                if error.fault is Fault.STOPPING:
                    return
                is_news = error.fault is not reported and not self._is_early(error, silent_since)
                is_quiet = time.monotonic() - last_event >= self._beat
                if not (is_news or is_quiet):
                    time.sleep(STREAM_RETRY)
                    continue
                event = b': no reading\n\n'
                if is_news:
                    event = _problem_event(error)
                    reported = error.fault
            else:
                event = _reading_event(latest)
                reported = None
                silent_since = time.monotonic()
            yield event
            last_event = time.monotonic()

    def close(self) -> None:
        self._service.places.leave(STREAMS)

    def _is_early(self, error: MeterError, silent_since: float) -> bool:
        """Whether the line is silent, but not for longer than a healthy meter may be."""
        silence = time.monotonic() - silent_since
        return error.fault is Fault.METER_SILENT and silence < self._service.meter.longest_silence

    def _next_reading(self, latest: Reading | None, last_event: float) -> Reading:
        """The next reading, if it arrives before it is time for a comment. Raises MeterError."""
        now = time.monotonic()
        deadline = min(now + self._service.meter.longest_silence, last_event + self._beat)
        deadline = max(deadline, now + STREAM_RETRY)
        return self._service.meter.read(
            deadline,
            max_age=0,
            after=latest,
            keep_open=self._keep_open,
            is_wanted=self._is_wanted,
        )


def _reading_event(reading: Reading) -> bytes:
    return b'id: %.3f\ndata: %s\n\n' % (reading.received, reading.line)


def _problem_event(error: MeterError) -> bytes:
    on_one_line = b' '.join(meter_problem(error).body.split())
    return b'event: problem\ndata: %s\n\n' % on_one_line
