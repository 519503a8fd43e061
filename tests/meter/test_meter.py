"""The shared meter in this process, on simulated meters at real pseudo-terminals."""

import fcntl
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import Fault, MeterError, NotWantedError
from dsmr_rest.meter.log import CALM, MeterLog
from dsmr_rest.meter.meter import LATE, POLL_PAUSE, Meter
from dsmr_rest.p1.reader import P1Reader
from dsmr_rest.process import clock, threads
from dsmr_rest.reading.document import Reading, make_reading
from dsmr_rest.reading.specification import Chooser
from dsmr_rest.simulated.meter import SimulatedMeter
from tests.conftest import MISSING_PORT, is_free, new_meter, wait_for
from tests.faulty_meter import FaultyMeter
from tests.telegrams import framed, from_lines, numbered

MANY = 64
PROMPTLY = 0.5
"""Seconds: how much later than its deadline a wait may end."""

StartMeter = Callable[..., Meter]


@pytest.fixture
def start_meter() -> Iterator[StartMeter]:
    """Makes shared meters from settings, and stops them after the test."""
    with ExitStack() as stack:

        def start(port: str, calm: float = CALM, **settings: Any) -> Meter:
            shared = Meter(P1Reader(MeterSettings(port=port, **settings)), calm=calm)
            stack.callback(shared.stop)
            return shared

        yield start


def outcome(shared: Meter, seconds: float = 20, **options: Any) -> Reading | str:
    """A reading, or the code of the fault."""
    try:
        return shared.read(time.monotonic() + seconds, **options)
    except MeterError as error:
        return error.fault.code


def kind(result: Reading | str) -> str:
    """'reading' for a reading, and the code of a fault."""
    if isinstance(result, Reading):
        return 'reading'
    return result


@contextmanager
def together(count: int, task: Callable[[int], Any]) -> Iterator[list[Any]]:
    """Runs a task `count` times at once; the list has all results after the block."""
    ready = threading.Barrier(count + 1)
    results: list[Any] = []

    def run(number: int) -> Any:
        ready.wait()
        return task(number)

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run, number) for number in range(count)]
        ready.wait()
        yield results
        results += [future.result() for future in futures]


def openings(shared: Meter) -> int:
    return shared.counters.port_openings


def has_thread() -> bool:
    """Whether the reading thread of a meter is running."""
    return 'meter' in {thread.name for thread in threading.enumerate()}


def next_telegram(meter: SimulatedMeter) -> None:
    """Returns when a telegram has just been sent."""
    sent = meter.sent
    wait_for(lambda: meter.sent > sent)


def fault(meter: FaultyMeter, **attributes: Any) -> None:
    """Sets faults of a meter, and returns when the telegrams on the line have them."""
    for name, value in attributes.items():
        setattr(meter, name, value)
    for _ in range(2):  # the meter may have been about to send the first one as it was
        last = meter.last
        wait_for(lambda last=last: meter.last is not last)  # type: ignore[misc]


def number(reading: Reading) -> int:
    return int(reading.document['textMessage']['value'])


# Sharing and freshness


def test_simultaneous_requests_share_one_telegram(start_meter: StartMeter) -> None:
    """64 threads at once get the same reading from one opening, and it is not older than any of the requests."""
    with new_meter(interval=1) as meter:
        shared = start_meter(meter.port)

        def request(_: int) -> tuple[float, Reading | str]:
            return clock.now(), outcome(shared)

        next_telegram(meter)
        with together(MANY, request) as results:
            pass
    readings = [reading for _, reading in results]
    assert isinstance(readings[0], Reading)
    assert all(reading is readings[0] for reading in readings)
    assert all(readings[0].arrived >= requested for requested, _ in results)
    assert shared.counters.telegrams == openings(shared) == 1


def test_the_port_is_closed_between_requests_and_no_telegram_is_old(
    start_meter: StartMeter,
) -> None:
    """Telegrams sent while there was no request are never returned, and then another program may have the port."""
    with new_meter(interval=0.1, source=numbered()) as meter:
        shared = start_meter(meter.port)
        for request in range(1, 6):
            wait_for(lambda: is_free(meter.port))
            for _ in range(3):
                next_telegram(meter)
            sent = meter.sent
            requested = clock.now()
            reading = shared.read()
            assert reading.arrived >= requested
            assert number(reading) > sent
            assert openings(shared) == request
        wait_for(lambda: is_free(meter.port))
        wait_for(lambda: not has_thread())


