"""Service: what every route works with, and what the responses made of a reading have in common.

It knows the Meter and what a request says about time (deadline, age); it does not know any path.
"""

import time

from dsmr_rest.api.places import FollowerPlaces
from dsmr_rest.config import ServerSettings
from dsmr_rest.faults import MeterError
from dsmr_rest.http.message import Request, Response, http_date, problem
from dsmr_rest.meter.meter import Meter
from dsmr_rest.meter.tally import Tally
from dsmr_rest.process import clock
from dsmr_rest.reading.document import Reading

POLL_TIME = 9.5
"""Seconds to respond to a client that polls: Prometheus and Home Assistant give up after 10."""


class Service:
    """What the routes work with: the settings, the meter, and the server's own counts.

    `responses` counts by HTTP status. `places` has a place for every stream that may be open at a time.
    """

    def __init__(self, settings: ServerSettings, meter: Meter, places: FollowerPlaces) -> None:
        self.settings = settings
        self.meter = meter
        self.places = places
        self.responses = Tally()

    @property
    def timeout(self) -> float:
        """Seconds that a request waits for a telegram, unless it prefers to wait for less."""
        return self.meter.reader.settings.timeout

    def reading(self, request: Request, max_age: float | None = None) -> Reading:
        """The reading that a request asks for; `max_age` in seconds if it does not say. Raises MeterError."""
        if request.max_age is not None:
            max_age = request.max_age
        deadline = _deadline(request, self.timeout)
        return self.meter.read(
            deadline,
            max_age,
            is_wanted=request.is_wanted,
        )

    def polled_reading(self, request: Request, patience: float = POLL_TIME) -> Reading:
        """The reading for a client that polls and waits for at most `patience` seconds. Raises MeterError."""
        longest = min(patience, self.timeout)
        deadline = _deadline(request, longest)
        return self.meter.poll(deadline, request.is_wanted)


def _deadline(request: Request, timeout: float) -> float:
    """The monotonic time at which a request ends: after the timeout, or earlier if the client prefers that."""
    now = time.monotonic()
    if request.wait is None:
        return now + timeout
    return now + min(timeout, request.wait)


def meter_problem(error: MeterError) -> Response:
    """The response when there is no reading."""
    return problem(error.fault, error.detail)


def freshness(reading: Reading) -> dict[str, str]:
    """The header fields that say how old a reading is (RFC 9111)."""
    age = int(clock.now() - reading.arrived)
    second_of_arrival = int(reading.received)
    return {
        'Age': str(age),
        'Last-Modified': http_date(second_of_arrival),
        'Cache-Control': 'no-cache',
    }
