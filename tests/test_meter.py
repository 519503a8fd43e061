"""The shared meter: in process, on simulated meters behind real pseudo-terminals."""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import hush, new_meter, wait_for

from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import MeterError
from dsmr_rest.meter import Meter
from dsmr_rest.meter_log import CALM
from dsmr_rest.p1_reader import P1Reader
from dsmr_rest.reading import Reading
from dsmr_rest.simulated_meter import SimulatedMeter, with_checksum

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
    """A reading, or the code of what went wrong."""
    try:
        return shared.read(time.monotonic() + seconds, **options)
    except MeterError as error:
        return error.fault.code


@contextmanager
def together(count: int, what: Callable[[int], Any]) -> Iterator[list[Any]]:
    """Does something `count` times at once; the list has all results when the block has ended."""
    ready = threading.Barrier(count + 1)
    results: list[Any] = []

    def one(number: int) -> Any:
        ready.wait()
        return what(number)

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(one, number) for number in range(count)]
        ready.wait()
        yield results
        results += [each.result() for each in futures]


def openings(shared: Meter) -> int:
    return int(shared.counters.port_openings)


def is_free(port: str) -> bool:
    """Whether no reader has the port locked."""
    descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def next_telegram(meter: SimulatedMeter) -> None:
    """Returns when a telegram has just gone out."""
    sent = meter.sent
    wait_for(lambda: meter.sent > sent)


def fault(meter: SimulatedMeter, **attributes: Any) -> None:
    """Gives a meter a fault, and returns when the telegrams on the line have it."""
    for name, value in attributes.items():
        setattr(meter, name, value)
    for _ in range(2):  # the meter may have been about to send the first one as it was
        last = meter.last
        wait_for(lambda last=last: meter.last is not last)  # type: ignore[misc]


def numbered() -> Callable[[], bytes]:
    """A source of telegrams with their number in a text message."""
    numbers = iter(range(1, 10_000))
    return lambda: with_checksum(
        f'/SIM5\\NUMBERED\r\n\r\n1-3:0.2.8(50)\r\n1-0:1.7.0(00.355*kW)\r\n0-0:96.13.0({next(numbers):08})\r\n'
    )


def number(reading: Reading) -> int:
    return int(reading.document['textMessage']['value'])


def test_who_waits_together_shares_one_telegram(start_meter: StartMeter) -> None:
    """64 threads at once get one and the same reading from one opening, none older than its request."""
    with new_meter(interval=1) as meter:
        shared = start_meter(meter.port)

        def ask(_: int) -> tuple[float, Reading | str]:
            return time.monotonic(), outcome(shared)

        next_telegram(meter)
        with together(MANY, ask) as answers:
            pass
    readings = [reading for _, reading in answers]
    assert isinstance(readings[0], Reading)
    assert all(reading is readings[0] for reading in readings)
    assert all(readings[0].arrived >= asked for asked, _ in answers)
    assert shared.counters.telegrams == openings(shared) == 1


def test_one_after_another_none_is_stale_and_the_port_is_closed_between(start_meter: StartMeter) -> None:
    """Telegrams sent while nobody asked are never served, and then another program may have the port."""
    with new_meter(interval=0.1, source=numbered()) as meter:
        shared = start_meter(meter.port)
        for done in range(1, 6):
            wait_for(lambda: is_free(meter.port))
            for _ in range(3):
                next_telegram(meter)
            sent, asked = meter.sent, time.monotonic()
            reading = shared.read()
            assert reading.arrived >= asked
            assert number(reading) > sent
            assert openings(shared) == done
        wait_for(lambda: is_free(meter.port))


def test_an_accepted_age_is_served_from_memory(start_meter: StartMeter, meter: SimulatedMeter) -> None:
    """With max_age the last reading is the answer while it is that young; without it never."""
    shared = start_meter(meter.port, max_age=60)
    first = shared.read(max_age=60)
    assert shared.read() is shared.read(max_age=30) is shared.latest is first
    assert openings(shared) == 1
    second = shared.read(max_age=0)
    assert second is not first
    wait_for(lambda: time.monotonic() - second.arrived > 0.2)
    assert shared.read(max_age=0.1) is not second


def test_keep_open_keeps_the_port_and_then_lets_it_go(start_meter: StartMeter, meter: SimulatedMeter) -> None:
    """Behind a reading the port stays open for keep_open seconds: the next request needs no opening."""
    shared = start_meter(meter.port, keep_open=0.6)
    shared.read()
    assert not is_free(meter.port)
    shared.read()
    assert openings(shared) == 1
    wait_for(lambda: is_free(meter.port))
    shared.read()
    assert openings(shared) == 2


def test_each_waiter_of_a_silent_meter_has_its_own_deadline(start_meter: StartMeter, meter: SimulatedMeter) -> None:
    """On a silent line a wait ends with meter_silent when its own time is over, and soon after."""
    fault(meter, cut=0)
    shared = start_meter(meter.port)

    def ask(number: int) -> tuple[float, Reading | str, float]:
        deadline = time.monotonic() + 0.3 * (number + 1)
        return deadline, outcome(shared, deadline - time.monotonic()), time.monotonic()

    with together(4, ask) as answers:
        pass
    for deadline, result, ended in answers:
        assert result == 'meter_silent'
        assert deadline <= ended <= deadline + PROMPTLY