class ScriptedReader(P1Reader):
    """A reader without a port: it generates what `script` does, which starts again when the port is opened again."""

    def __init__(self, script: Callable[[], Iterator[Reading | None]]) -> None:
        super().__init__(MeterSettings(port=MISSING_PORT))
        self.script = script

    def read(self) -> Generator[Reading | None, None, None]:
        yield from self.script()


def arrived_at(seconds: float) -> Reading:
    """A reading that arrived at this time of clock.py."""
    telegram = framed(from_lines('1-0:1.7.0(00.355*kW)'))
    return make_reading(telegram, Chooser('auto'), 0.0, seconds, encrypted=False)


@pytest.mark.parametrize(
    ('result', 'is_lost_after'), [('reading', False), ('reading', True), ('port_lost', True)]
)
def test_one_event_ends_every_wait(result: str, *, is_lost_after: bool) -> None:
    """All who wait get the reading, or the fault, when it is there: not at their deadlines, and not what comes next."""
    is_due = threading.Event()

    def once() -> Iterator[Reading | None]:
        while not is_due.wait(0.01):
            yield None
        is_due.clear()
        if result == 'reading':
            yield arrived_at(clock.now())
        if is_lost_after:
            raise MeterError(Fault.PORT_LOST, 'pulled out')
        yield from and_silence(iter([]))

    shared = Meter(ScriptedReader(once))
    shared.open(60)
    ended: list[str] = []

    def wait(_: int) -> None:
        ended.append(kind(outcome(shared, 3600)))

    with together(MANY, wait):
        try:
            wait_for(lambda: shared.waiters == MANY)
            is_due.set()
            wait_for(lambda: len(ended) == MANY, 20)
        finally:
            shared.stop()
    assert set(ended) == {result}


def and_silence(readings: Iterator[Reading]) -> Iterator[Reading | None]:
    """These readings, and then a line that stays silent."""
    yield from readings
    while True:
        time.sleep(0.01)
        yield None


def test_a_telegram_from_before_the_request_is_not_its_response() -> None:
    """A telegram that arrived before a request, but is handed out after it, is passed over for the next one."""
    old = arrived_at(clock.now() - 0.001)
    new = arrived_at(clock.now() + 3600)
    readings = iter([old, new])
    shared = Meter(ScriptedReader(lambda: and_silence(readings)))
    assert shared.read() is new
    shared.stop()


def test_only_a_telegram_from_before_the_request_is_a_silent_meter() -> None:
    """When nothing follows a telegram that arrived before the request, the wait ends at its deadline without it."""
    old = arrived_at(clock.now() - 0.001)
    readings = iter([old])
    shared = Meter(ScriptedReader(lambda: and_silence(readings)))
    assert outcome(shared, 0.2) == 'meter_silent'
    assert shared.latest is old
    shared.stop()


def test_an_accepted_age_is_served_from_memory(
    start_meter: StartMeter, meter: SimulatedMeter
) -> None:
    """With max_age the last reading is returned while it is that young; without it never."""
    shared = start_meter(meter.port, max_age=60)
    first = shared.read(max_age=60)
    assert shared.read() is first
    assert shared.read(max_age=30) is first
    assert shared.latest is first
    assert openings(shared) == 1
    second = shared.read(max_age=0)
    assert second is not first
    wait_for(lambda: clock.now() - second.arrived > 0.2)
    assert shared.read(max_age=0.1) is not second


def test_a_slow_follower_delays_nobody_and_skips_to_the_newest(start_meter: StartMeter) -> None:
    """While one follower of the meter is slow, others get every telegram; then it gets the newest, not the next."""
    with new_meter(interval=0.1, source=numbered()) as meter:
        shared = start_meter(meter.port, keep_open=5)
        slow = shared.read()
        seen = [slow]
        for _ in range(5):
            seen.append(shared.read(after=seen[-1]))
        numbers = [number(reading) for reading in seen]
        assert numbers == sorted(set(numbers))
        newest = shared.read(after=slow)
        assert number(newest) >= numbers[-1]
        assert openings(shared) == 1


# How long the port is open


def test_keep_open_keeps_the_port_for_a_while(
    start_meter: StartMeter, meter: SimulatedMeter
) -> None:
    """After a reading the port stays open for keep_open seconds: the next request needs no opening."""
    shared = start_meter(meter.port, keep_open=0.6)
    shared.read()
    assert not is_free(meter.port)
    shared.read()
    assert openings(shared) == 1
    wait_for(lambda: is_free(meter.port))
    shared.read()
    assert openings(shared) == 2


