"""How fresh a reading is, and that those who wait for one share it."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dsmr_rest.api.places import FollowerPlaces
from dsmr_rest.api.service import POLL_TIME, Service
from dsmr_rest.api.stream import ReadingStream
from dsmr_rest.config import MeterSettings, ServerSettings
from dsmr_rest.faults import NotWantedError
from dsmr_rest.http.message import Request
from dsmr_rest.meter.meter import Meter
from dsmr_rest.p1.reader import P1Reader
from dsmr_rest.reading.document import Reading
from tests.conftest import (
    MISSING_PORT,
    StartServer,
    new_meter,
    wait_for,
    wait_together,
)
from tests.faulty_meter import FaultyMeter


def test_a_client_states_how_old_a_reading_may_be(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """max-age in a request accepts a reading from memory; no-cache, max-age=0 and other directives do not."""
    server = start_server(meter.port)
    first = server.get('/')
    kept = server.get('/', {'Cache-Control': 'no-transform, MAX-AGE=60'})
    assert (kept.body, kept.headers['Last-Modified']) == (
        first.body,
        first.headers['Last-Modified'],
    )
    assert server.openings == 1
    for number, cache_control in enumerate(
        ('no-cache, max-age=60', 'max-age=0', 'only-if-cached'), 2
    ):
        server.get('/', {'Cache-Control': cache_control})
        assert server.openings == number


def test_max_age_of_the_configuration(start_server: StartServer, meter: FaultyMeter) -> None:
    """[meter] max_age is the default for requests without an age of their own; Age counts whole seconds."""
    server = start_server(meter.port, meter={'max_age': 60})
    first = server.get('/')
    wait_for(lambda: server.get('/').headers['Age'] == '1')
    assert server.get('/').body == first.body
    assert server.openings == 1
    began = time.monotonic()
    new = server.get('/', {'Cache-Control': 'no-cache'})
    assert int(new.headers['Age']) <= time.monotonic() - began
    assert server.openings == 2


def test_64_simultaneous_clients_share_a_telegram(start_server: StartServer) -> None:
    """As many clients as are allowed get the same 200 from one opening of the port."""
    with new_meter(interval=2) as meter, ThreadPoolExecutor(64) as pool:
        meter.hush()
        # Two for /health: one may be closing.
        server = start_server(meter.port, server={'max_connections': 66})
        waiting = wait_together(server, pool, 64, '/telegram')
        began = time.monotonic()
        meter.silent = False
        responses = [future.result() for future in waiting]
        assert {response.status for response in responses} == {200}
        assert len({response.body for response in responses}) == 1
        oldest = max(int(response.headers['Age']) for response in responses)
        assert oldest <= time.monotonic() - began
        assert server.openings == 1


def test_nobody_waits_for_a_client_that_has_gone() -> None:
    """Whatever it asked for: a reading, a poll or a stream of readings."""
    meter = Meter(P1Reader(MeterSettings(port=MISSING_PORT)))
    service = Service(ServerSettings(), meter, FollowerPlaces(1))
    request = Request('GET', '/', 'localhost', {}, True, False, is_wanted=lambda _: False)
    for wait in (
        lambda: service.reading(request),
        lambda: service.polled_reading(request),
        lambda: next(iter(ReadingStream(service, request))),
    ):
        with pytest.raises(NotWantedError):
            wait()
    assert meter.counters.port_openings == 0


class NotesDeadline(Meter):
    """A meter that notes until when it is to be read, and has no reading."""

    def read(self, deadline: float | None = None, *_: Any, **__: Any) -> Reading:
        self.deadline = deadline
        raise NotWantedError


@pytest.mark.parametrize(
    ('preferred', 'of_a_request', 'of_a_poll'),
    [(None, 30.0, POLL_TIME), (9999, 30.0, POLL_TIME), (5, 5.0, 5.0), (0, 0.0, 0.0)],
)
def test_a_client_may_shorten_its_wait_and_not_lengthen_it(
    preferred: int | None, of_a_request: float, of_a_poll: float
) -> None:
    """[meter] timeout is the longest wait, and for a client that polls the patience of such clients."""
    meter = NotesDeadline(P1Reader(MeterSettings(port=MISSING_PORT, timeout=30.0)))
    service = Service(ServerSettings(), meter, FollowerPlaces(1))
    headers = {}
    if preferred is not None:
        headers['prefer'] = f'wait={preferred}'
    request = Request('GET', '/', 'localhost', headers, True, False)
    for ask, seconds in ((service.reading, of_a_request), (service.polled_reading, of_a_poll)):
        before = time.monotonic()
        with pytest.raises(NotWantedError):
            ask(request)
        after = time.monotonic()
        assert meter.deadline is not None
        assert before + seconds <= meter.deadline <= after + seconds
