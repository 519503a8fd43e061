"""The events of /stream, on real pseudo-terminals: readings, problems, and signs of life."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from dsmr_rest.api.places import FollowerPlaces
from dsmr_rest.api.service import Service
from dsmr_rest.api.stream import STREAM_RETRY, ReadingStream
from dsmr_rest.config import MeterSettings, ServerSettings
from dsmr_rest.http.message import Request
from dsmr_rest.meter.meter import Meter
from dsmr_rest.p1.reader import P1Reader
from dsmr_rest.simulated.meter import PseudoTerminal
from tests.conftest import (
    HOST,
    MISSING_PORT,
    StartServer,
    hush,
    new_meter,
    wait_for,
)
from tests.faulty_meter import FaultyMeter
from tests.telegrams import numbered, of_version

PATIENCE = 60.0
"""Seconds that an event may take."""
NO_READING = b': no reading\n\n'
REQUEST = Request('GET', '/stream', 'localhost', {}, keep_alive=True, is_last=False)


class Stream:
    """A stream on a meter, without HTTP. `beat`, and how long an unknown meter may be silent, are in seconds.

    `meter` are further settings of the meter.
    """

    def __init__(
        self,
        port: str,
        *,
        beat: float = 60.0,
        timeout: float = 30.0,
        silence: float = 2.0,
        **meter: float,
    ) -> None:
        settings = MeterSettings(port=port, timeout=timeout, **meter)  # type: ignore[arg-type]
        self.meter = Meter(P1Reader(settings, silence))
        service = Service(ServerSettings(), self.meter, FollowerPlaces(1))
        self.events = iter(ReadingStream(service, REQUEST, beat))
        self._pool = ThreadPoolExecutor(1)

    def next(self) -> bytes:
        """The next event; it must come within PATIENCE."""
        return self._pool.submit(next, self.events).result(PATIENCE)

    def rest(self) -> list[bytes]:
        """All further events; the stream must end within PATIENCE."""
        return self._pool.submit(list, self.events).result(PATIENCE)

    def close(self) -> None:
        """Ends the meter, and with it a stream that waits for an event."""
        self.meter.stop()
        self._pool.shutdown()

    @property
    def openings(self) -> int:
        return self.meter.counters.port_openings

    def errors(self, fault: str) -> int:
        """How often there was no reading because of this fault."""
        return self.meter.errors.counts().get(fault, 0)


Follow = Callable[..., Stream]


@pytest.fixture
def follow() -> Iterator[Follow]:
    """Opens streams, which end after the test."""
    with ExitStack() as stack:

        def open_stream(port: str, **options: Any) -> Stream:
            stream = Stream(port, **options)
            stack.callback(stream.close)
            return stream

        yield open_stream


def number(event: bytes) -> int:
    """The number in the telegram of a reading's event."""
    _, _, data = event.partition(b'data: ')
    return int(json.loads(data)['textMessage']['value'])


def code(event: bytes) -> str:
    """The fault of a problem's event."""
    first_line, _, data = event.partition(b'\n')
    assert first_line == b'event: problem'
    document: dict[str, Any] = json.loads(data.removeprefix(b'data: '))
    return str(document['code'])


def is_reading(event: bytes) -> bool:
    return event.startswith(b'id: ')


def some_telegrams(meter: FaultyMeter) -> None:
    """Returns when the meter has sent a few more telegrams."""
    sent = meter.sent
    wait_for(lambda: meter.sent > sent + 2)


def test_each_telegram_is_one_event(follow: Follow) -> None:
    """No telegram is missing and none comes twice; the data of an event is one line."""
    with new_meter(interval=1, source=numbered()) as meter:
        stream = follow(meter.port)
        events = [stream.next() for _ in range(4)]
        assert stream.openings == 1
    numbers = [number(event) for event in events]
    first, *_ = numbers
    assert numbers == list(range(first, first + 4))
    for event in events:
        assert event.count(b'\n') == 3
        assert event.endswith(b'\n\n')


def test_the_port_stays_open_for_a_client_that_is_busy(follow: Follow, meter: FaultyMeter) -> None:
    """Between two events the port is open, so that the next reading does not wait for a whole interval more."""
    stream = follow(meter.port)
    assert is_reading(stream.next())

    def stays_open() -> bool:
        openings = stream.openings
        some_telegrams(meter)
        assert is_reading(stream.next())
        return stream.openings == openings

    wait_for(stays_open)  # on a busy machine a few telegrams may take longer than STREAM_RETRY


def test_the_port_stays_open_for_as_long_as_the_setting_says(
    follow: Follow, meter: FaultyMeter
) -> None:
    """With [meter] keep_open set, a client may be busy for that long without the port being closed."""
    stream = follow(meter.port, keep_open=600)
    assert is_reading(stream.next())
    busy_until = time.monotonic() + 2 * STREAM_RETRY
    wait_for(lambda: time.monotonic() > busy_until)
    some_telegrams(meter)
    assert is_reading(stream.next())
    assert stream.openings == 1


def test_a_reading_is_no_event_twice(follow: Follow) -> None:
    """Not even with [meter] max_age set, which lets requests have a reading twice."""
    with new_meter(interval=0.5, source=numbered()) as meter:
        stream = follow(meter.port, max_age=3600)
        numbers = [number(stream.next()) for _ in range(4)]
    assert numbers == sorted(set(numbers))


def test_a_client_that_was_busy_for_longer_than_a_beat_gets_readings(
    follow: Follow, meter: FaultyMeter
) -> None:
    """However late it asks for its next event, the meter is waited for."""
    stream = follow(meter.port, beat=0.0)
    events = (stream.next() for _ in range(int(PATIENCE)))
    assert any(map(is_reading, events))