def test_a_reading_from_memory_keeps_the_port_open(
    start_meter: StartMeter, meter: SimulatedMeter
) -> None:
    """A request that is served from memory prolongs the time for which the port stays open."""
    shared = start_meter(meter.port, keep_open=0.5)
    shared.read()
    shared.read(max_age=60, keep_open=3600)
    sent = meter.sent
    wait_for(lambda: meter.sent > sent + 4)
    assert not is_free(meter.port)
    assert openings(shared) == 1


def test_the_port_is_kept_open_for_whoever_asks_for_most(
    start_meter: StartMeter, meter: FaultyMeter
) -> None:
    """Of those who get a reading together the last need not be the one who wants the next one soon."""
    meter.hush()
    shared = start_meter(meter.port)
    with ThreadPoolExecutor(2) as pool:
        readings = []
        for keep_open in (3600, 0):
            readings.append(pool.submit(shared.read, keep_open=keep_open))
            wait_for(lambda: shared.waiters == len(readings))
        meter.silent = False
        assert readings[0].result() is readings[1].result()
    sent = meter.sent
    wait_for(lambda: meter.sent > sent + 4)
    assert not is_free(meter.port)
    assert openings(shared) == 1


def test_a_wait_that_is_over_does_not_keep_the_port_open(
    start_meter: StartMeter, meter: FaultyMeter
) -> None:
    """Who got no reading before the deadline waits no more, and needs no port."""
    meter.hush()
    shared = start_meter(meter.port)
    with pytest.raises(MeterError):
        shared.read(time.monotonic() + 0.5)
    assert shared.waiters == 0
    wait_for(lambda: is_free(meter.port))


def test_a_poll_after_a_fault_gets_no_reading_from_before_it(
    start_meter: StartMeter, meter: FaultyMeter
) -> None:
    """However young the last reading is, a client that polls learns that the port is lost."""
    shared = start_meter(meter.port)
    shared.read()
    meter.unplug()
    for get_reading in (shared.read, shared.poll, shared.poll):
        with pytest.raises(MeterError) as caught:
            get_reading(time.monotonic() + 60)
        assert caught.value.fault.is_of_port


@pytest.mark.parametrize('longest', [0.01, 11.0])
def test_a_meter_may_be_silent_until_its_next_telegram_is_late(
    longest: float, meter: FaultyMeter
) -> None:
    """It may be silent for as long as any meter, or, if it sends less often, for LATE of its own intervals."""
    settings = MeterSettings(port=meter.port, line='115200 8N1', keep_open=3600)
    reader = P1Reader(settings, longest)
    shared = Meter(reader)
    assert shared.longest_silence == longest
    shared.read()
    wait_for(lambda: shared.interval)
    meter.hush()
    wait_for(lambda: shared.latest and shared.latest.arrived == reader.state.last_byte)
    assert shared.interval is not None
    assert shared.longest_silence == max(longest, LATE * shared.interval)
    shared.stop()


def test_the_time_between_two_openings_is_not_the_meter_s_interval(
    start_meter: StartMeter, meter: FaultyMeter
) -> None:
    """How often somebody asks says nothing about how often the meter sends."""
    shared = start_meter(meter.port, keep_open=0)
    for openings in (1, 2):
        shared.read()
        wait_for(lambda: is_free(meter.port))
        assert shared.counters.port_openings == openings
    assert shared.interval is None


def test_open_opens_the_port_before_any_request(
    start_meter: StartMeter, meter: SimulatedMeter
) -> None:
    """open() reads the meter without a request, and the port is closed when its time is over."""
    shared = start_meter(meter.port)
    shared.open(1)
    wait_for(lambda: shared.latest is not None)
    assert openings(shared) == 1
    wait_for(lambda: is_free(meter.port))
    assert shared.errors.counts() == {}


@pytest.mark.parametrize(('interval', 'is_kept'), [(0.1, False), (2.5, True)])
def test_a_poll_keeps_the_port_of_a_slow_meter_open(interval: float, *, is_kept: bool) -> None:
    """After a poll the port stays open when telegrams are over two seconds apart: up to DSMR 4, but not later."""
    later = clock.now() + 3600
    readings = [arrived_at(later), arrived_at(later + interval)]
    reads_on = threading.Event()
    ticks = 0

    def script() -> Iterator[Reading | None]:
        nonlocal ticks
        yield from readings
        reads_on.set()
        for _ in and_silence(iter([])):
            ticks += 1
            yield None

    shared = Meter(ScriptedReader(script))
    shared.read(keep_open=1)
    assert reads_on.wait(10)
    assert shared.poll(time.monotonic() + 10) is readings[1]
    if is_kept:
        wait_for(lambda: ticks > 200)  # of at least 0.01 s
    else:
        wait_for(lambda: not has_thread())
    shared.stop()
    assert POLL_PAUSE > 60, 'Prometheus polls every minute by default'


