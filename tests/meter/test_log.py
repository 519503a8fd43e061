"""What the log says about the meter, with a clock that the tests set."""

from dataclasses import replace

import pytest

from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.meter.log import CALM, LONGEST_PAUSE, MeterLog
from dsmr_rest.p1.line import LONGEST_SILENCE, LineCounters
from dsmr_rest.process import clock
from tests.telegrams import of_version, read

LOST = MeterError(Fault.PORT_LOST, 'the port is gone')
SILENT = MeterError(Fault.METER_SILENT, 'nothing arrived')
READING = read(of_version('5.0'))
GARBLED = MeterError(Fault.LINE_GARBLED, 'no telegram arrived')
PATIENCE = 5.0
SILENCE = 1.5
"""Seconds that the meter may be silent."""


class Clock:
    """The time that the log sees, in seconds."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the test."""
    own = Clock()
    monkeypatch.setattr(clock, 'now', own.now)
    return own


@pytest.fixture
def meter_log() -> MeterLog:
    return MeterLog(PATIENCE)


def lines(meter_log: MeterLog, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is written now."""
    caplog.clear()
    meter_log.write()
    return [record.message for record in caplog.records]


def arrive(meter_log: MeterLog, at: Clock, counters: LineCounters | None = None) -> None:
    """A reading arrives now."""
    meter_log.reading_arrived(replace(READING, arrived=at.time), counters or LineCounters())


def wait_in_vain(meter_log: MeterLog, at: Clock, seconds: float) -> None:
    """A request waits for so long, and gets no reading."""
    began = at.time
    at.time += seconds
    meter_log.wait_failed(SILENT, began, SILENCE)


def test_nothing_is_written_about_a_meter_that_responds(
    meter_log: MeterLog, at: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Readings alone write nothing."""
    for _ in range(3):
        arrive(meter_log, at)
        at.time += 1
    assert lines(meter_log, caplog) == []


def test_a_lost_port_is_one_line_and_its_return_another(
    meter_log: MeterLog, at: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """However often the port fails, the log says once that it is lost, and once, with the time, that it is back."""
    for _ in range(5):
        meter_log.port_failed(LOST)
        at.time += 10
    assert lines(meter_log, caplog) == ['meter lost: port_lost: the port is gone']
    arrive(meter_log, at)
    arrive(meter_log, at)
    assert lines(meter_log, caplog) == [f'meter back after 50 s: {READING.identification}']
    at.time += 1000
    meter_log.port_failed(LOST)
    assert lines(meter_log, caplog) == ['meter lost: port_lost: the port is gone']
    at.time += 20
    arrive(meter_log, at)
    assert lines(meter_log, caplog) == [f'meter back after 20 s: {READING.identification}']


def test_a_patient_wait_means_that_the_meter_is_lost(
    meter_log: MeterLog, at: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """One wait that is as long as the patience is enough; a shorter one says nothing."""
    wait_in_vain(meter_log, at, PATIENCE - 1)
    assert lines(meter_log, caplog) == []
    wait_in_vain(meter_log, at, PATIENCE)
    assert lines(meter_log, caplog) == ['meter lost: meter_silent: nothing arrived']


def test_many_short_waits_mean_that_the_meter_is_lost(
    meter_log: MeterLog, at: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Waits that are too short each are added up until a telegram cannot have fallen between them."""
    written: list[list[str]] = []
    for _ in range(int(LONGEST_PAUSE)):
        wait_in_vain(meter_log, at, 1.0)
        written.append(lines(meter_log, caplog))
        at.time += 100.0  # in which nobody waits
    *early, last = written
    assert not any(early)
    assert last == ['meter lost: meter_silent: nothing arrived']


def test_waits_at_the_same_time_count_once(
    meter_log: MeterLog, at: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred requests that wait together are no longer without a reading than one."""
    began = at.time
    at.time += PATIENCE - 1
    for _ in range(100):
        meter_log.wait_failed(SILENT, began, SILENCE)
    assert lines(meter_log, caplog) == []


def test_a_reading_ends_the_adding_up(
    meter_log: MeterLog, at: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Short waits before a reading do not count afterwards, and a meter that was not lost is not back."""
    for _ in range(3):
        for _ in range(int(LONGEST_PAUSE) - 1):
            wait_in_vain(meter_log, at, 1.0)
        arrive(meter_log, at)
    assert lines(meter_log, caplog) == []


def test_damaged_telegrams_are_one_line_and_their_end_another(
    meter_log: MeterLog, at: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Checksum failures are reported when they begin, and, with their number, when there were none for a while."""
    counters = LineCounters(telegrams=10)
    arrive(meter_log, at, counters)
    for _ in range(3):
        at.time += 1
        counters = counters.plus(LineCounters(telegrams=1, checksum_failures=1, parity_failures=1))
        arrive(meter_log, at, counters)
    (begun,) = lines(meter_log, caplog)
    assert begun.startswith('telegrams arrive damaged')
    at.time += CALM
    arrive(meter_log, at, counters)
    assert lines(meter_log, caplog) == []
    at.time += 1
    counters = counters.plus(LineCounters(telegrams=1))
    arrive(meter_log, at, counters)
    (ended,) = lines(meter_log, caplog)
    assert ended == 'telegrams arrive intact again: 6 were damaged, 4 were not'
    at.time += CALM + 1
    arrive(meter_log, at, counters)
    assert lines(meter_log, caplog) == []


def test_lines_keep_their_order(
    meter_log: MeterLog, at: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What is collected before it can be written is written in the order in which it happened."""
    meter_log.port_failed(LOST)
    at.time += 1
    arrive(meter_log, at)
    at.time += 1
    meter_log.port_failed(LOST)
    assert [line.split()[1] for line in lines(meter_log, caplog)] == ['lost:', 'back', 'lost:']


@pytest.mark.parametrize(
    ('silence', 'patience'), [(15.0, 15.0), (1.5, PATIENCE), (90.0, LONGEST_PAUSE)]
)
def test_silence_means_nothing_before_the_meter_s_telegram_is_late(
    silence: float,
    patience: float,
    meter_log: MeterLog,
    at: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A meter is lost when it is silent for longer than it may be, not when a request's patience ends."""
    for seconds in (patience - 0.1, patience):
        arrive(meter_log, at)
        began = at.time
        at.time += seconds
        meter_log.wait_failed(SILENT, began, silence)
        is_lost = seconds >= patience
        assert bool(lines(meter_log, caplog)) == is_lost


def test_what_arrives_and_is_no_telegram_speaks_for_itself(
    meter_log: MeterLog, at: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """For that a request's patience is enough, however slow the meter."""
    began = at.time
    at.time += PATIENCE
    meter_log.wait_failed(GARBLED, began, 15.0)
    assert lines(meter_log, caplog) == ['meter lost: line_garbled: no telegram arrived']


def test_no_patience_is_longer_than_a_meter_may_be_silent(
    at: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Where requests may wait for long, a meter is lost all the same once one has waited for LONGEST_SILENCE."""
    meter_log = MeterLog(10 * LONGEST_SILENCE)
    began = at.time
    at.time += LONGEST_SILENCE
    meter_log.wait_failed(GARBLED, began, SILENCE)
    assert lines(meter_log, caplog) == ['meter lost: line_garbled: no telegram arrived']


def test_a_stop_of_the_server_is_no_loss_of_the_meter(
    meter_log: MeterLog, at: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A wait that ended because the server did not run says nothing about the meter."""
    stalled = MeterError(Fault.SERVER_STALLED, 'did not run')
    began = at.time
    at.time += 100
    meter_log.wait_failed(stalled, began, SILENCE)
    assert lines(meter_log, caplog) == []