def test_a_busy_client_gets_the_newest_reading_at_once(follow: Follow, meter: FaultyMeter) -> None:
    """What arrived while a client was busy with an event need not arrive again."""
    stream = follow(meter.port)
    assert is_reading(stream.next())
    first = stream.meter.latest
    wait_for(lambda: stream.meter.latest is not first)
    hush(meter)
    assert is_reading(stream.next())


def test_a_problem_is_reported_once_until_there_is_a_reading(
    follow: Follow, meter: FaultyMeter
) -> None:
    """However often the same fault ends a wait, it is one event; after a reading it is news again."""
    stream = follow(meter.port, timeout=1.0)
    for silences in (1, 2):
        assert is_reading(stream.next())
        hush(meter)
        event = stream.next()
        while is_reading(event):  # one may have arrived before the silence
            event = stream.next()
        assert code(event) == 'meter_silent'
        with ThreadPoolExecutor(1) as pool:
            after_silence = pool.submit(stream.next)
            wait_for(lambda count=silences: stream.errors('meter_silent') > 2 * count)  # type: ignore[misc]
            meter.silent = False
            assert is_reading(after_silence.result())


def next_problem(stream: Stream) -> bytes:
    """The next event that is no reading."""
    event = stream.next()
    while is_reading(event):
        event = stream.next()
    return event


def test_another_problem_is_another_event(follow: Follow, meter: FaultyMeter) -> None:
    """First the port is lost, and then it is missing."""
    stream = follow(meter.port, silence=1000.0)
    assert is_reading(stream.next())
    hush(meter)
    with ThreadPoolExecutor(1) as pool:
        problem = pool.submit(next_problem, stream)
        wait_for(lambda: stream.meter.waiters)
        meter.unplug()
        assert code(problem.result()) == 'port_lost'
    assert code(stream.next()) == 'port_missing'


def test_a_stream_without_readings_shows_that_it_is_alive(follow: Follow) -> None:
    """A comment comes now and then; until then the port is tried again, but not all the time."""
    stream = follow(MISSING_PORT, beat=2.0)
    assert code(stream.next()) == 'port_missing'
    for _ in range(2):
        attempts_before = stream.errors('port_missing')
        assert stream.next() == NO_READING
        attempts = stream.errors('port_missing') - attempts_before
        assert 2 <= attempts < 5


def test_the_beat_comes_before_the_timeout_of_a_silent_meter(
    follow: Follow, meter: FaultyMeter
) -> None:
    """A long [meter] timeout does not silence a stream."""
    hush(meter)
    stream = follow(meter.port, beat=1.0, timeout=600.0)
    assert stream.next() == NO_READING
    event = stream.next()
    while event == NO_READING:
        event = stream.next()
    assert code(event) == 'meter_silent'
    assert stream.next() == NO_READING


def test_a_slow_meter_is_no_problem_for_a_stream(follow: Follow, meter: FaultyMeter) -> None:
    """Requests of little patience do not make a meter lost that is silent for no longer than it may be."""
    hush(meter)
    stream = follow(meter.port, beat=1.0, timeout=0.1, silence=1000.0)
    assert [stream.next() for _ in range(3)] == [NO_READING] * 3
    meter.silent = False
    assert is_reading(stream.next())


def test_the_silence_of_a_meter_begins_with_its_last_reading(follow: Follow) -> None:
    """However long a stream has been open, a meter may be silent after each reading."""
    silence = 6.0
    with closing(PseudoTerminal()) as terminal:
        stream = follow(terminal.name, beat=0.5, silence=silence, keep_open=600)
        for _ in range(3):
            stream.next()
        event = NO_READING
        while not is_reading(event):  # a busy machine may discard what it was too late for
            began = time.monotonic()
            terminal.write(of_version('5.0'))
            event = stream.next()
        while not event.startswith(b'event: problem'):
            event = stream.next()
        assert code(event) == 'meter_silent'
        assert time.monotonic() - began >= silence
        stream.close()


def test_a_stream_ends_when_the_meter_is_stopped(follow: Follow, meter: FaultyMeter) -> None:
    """It ends between two events, so that its client can connect again."""
    stream = follow(meter.port)
    assert is_reading(stream.next())
    stream.meter.stop()
    assert all(is_reading(event) for event in stream.rest())


def test_streams_leave_room_for_requests(start_server: StartServer, meter: FaultyMeter) -> None:
    """Of streams requested at the same time at most max_streams are opened, and HEAD does not take a place."""
    server = start_server(meter.port, server={'max_streams': 4})
    for _ in range(6):
        assert server.get('/stream', method='HEAD').status == 200
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(30)]
        for client in clients:
            client.sendall(f'GET /stream HTTP/1.1\r\n{HOST}\r\n'.encode())
        statuses = [client.recv(12)[-3:] for client in clients]
        assert 1 <= statuses.count(b'200') <= 4
        assert statuses.count(b'503') == 30 - statuses.count(b'200')
        assert server.get('/').status == 200


def test_one_connection_is_left_for_requests(start_server: StartServer, meter: FaultyMeter) -> None:
    """However many streams there may be, they never have all connections."""
    server = start_server(meter.port, server={'max_streams': 3, 'max_connections': 3})
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect(PATIENCE)) for _ in range(3)]
        for client in clients:
            client.sendall(f'GET /stream HTTP/1.1\r\n{HOST}\r\n'.encode())
        statuses = sorted(client.recv(12)[-3:] for client in clients)
    assert statuses == [b'200', b'200', b'503']