def test_a_deadline_that_has_passed_ends_at_once(start_meter: StartMeter, meter: SimulatedMeter) -> None:
    """A wait of no time gives an error, not a wait without end, and leaves the port alone."""
    shared = start_meter(meter.port)
    assert outcome(shared, 0) == outcome(shared, -5) == 'meter_silent'
    assert is_free(meter.port)


def test_a_pulled_cable_is_told_at_once_and_mended_by_itself(start_meter: StartMeter) -> None:
    """Ten times: all who wait get port_lost, a request without a port port_missing, the first behind it a reading."""
    with new_meter(interval=0.05) as meter:
        shared = start_meter(meter.port)
        for lost in range(1, 11):
            hush(meter)
            opened = openings(shared)
            with together(8, lambda _: outcome(shared)) as answers:
                wait_for(lambda opened=opened: openings(shared) > opened)  # type: ignore[misc]
                meter.unplug()
            assert answers.count('port_lost') == 8 or set(answers) == {'port_lost', 'port_missing'}
            assert shared.counters.port_losses == lost
            assert outcome(shared) == 'port_missing'
            meter.silent = False
            meter.plug_in()
            assert isinstance(outcome(shared), Reading)
        assert shared.errors.counts()['port_lost'] >= 10
        wait_for(lambda: 'meter' not in {each.name for each in threading.enumerate()})


def test_a_busy_port_is_told_at_once_and_served_when_it_is_free(start_meter: StartMeter, meter: SimulatedMeter) -> None:
    """While another program has locked the port the code is port_busy; behind it a request is answered."""
    shared = start_meter(meter.port)
    with Path(meter.port).open('rb', buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert outcome(shared) == 'port_busy'
    assert isinstance(outcome(shared), Reading)


@pytest.mark.parametrize('port', ['/dev/serial/none', '/dev/null', '/tmp', '/etc/hostname', 'socket://127.0.0.1:1'])  # noqa: S108
def test_what_is_no_serial_port_is_told_at_once(start_meter: StartMeter, port: str) -> None:
    """A port that is not there, or is something else, or a peer that refuses, is port_missing."""
    assert outcome(start_meter(port)) == 'port_missing'


@pytest.mark.parametrize('silent', [True, False])
@pytest.mark.parametrize('keep_open', [0, 3600])
def test_stop_ends_every_wait(start_meter: StartMeter, *, silent: bool, keep_open: int) -> None:
    """stop() ends all waits with the code stopping, whether the meter talks or not, and no later read begins."""
    with new_meter(interval=0.02 if silent else 30) as meter:
        meter.silent = silent
        shared = start_meter(meter.port, keep_open=keep_open)
        with together(16, lambda _: outcome(shared)) as answers:
            wait_for(lambda: openings(shared))
            shared.stop()
        assert set(answers) <= {'stopping'}
        assert outcome(shared) == 'stopping'
        wait_for(lambda: is_free(meter.port))


def test_stop_at_any_moment(start_meter: StartMeter) -> None:
    """Whatever the reading thread is doing when stop() comes: each wait has a reading or stopping, the port is free."""
    with new_meter(interval=0.01) as meter:
        for moment in range(12):
            shared = start_meter(meter.port)

            def ask(_: int, shared: Meter = shared) -> set[str]:
                results = {'reading' if isinstance(each := outcome(shared), Reading) else each for _ in range(3)}
                return results | {str(outcome(shared, max_age=60)) if shared.latest is None else ''}

            with together(4, ask) as answers:
                time.sleep(moment / 100)  # the moment is what varies, nothing waits for it
                shared.stop()
            assert set().union(*answers) <= {'reading', 'stopping', ''}
            wait_for(lambda: is_free(meter.port))


def test_stop_without_any_request(start_meter: StartMeter, meter: SimulatedMeter) -> None:
    """A meter nobody asked can be stopped, twice too."""
    shared = start_meter(meter.port)
    shared.stop()
    shared.stop()
    assert outcome(shared) == 'stopping'
    assert openings(shared) == 0


def test_a_slow_waiter_delays_nobody_and_skips_to_the_newest(start_meter: StartMeter) -> None:
    """While one who follows the meter dawdles others get each telegram; then it gets the newest, not the next."""
    with new_meter(interval=0.1, source=numbered()) as meter:
        shared = start_meter(meter.port, keep_open=5)
        slow = shared.read()
        seen = [slow]
        for _ in range(5):
            seen.append(shared.read(after=seen[-1]))
        assert [number(each) for each in seen] == sorted({number(each) for each in seen})
        newest = shared.read(after=slow)
        assert number(newest) >= number(seen[-1])
        assert openings(shared) == 1


def garbage() -> bytes:
    """Printable, without any end."""
    return b'lorem ipsum 0123 ' * 60


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    'half a telegram': ({'cut': 300}, 'telegram_incomplete'),
    'every checksum wrong': ({'corrupt_every': 1}, 'checksum_failed'),
    'every second checksum wrong': ({'corrupt_every': 2}, 'reading'),
    'noise in front': ({'noise': b'\x00\xffnoise/\x80 without end'}, 'reading'),
    'lines in front': ({'noise': b'AT\r\n!\r\n/\r\n\r\n'}, 'reading'),
    'silence': ({'cut': 0}, 'meter_silent'),
}