def test_the_first_poll_waits_for_a_telegram(
    start_meter: StartMeter, meter: SimulatedMeter
) -> None:
    """Before the first reading there is none in memory, and no interval is known."""
    shared = start_meter(meter.port)
    began = clock.now()
    assert shared.poll(time.monotonic() + 10).arrived >= began


def test_a_poll_never_shortens_what_the_setting_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow meter's port is kept open for [meter] keep_open if that is longer than the pause between two polls."""
    monkeypatch.setattr('dsmr_rest.meter.meter.POLL_PAUSE', 0.0)
    later = clock.now() + 3600
    readings = [arrived_at(later), arrived_at(later + 2.5)]
    ticks = 0

    def script() -> Iterator[Reading | None]:
        nonlocal ticks
        yield from readings
        for _ in and_silence(iter([])):
            ticks += 1
            yield None

    reader = ScriptedReader(script)
    reader.settings = MeterSettings(port=MISSING_PORT, keep_open=3600)
    shared = Meter(reader)
    shared.read(keep_open=0.5)
    wait_for(lambda: shared.interval)
    assert shared.poll(time.monotonic() + 10) is readings[1]
    try:
        wait_for(lambda: ticks > 200, 20)  # of at least 0.01 s
    finally:
        shared.stop()


def test_a_poll_accepts_what_the_setting_accepts() -> None:
    """With [meter] max_age a poll gets a reading from memory that is older than the meter's interval."""
    now = clock.now()
    readings = [arrived_at(now - 60.5), arrived_at(now - 60)]
    reader = ScriptedReader(lambda: and_silence(iter(readings)))
    reader.settings = MeterSettings(port=MISSING_PORT, max_age=3600)
    shared = Meter(reader)
    shared.open(3600)
    wait_for(lambda: shared.latest is readings[1])
    try:
        assert shared.poll(time.monotonic() + 0.1) is readings[1]
    finally:
        shared.stop()


def test_a_poll_gets_no_reading_from_before_a_long_silence() -> None:
    """The time between the last two telegrams is not that between any two when the meter was silent for an hour."""
    now = clock.now()
    old = [arrived_at(now - 3620), arrived_at(now - 20)]
    new = arrived_at(now + 3600)
    is_polled = threading.Event()

    def script() -> Iterator[Reading | None]:
        yield from old
        while not is_polled.is_set():
            yield None
            time.sleep(0.01)
        yield from and_silence(iter([new]))

    shared = Meter(ScriptedReader(script))
    shared.open(10)
    wait_for(lambda: shared.latest is old[1])
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(shared.poll, time.monotonic() + 10)
        wait_for(lambda: shared.waiters or polled.done())
        is_polled.set()
        assert polled.result() is new
    shared.stop()


# Deadlines and faults


def test_every_waiter_of_a_silent_meter_has_its_own_deadline(
    start_meter: StartMeter, meter: FaultyMeter
) -> None:
    """On a silent line a wait ends with meter_silent at its own deadline, and soon after."""
    fault(meter, cut=0)
    shared = start_meter(meter.port)

    def request(number: int) -> tuple[float, Reading | str, float]:
        deadline = time.monotonic() + 0.3 * (number + 1)
        result = outcome(shared, deadline - time.monotonic())
        return deadline, result, time.monotonic()

    with together(4, request) as results:
        pass
    for deadline, result, ended in results:
        assert result == 'meter_silent'
        assert deadline <= ended <= deadline + PROMPTLY


def test_a_deadline_in_the_past_ends_at_once(
    start_meter: StartMeter, meter: SimulatedMeter
) -> None:
    """A wait without time left is an error, not a wait without an end, and the port is not opened."""
    shared = start_meter(meter.port)
    assert outcome(shared, 0) == outcome(shared, -5) == 'meter_silent'
    assert openings(shared) == 0