@pytest.mark.parametrize('kind', FAULTS)
def test_a_fault_of_the_line_has_its_code_and_passes(start_meter: StartMeter, kind: str) -> None:
    """Each fault gives its code within the timeout, or a reading if one can be had, and none outlives its cause."""
    attributes, expected = FAULTS[kind]
    with new_meter(interval=0.1) as meter:
        fault(meter, **attributes)
        shared = start_meter(meter.port, line='115200 8N1')
        for _ in range(2):
            result = outcome(shared, 1)
            assert ('reading' if isinstance(result, Reading) else result) == expected
            if isinstance(result, Reading):
                assert result.telegram.startswith(b'/SIM5') and result.document['p1MessageHeader']['value'] == '50'
        meter.corrupt_every, meter.noise, meter.cut = 0, b'', None
        assert isinstance(outcome(shared), Reading)


@pytest.mark.parametrize('line', ['auto', '115200 8N1'])
def test_garbage_has_its_code_and_passes(start_meter: StartMeter, line: str) -> None:
    """Text without end is line_garbled; a telegram behind it is served."""
    sources: list[Callable[[], bytes]] = [garbage]
    with new_meter(
        interval=0.1,
        source=lambda: sources[-1](),  # noqa: PLW0108 the last one changes
    ) as meter:
        shared = start_meter(meter.port, line=line)
        assert outcome(shared, 1.5) == 'line_garbled'
        sources.append(numbered())
        assert isinstance(outcome(shared, 30), Reading)


@pytest.mark.parametrize(('line', 'expected'), [('auto', 'reading'), ('115200 8N1', 'line_garbled')])
def test_a_line_at_another_speed(start_meter: StartMeter, line: str, expected: str) -> None:
    """A meter at 9600 baud is found by itself, and garbled when config.ini has pinned another speed."""
    with new_meter('2.2', interval=0.5) as meter:
        result = outcome(start_meter(meter.port, line=line), 20 if line == 'auto' else 3)
        assert ('reading' if isinstance(result, Reading) else result) == expected


def test_a_dead_meter_is_one_line_of_log_and_so_is_its_return(
    start_meter: StartMeter, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever many requests of a dead meter end with, the log has when it was lost and when it was back."""
    with new_meter(interval=0.05) as meter:
        shared = start_meter(meter.port, timeout=0.2)
        assert isinstance(outcome(shared), Reading)
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
        shared.stop()  # whose thread has said by then what it had to say
    assert len(caplog.messages) == 2
    assert 'meter back after' in caplog.messages[1]


def test_a_fault_of_the_port_is_logged_with_its_reason(
    start_meter: StartMeter, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A port that was never there is one line, which names the port and the code."""
    shared = start_meter(str(tmp_path / 'none'))
    with together(16, lambda _: outcome(shared)) as answers:
        pass
    shared.stop()
    assert set(answers) == {'port_missing'}
    assert len(caplog.messages) == 1
    assert 'port_missing' in caplog.messages[0] and str(tmp_path / 'none') in caplog.messages[0]


def test_one_impatient_client_does_not_call_the_meter_lost(
    start_meter: StartMeter, caplog: pytest.LogCaptureFixture
) -> None:
    """Waits shorter than a meter's pause say nothing about it, and are not logged."""
    with new_meter(interval=1) as meter:
        shared = start_meter(meter.port)
        next_telegram(meter)
        assert outcome(shared, 0.1) in ('meter_silent', 'telegram_incomplete', 'line_garbled')
        assert isinstance(outcome(shared), Reading)
    assert not caplog.messages


def test_checksum_trouble_is_logged_when_it_begins_and_when_it_is_over(
    start_meter: StartMeter, caplog: pytest.LogCaptureFixture
) -> None:
    """However many telegrams are damaged, the log has two lines; the second one counts them."""
    caplog.set_level(logging.INFO)
    with new_meter(interval=0.05) as meter:
        meter.corrupt_every = 2
        shared = start_meter(meter.port, calm=1.0, keep_open=10)
        for _ in range(10):
            outcome(shared)
        wait_for(lambda: [each.startswith('checksum trouble begins') for each in caplog.messages] == [True])
        meter.corrupt_every = 0
        wait_for(lambda: outcome(shared) and len(caplog.messages) > 1)
        failures = shared.counters.checksum_failures
        shared.stop()
    assert len(caplog.messages) == 2
    assert f'checksum trouble is over: {failures} telegrams were damaged' in caplog.messages[1]