def test_a_pulled_cable_is_reported_at_once_and_recovers(start_meter: StartMeter) -> None:
    """Ten times: all waiters get port_lost, a request without a port port_missing, and the next one a reading."""
    with new_meter(interval=0.05) as meter:
        shared = start_meter(meter.port)
        for losses in range(1, 11):
            meter.hush()
            opened = openings(shared)
            with together(8, lambda _: outcome(shared)) as results:
                wait_for(lambda opened=opened: openings(shared) > opened)  # type: ignore[misc]
                meter.unplug()
            assert results.count('port_lost') == 8 or set(results) == {'port_lost', 'port_missing'}
            assert shared.counters.port_losses == losses
            assert outcome(shared) == 'port_missing'
            meter.silent = False
            meter.plug_in()
            assert isinstance(outcome(shared), Reading)
            wait_for(lambda: not has_thread())  # so that the next request opens the port
        assert shared.errors.counts()['port_lost'] >= 10


def test_a_busy_port_is_reported_at_once_and_used_when_free(
    start_meter: StartMeter, meter: SimulatedMeter
) -> None:
    """While another program has locked the port the code is port_busy; after that a request gets a reading."""
    shared = start_meter(meter.port)
    with Path(meter.port).open('rb', buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert outcome(shared) == 'port_busy'
    assert isinstance(outcome(shared), Reading)


@pytest.mark.parametrize(
    ('port', 'code'),
    [
        (MISSING_PORT, 'port_missing'),
        ('/dev/null', 'port_unusable'),
        ('/usr', 'port_unusable'),
        ('/etc/hostname', 'port_unusable'),
        ('socket://127.0.0.1:1', 'port_missing'),
    ],
)
def test_what_is_not_a_serial_port_is_reported_at_once(
    start_meter: StartMeter, port: str, code: str
) -> None:
    """A port that does not exist, and a peer that refuses, is port_missing; something else is port_unusable."""
    assert outcome(start_meter(port)) == code


def test_an_unexpected_error_is_a_fault_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever fails in the reader is internal_error with its text, one traceback in the log, and is not the end."""

    is_failing = True
    new = arrived_at(clock.now() + 3600)

    def script() -> Iterator[Reading | None]:
        if is_failing:
            raise RuntimeError('on purpose')
        yield new

    shared = Meter(ScriptedReader(script))
    for _ in range(2):
        with pytest.raises(
            MeterError, match=f'{MISSING_PORT} could not be read, .*on purpose'
        ) as caught:
            shared.read()
        assert caught.value.fault.code == 'internal_error'
    is_failing = False
    assert shared.read() is new
    shared.stop()
    wait_for(lambda: not has_thread())
    assert caplog.text.count('Traceback') == 1
    assert caplog.messages.count('reading failed') == 1


def test_a_reading_thread_that_dies_is_followed_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When memory is so short that not even the fault can be handed out, the next request starts a new thread."""
    is_failing = True
    new = arrived_at(clock.now() + 3600)
    deaths: list[threading.ExceptHookArgs] = []

    def script() -> Iterator[Reading | None]:
        if is_failing:
            raise MeterError(Fault.PORT_LOST, 'on purpose')
        yield new

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(threading, 'excepthook', deaths.append)
    shared = Meter(ScriptedReader(script))
    with monkeypatch.context() as failing:
        failing.setattr(MeterLog, 'port_failed', fail)
        with pytest.raises(MeterError):
            shared.read(time.monotonic() + 0.1)
        wait_for(lambda: deaths)
    is_failing = False
    assert shared.read() is new
    shared.stop()
    assert [death.exc_type for death in deaths] == [MemoryError]


GARBAGE = b'lorem ipsum 0123 ' * 60
"""Printable, without an end."""

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    'half a telegram': ({'cut': 300}, 'telegram_incomplete'),
    'every checksum wrong': ({'corrupt_every': 1}, 'checksum_failed'),
    'every second checksum wrong': ({'corrupt_every': 2}, 'reading'),
    'noise in front': ({'noise': b'\x00\xffnoise/\x80 without end'}, 'reading'),
    'lines in front': ({'noise': b'AT\r\n!\r\n/\r\n\r\n'}, 'reading'),
    'silence': ({'cut': 0}, 'meter_silent'),
}


@pytest.mark.parametrize('name', FAULTS)
def test_a_fault_of_the_line_has_its_code_and_passes(start_meter: StartMeter, name: str) -> None:
    """A fault has its code within the timeout, or a reading if one is possible, and does not outlive its cause."""
    attributes, expected = FAULTS[name]
    with new_meter(interval=0.1) as meter:
        fault(meter, **attributes)
        shared = start_meter(meter.port, line='115200 8N1')
        for _ in range(2):
            result = outcome(shared, 1)
            assert kind(result) == expected
            if isinstance(result, Reading):
                assert result.telegram.startswith(b'/SIM5')
                assert result.document['p1MessageHeader']['value'] == '50'
        meter.corrupt_every = 0
        meter.noise = b''
        meter.cut = None
        assert isinstance(outcome(shared), Reading)


@pytest.mark.parametrize('line', ['auto', '115200 8N1'])
def test_garbage_has_its_code_and_passes(start_meter: StartMeter, line: str) -> None:
    """Text without an end is line_garbled; a telegram after it is returned."""
    sources: list[Callable[[], bytes]] = [lambda: GARBAGE]
    with new_meter(
        interval=0.1,
        source=lambda: sources[-1](),  # noqa: PLW0108 the last one changes
    ) as meter:
        shared = start_meter(meter.port, line=line)
        assert outcome(shared, 3) == 'line_garbled'
        sources.append(numbered())
        assert isinstance(outcome(shared, 30), Reading)


@pytest.mark.parametrize(
    ('line', 'seconds', 'expected'), [('auto', 20, 'reading'), ('115200 8N1', 3, 'line_garbled')]
)
def test_a_line_at_another_baud_rate(
    start_meter: StartMeter, line: str, seconds: float, expected: str
) -> None:
    """A meter at 9600 baud is found automatically, and is garbled when config.ini has another baud rate."""
    with new_meter('2.2', interval=0.5) as meter:
        assert kind(outcome(start_meter(meter.port, line=line), seconds)) == expected


# The end


@pytest.mark.parametrize('silent', [True, False])
@pytest.mark.parametrize('keep_open', [0, 3600])
def test_stop_ends_every_wait(start_meter: StartMeter, *, silent: bool, keep_open: int) -> None:
    """stop() ends all waits with the code stopping, whether the meter sends or not, and no later read begins."""
    interval = 30.0
    if silent:
        interval = 0.02
    with new_meter(interval=interval) as meter:
        meter.silent = silent
        shared = start_meter(meter.port, keep_open=keep_open)
        with together(16, lambda _: outcome(shared)) as results:
            wait_for(lambda: openings(shared))
            shared.stop()
        assert set(results) <= {'stopping'}
        assert outcome(shared) == 'stopping'
        wait_for(lambda: is_free(meter.port))


def test_stop_at_any_moment(start_meter: StartMeter) -> None:
    """Whatever the reading thread is doing at stop(), every wait has a reading or stopping, and the port is free."""
    with new_meter(interval=0.01) as meter:
        for moment in range(12):
            shared = start_meter(meter.port)

            def request(_: int, shared: Meter = shared) -> set[str]:
                kinds = {kind(outcome(shared)) for _ in range(3)}
                if shared.latest is None:
                    kinds.add(kind(outcome(shared, max_age=60)))
                return kinds

            with together(4, request) as results:
                time.sleep(moment / 100)  # the moment is what varies; nothing waits for it
                shared.stop()
            assert set().union(*results) <= {'reading', 'stopping'}
            wait_for(lambda: is_free(meter.port))


def test_stop_without_any_request(start_meter: StartMeter, meter: SimulatedMeter) -> None:
    """A meter that was never read can be stopped, also twice."""
    shared = start_meter(meter.port)
    shared.stop()
    shared.stop()
    assert outcome(shared) == 'stopping'
    assert openings(shared) == 0


def test_a_meter_without_a_thread_is_read_when_there_is_one_again(
    start_meter: StartMeter, meter: FaultyMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shortage of threads costs those their readings who ask meanwhile, and nobody later."""

    def fail(_: threading.Thread) -> None:
        raise threads.NoThreadError('on purpose')

    shared = start_meter(meter.port)
    with monkeypatch.context() as failing:
        failing.setattr(threads, 'start', fail)
        assert [outcome(shared) for _ in range(2)] == ['server_exhausted'] * 2
    assert isinstance(outcome(shared), Reading)


def test_a_thread_that_hangs_does_not_keep_stop_waiting() -> None:
    """A port whose opening takes long, as of a peer that does not respond, must not delay the end of the server."""
    is_opening = threading.Event()
    goes_on = threading.Event()

    def script() -> Iterator[Reading | None]:
        is_opening.set()
        goes_on.wait(20)
        yield None

    shared = Meter(ScriptedReader(script))
    shared.open(60)
    assert is_opening.wait(20)
    shared.stop()
    assert has_thread()
    goes_on.set()


def test_a_thread_that_ends_late_does_not_hide_the_next_one() -> None:
    """One that still has a line of the log to write when the next begins leaves that the only one."""

    class OpensAgain(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            shared.open(60)

    runs = []

    def script() -> Iterator[Reading | None]:
        runs.append('a run')
        if len(runs) == 1:
            raise MeterError(Fault.PORT_LOST, 'on purpose')
        yield from and_silence(iter([]))

    shared = Meter(ScriptedReader(script))
    handler = OpensAgain()
    meter_log = logging.getLogger('dsmr_rest.meter.log')
    meter_log.addHandler(handler)
    try:
        shared.open(0)
        wait_for(lambda: len(runs) == 2)
        wait_for(lambda: meter_threads() == 1)
    finally:
        meter_log.removeHandler(handler)
    shared.open(60)
    count = meter_threads()
    shared.stop()
    assert count == 1


def meter_threads() -> int:
    """How many reading threads there are."""
    return [thread.name for thread in threading.enumerate()].count('meter')


def test_waiters_of_one_fault_have_an_error_each() -> None:
    """Each raise lengthens the traceback of its error, which another thread may be reading."""
    is_due = threading.Event()

    def script() -> Iterator[Reading | None]:
        while not is_due.wait(0.01):
            yield None
        raise MeterError(Fault.PORT_LOST, 'on purpose', 'plug it in')

    shared = Meter(ScriptedReader(script))

    def error_of_read(_: int) -> MeterError:
        with pytest.raises(MeterError) as caught:
            shared.read()
        return caught.value

    with together(2, error_of_read) as errors:
        wait_for(lambda: shared.waiters == 2)
        is_due.set()
    shared.stop()
    one, other = errors
    assert one is not other
    assert (one.detail, one.advice) == (other.detail, other.advice) == ('on purpose', 'plug it in')


def test_a_meter_that_is_stopped_is_not_opened_again() -> None:
    """Not even for those who have yet to notice that their wait is over."""
    runs = []

    def script() -> Iterator[Reading | None]:
        runs.append('a run')
        yield from and_silence(iter([]))

    shared = Meter(ScriptedReader(script))
    with together(MANY, lambda _: outcome(shared, 60)) as results:
        wait_for(lambda: shared.waiters == MANY)
        shared.stop()
    assert set(results) == {'stopping'}
    wait_for(lambda: not has_thread())
    assert len(runs) == 1


# The log


def test_the_log_has_one_line_for_a_loss_and_one_for_the_return(
    start_meter: StartMeter, caplog: pytest.LogCaptureFixture
) -> None:
    """However many requests fail, and with whatever codes, the log has when the meter was lost and when it was back."""
    with new_meter(interval=0.05) as meter:
        shared = start_meter(meter.port, timeout=0.2)
        shared.read(time.monotonic() + 10, keep_open=0.5)
        wait_for(lambda: shared.interval is not None)
        wait_for(lambda: is_free(meter.port))
        assert not caplog.messages
        fault(meter, cut=0)
        for _ in range(5):
            assert outcome(shared, 0.2) == 'meter_silent'
        wait_for(lambda: is_free(meter.port))
        meter.unplug()
        for _ in range(100):
            assert outcome(shared) == 'port_missing'
        wait_for(lambda: 'meter lost: meter_silent' in caplog.text)
        meter.cut = None
        meter.plug_in()
        for _ in range(5):
            assert isinstance(outcome(shared), Reading)
        shared.stop()
        wait_for(lambda: not has_thread())  # then it has written all of its lines
    assert len(caplog.messages) == 2
    assert 'meter back after' in caplog.messages[1]


def test_a_fault_of_the_port_is_logged_with_its_reason(
    start_meter: StartMeter, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A port that never existed is one line, which names the port and the code."""
    port = str(tmp_path / 'none')
    shared = start_meter(port)
    with together(16, lambda _: outcome(shared)) as results:
        pass
    wait_for(lambda: not has_thread())  # then it has written all of its lines
    assert set(results) == {'port_missing'}
    assert len(caplog.messages) == 1
    assert 'port_missing' in caplog.messages[0]
    assert port in caplog.messages[0]


def test_one_impatient_client_does_not_mean_that_the_meter_is_lost(
    start_meter: StartMeter, caplog: pytest.LogCaptureFixture
) -> None:
    """Waits that are shorter than a meter's pause say nothing about it, and are not logged."""
    with new_meter(interval=1) as meter:
        shared = start_meter(meter.port)
        next_telegram(meter)
        assert outcome(shared, 0.1) in ('meter_silent', 'telegram_incomplete', 'line_garbled')
        assert isinstance(outcome(shared), Reading)
    assert not caplog.messages


def test_a_loss_is_logged_when_the_wait_fails(
    meter: FaultyMeter, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waited in vain writes the line: the reading thread has nothing to do as long as the line is silent."""
    meter.hush()
    settings = MeterSettings(port=meter.port, line='115200 8N1', timeout=0.1)
    shared = Meter(P1Reader(settings, longest_silence=0.1))
    shared.open(3600)
    assert outcome(shared, 0.2) == 'meter_silent'
    assert 'meter lost: meter_silent' in caplog.text
    shared.stop()


def test_checksum_failures_are_logged_when_they_begin_and_when_they_are_over(
    start_meter: StartMeter, caplog: pytest.LogCaptureFixture
) -> None:
    """However many telegrams are damaged, the log has two lines; the second one counts them."""
    caplog.set_level(logging.INFO)
    with new_meter(interval=0.05) as meter:
        meter.corrupt_every = 2
        shared = start_meter(meter.port, calm=1.0, keep_open=10)
        for _ in range(10):
            outcome(shared)
        wait_for(lambda: len(caplog.messages) == 1)
        assert caplog.messages[0].startswith('telegrams arrive damaged, and are not served')
        meter.corrupt_every = 0
        wait_for(lambda: outcome(shared) and len(caplog.messages) > 1)
        failures = shared.counters.checksum_failures
        shared.stop()
        wait_for(lambda: not has_thread())
    assert len(caplog.messages) == 2
    assert f'telegrams arrive intact again: {failures} were damaged' in caplog.messages[1]


class Client:
    """Who a reading is for. look_again() has whoever waits ask again whether it is there."""

    def __init__(self) -> None:
        self.is_there = True
        self.times_asked = 0
        self.look_again: Callable[[], None] = pytest.fail

    def is_wanted(self, look_again: Callable[[], None]) -> bool:
        self.times_asked += 1
        self.look_again = look_again
        return self.is_there


def test_a_wait_ends_when_its_reading_is_not_wanted_any_more(start_meter: StartMeter) -> None:
    """It asks again when it is told to, however silent the meter is; other waits go on and get their reading."""
    with new_meter(interval=0.1) as meter:
        meter.hush()
        shared = start_meter(meter.port)
        client = Client()
        with ThreadPoolExecutor(2) as pool:
            unwanted = pool.submit(shared.read, is_wanted=client.is_wanted)
            wanted = pool.submit(shared.read, is_wanted=lambda _: True)
            wait_for(lambda: shared.waiters == 2)
            client.look_again()  # for nothing
            wait_for(lambda: client.times_asked == 2)
            client.is_there = False
            client.look_again()
            with pytest.raises(NotWantedError):
                unwanted.result(10)
            wait_for(lambda: shared.waiters == 1)
            assert not wanted.done()
            meter.silent = False
            assert isinstance(wanted.result(10), Reading)
        assert not shared.errors.counts()
        wait_for(lambda: is_free(meter.port))


def test_a_waiter_sleeps_until_something_happens() -> None:
    """However long it waits, it asks once whether it is still wanted, and wakes at its deadline."""
    shared = Meter(ScriptedReader(lambda: and_silence(iter([]))))
    client = Client()
    assert outcome(shared, 1.0, is_wanted=client.is_wanted) == 'meter_silent'
    assert client.times_asked == 1
    shared.stop()


def test_a_wait_that_nobody_wants_does_not_open_the_port(
    start_meter: StartMeter, meter: FaultyMeter
) -> None:
    """A reading that is not wanted from the start is not waited for."""
    shared = start_meter(meter.port)
    with pytest.raises(NotWantedError):
        shared.read(is_wanted=lambda _: False)
    assert openings(shared) == 0


def test_a_fault_is_forgotten_with_the_next_reading() -> None:
    """A poll accepts a reading from memory again, and the next error is new to the log."""
    later = clock.now() + 3600
    readings = [arrived_at(later), arrived_at(later + 0.5)]
    is_failing = True

    def script() -> Iterator[Reading | None]:
        if is_failing:
            raise MeterError(Fault.PORT_LOST, 'on purpose')
        yield from readings

    shared = Meter(ScriptedReader(script))
    with pytest.raises(MeterError, match='on purpose'):
        shared.read()
    is_failing = False
    shared.read()
    shared.stop()
    assert shared.poll(time.monotonic()) is shared.latest
