"""The simulated meter, and the faulty one of the tests, against dsmr_parser, a real pseudo-terminal and pyserial."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import serial
from dsmr_parser import telegram_specifications
from dsmr_parser.parsers import TelegramParser

from dsmr_rest.simulated.__main__ import main
from dsmr_rest.simulated.house import (
    DELIVERED,
    DUTCH,
    HOUR,
    LOW,
    MINUTE,
    NORMAL,
    PEAKS_KW,
    QUARTER,
    USED,
    demand_kw,
    energy_kwh,
    month_peak,
    past_peaks,
    phases_w,
    tariff_at,
)
from dsmr_rest.simulated.meter import SimulatedMeter
from dsmr_rest.simulated.telegrams import VERSIONS, telegram, with_checksum
from tests.conftest import hush, open_files, wait_for
from tests.faulty_meter import PATIENCE, FaultyMeter, misread

SUMMER_NOON = datetime(2024, 6, 21, 13, 40, 5, tzinfo=DUTCH)
NIGHT = datetime(2024, 6, 22, 2, 0, tzinfo=DUTCH)
COUNTERS = [(direction, tariff) for direction in (USED, DELIVERED) for tariff in (LOW, NORMAL)]
SPECIFICATIONS = {
    '5.0': telegram_specifications.V5,
    '4.2': telegram_specifications.V4,
    '2.2': telegram_specifications.V2_2,
    'belgium': telegram_specifications.BELGIUM_FLUVIUS,
    'sweden': telegram_specifications.SWEDEN,
}
ANY_TELEGRAM = with_checksum(
    '/ANY5\\TEST\r\n\r\n1-0:1.8.1(000123.456*kWh)\r\n1-0:1.7.0(00.789*kW)\r\n'
)


def parsed(data: bytes, version: str) -> Any:
    """dsmr_parser's reading of a telegram, with a copy of the specification, since its parsers keep state."""
    return TelegramParser(deepcopy(SPECIFICATIONS[version])).parse(
        data.decode('ascii'), throw_ex=True
    )


def reading(version: str, moment: datetime) -> Any:
    return parsed(telegram(version, moment), version)


@contextmanager
def reader(meter: SimulatedMeter, baud: int = 115200) -> Iterator[serial.Serial]:
    with serial.Serial(meter.port, baud, timeout=0.05, exclusive=True) as port:
        yield port


def read_until(port: serial.Serial, done: Callable[[bytes], Any]) -> bytes:
    """All that has been read when `done` accepts it."""
    data, deadline = b'', time.monotonic() + PATIENCE
    while not done(data):
        assert time.monotonic() < deadline, f'only {data[-200:]!r} came'
        data += port.read(port.in_waiting or 1)
    return data


def next_telegram(port: serial.Serial) -> bytes:
    """The first telegram that is whole, '/' to the end of its checksum line."""
    whole = re.compile(rb'/[^!/]*![0-9A-F]*\r\n')
    found = whole.search(read_until(port, whole.search))
    assert found
    return found[0]


# What a telegram says


@pytest.mark.parametrize('version', VERSIONS)
def test_every_line_parses(version: str) -> None:
    """Each line of a telegram is one object to dsmr_parser under its version's specification."""
    data = telegram(version, SUMMER_NOON)
    lines = [line for line in data.split(b'\r\n')[2:-2] if not line.startswith(b'(')]
    result = parsed(data, version)
    devices = getattr(result, 'MBUS_DEVICES', [])
    values = [name for name, _ in result if name != 'MBUS_DEVICES']
    assert len(values) + sum(len(list(device)) for device in devices) == len(lines)


@pytest.mark.parametrize('version', VERSIONS)
def test_ends_of_lines_and_telegram(version: str) -> None:
    """A telegram starts with identification and empty line, all lines end in CRLF, the last one is '!'."""
    data = telegram(version, SUMMER_NOON)
    end = rb'![0-9A-F]{4}\r\n' if VERSIONS[version].checksum else rb'!\r\n'
    assert re.fullmatch(rb'/SIM5[^\r\n]+\r\n\r\n([^\r\n!/]+\r\n)+' + end, data)


def test_checksum_line() -> None:
    """with_checksum takes text or bytes and adds the line that the library verifies."""
    assert with_checksum(b'/ANY5\r\n\r\n') == with_checksum('/ANY5\r\n\r\n')
    TelegramParser.validate_checksum(ANY_TELEGRAM.decode())


def test_values_are_the_houses() -> None:
    """The telegram has the house's values, to the width of its fields."""
    result = reading('5.0', SUMMER_NOON)
    watts = phases_w(SUMMER_NOON)
    assert result.CURRENT_ELECTRICITY_DELIVERY.value == Decimal(f'{-sum(watts) / 1000:.3f}')
    assert result.INSTANTANEOUS_ACTIVE_POWER_L2_NEGATIVE.value == Decimal(f'{-watts[1] / 1000:.3f}')
    assert result.ELECTRICITY_USED_TARIFF_2.value == Decimal(
        f'{energy_kwh(SUMMER_NOON, USED, NORMAL):.3f}'
    )
    assert result.ELECTRICITY_DELIVERED_TARIFF_1.value == Decimal(
        f'{energy_kwh(SUMMER_NOON, DELIVERED, LOW):.3f}'
    )
    assert result.ELECTRICITY_ACTIVE_TARIFF.value == '0002'
    assert result.POWER_EVENT_FAILURE_LOG.buffer_length == 2


def test_a_swedish_meter_has_one_total_and_no_tariffs() -> None:
    """Its counters are the sums of the house's tariffs."""
    result = reading('sweden', SUMMER_NOON)
    used = energy_kwh(SUMMER_NOON, USED, LOW) + energy_kwh(SUMMER_NOON, USED, NORMAL)
    assert result.ELECTRICITY_IMPORTED_TOTAL.value == Decimal(f'{used:.3f}')
    assert not hasattr(result, 'ELECTRICITY_USED_TARIFF_1')
    assert not hasattr(result, 'ELECTRICITY_ACTIVE_TARIFF')


def test_belgium_numbers_its_tariffs_the_other_way_round() -> None:
    """By day the Belgian tariff is 1, and its counters are in that order."""
    result = reading('belgium', SUMMER_NOON)
    assert result.ELECTRICITY_ACTIVE_TARIFF.value == '0001'
    assert result.ELECTRICITY_USED_TARIFF_1.value == Decimal(
        f'{energy_kwh(SUMMER_NOON, USED, NORMAL):.3f}'
    )
    assert result.ELECTRICITY_USED_TARIFF_2.value == Decimal(
        f'{energy_kwh(SUMMER_NOON, USED, LOW):.3f}'
    )


@pytest.mark.parametrize('version', VERSIONS)
def test_same_moment_same_telegram(version: str) -> None:
    """The moment alone decides, in whatever time zone it is given."""
    telegrams = {telegram(version, SUMMER_NOON.astimezone(zone)) for zone in (DUTCH, timezone.utc)}
    assert len(telegrams) == 1


@pytest.mark.parametrize(('version', 'seconds'), [('5.0', 1), ('4.2', 10), ('belgium', 1)])
def test_power_differs_from_telegram_to_telegram(version: str, seconds: int) -> None:
    """No two successive telegrams have the same power."""
    powers = []
    for number in range(60):
        result = reading(version, SUMMER_NOON + timedelta(seconds=number * seconds))
        powers.append(result.CURRENT_ELECTRICITY_DELIVERY.value)
    assert all(power != following for power, following in pairwise(powers))


# What the house does


@pytest.mark.parametrize('month', [1, 6])
def test_counters_are_the_integral_of_power(month: int) -> None:
    """Over a day counters never fall, all but one grow, and electricity's grow by power times time."""
    begin = datetime(2024, month, 19, tzinfo=timezone.utc)
    first = last = counters(begin)
    used = delivered = 0.0
    for second in range(5, 24 * 3600 + 1, 5):
        kilowatts = sum(phases_w(begin + timedelta(seconds=second - 5))) / 1000
        used += max(0, kilowatts) * 5 / 3600
        delivered += max(0, -kilowatts) * 5 / 3600
        if second % 300 == 0:
            now = counters(begin + timedelta(seconds=second))
            assert all(new >= old for new, old in zip(now, last, strict=True))
            last = now
    grown = [new - old for new, old in zip(last, first, strict=True)]
    assert sum(grown[:2]) == pytest.approx(used)
    assert sum(grown[2:4]) == pytest.approx(delivered)
    assert min(grown[0], grown[1], grown[3], *grown[4:]) > 0


def counters(moment: datetime) -> list[float]:
    """Energy used and delivered by tariff, gas, water."""
    energy = [energy_kwh(moment, direction, tariff) for direction, tariff in COUNTERS]
    devices = reading('belgium', moment).MBUS_DEVICES
    return [*energy, *(float(device.MBUS_METER_READING.value) for device in devices)]


def test_summer_noon_delivers_and_night_uses() -> None:
    """The sun makes the house deliver, the dark makes it use; it never does both at once."""
    noon, night = reading('5.0', SUMMER_NOON), reading('5.0', NIGHT)
    assert noon.CURRENT_ELECTRICITY_DELIVERY.value > 0.5
    assert noon.CURRENT_ELECTRICITY_USAGE.value == 0
    assert night.CURRENT_ELECTRICITY_USAGE.value > 0.1
    assert night.CURRENT_ELECTRICITY_DELIVERY.value == 0


def test_phases_agree() -> None:
    """On each phase power is either used or delivered, and is voltage times current."""
    for hour in range(24):
        result = reading('belgium', SUMMER_NOON + hour * HOUR)
        for phase in (1, 2, 3):
            used = getattr(result, f'INSTANTANEOUS_ACTIVE_POWER_L{phase}_POSITIVE').value
            delivered = getattr(result, f'INSTANTANEOUS_ACTIVE_POWER_L{phase}_NEGATIVE').value
            volts = getattr(result, f'INSTANTANEOUS_VOLTAGE_L{phase}').value
            amperes = getattr(result, f'INSTANTANEOUS_CURRENT_L{phase}').value
            assert min(used, delivered) == 0
            assert 220 < volts < 240
            assert float(volts * amperes) == pytest.approx(float(1000 * (used + delivered)), abs=3)


@pytest.mark.parametrize(
    ('moment', 'tariff'),
    [
        (datetime(2024, 1, 19, 6, 59, 59, tzinfo=DUTCH), LOW),
        (datetime(2024, 1, 19, 7, tzinfo=DUTCH), NORMAL),
        (datetime(2024, 1, 19, 22, 59, 59, tzinfo=DUTCH), NORMAL),
        (datetime(2024, 1, 19, 23, tzinfo=DUTCH), LOW),
        (datetime(2024, 1, 20, 12, tzinfo=DUTCH), NORMAL),
        (datetime(2024, 6, 21, 7, 59, tzinfo=DUTCH), LOW),
        (datetime(2024, 6, 21, 8, tzinfo=DUTCH), NORMAL),
    ],
)
def test_tariff_hours(moment: datetime, tariff: int) -> None:
    """The normal tariff applies every day from 7 to 23 h, in winter time all year round."""
    assert tariff_at(moment) == tariff


def test_each_tariff_counts_its_own_hours() -> None:
    """Each counter grows while its tariff holds and not otherwise."""
    begin = datetime(2024, 1, 16, 22, 30, tzinfo=DUTCH)
    grown = {tariff: energy_kwh(begin + HOUR / 2, USED, tariff) for tariff in (LOW, NORMAL)}
    assert grown[NORMAL] > energy_kwh(begin, USED, NORMAL)
    assert grown[LOW] == energy_kwh(begin, USED, LOW)


def test_gas_is_read_at_round_moments() -> None:
    """4.2 and 2.2 pass on the gas reading of the hour, 5.0 and Belgium that of the last five minutes."""
    now = datetime(2024, 1, 16, 20, 13, 40, tzinfo=DUTCH)
    telegrams = {version: telegram(version, now) for version in VERSIONS}
    assert b'0-1:24.2.1(240116201000W)' in telegrams['5.0']
    assert b'0-1:24.2.1(240116200000W)' in telegrams['4.2']
    assert b'0-1:24.3.0(240116200000)' in telegrams['2.2']
    assert b'0-1:24.2.3(240116201000W)' in telegrams['belgium']
    assert b'0-2:24.2.1(240116201000W)' in telegrams['belgium']
    gas = {version: re.search(rb'\((\d+\.\d+)\*m3\)', data) for version, data in telegrams.items()}
    assert gas['4.2'] and gas['5.0'] and gas['4.2'][1] < gas['5.0'][1]


@pytest.mark.parametrize(('utc_hour', 'stamp'), [(0, b'241027023000S'), (1, b'241027023000W')])
def test_the_hour_that_comes_twice(utc_hour: int, stamp: bytes) -> None:
    """In the October change S and W tell the two half past twos apart."""
    moment = datetime(2024, 10, 27, utc_hour, 30, tzinfo=timezone.utc)
    data = telegram('5.0', moment.astimezone(DUTCH))
    assert b'0-0:1.0.0(%b)\r\n' % stamp in data
    assert b'0-1:24.2.1(%b)' % stamp in data
    assert parsed(data, '5.0').P1_MESSAGE_TIMESTAMP.value == moment


def test_the_october_night_lasts_an_hour_longer() -> None:
    """Counters across the change differ by the time that really passed."""
    half_past = [counters(datetime(2024, 10, 27, hour, 30, tzinfo=DUTCH)) for hour in (1, 3, 4)]
    used, gas = ([moment[index] for moment in half_past] for index in (0, 4))
    assert used[1] - used[0] == pytest.approx(3 * (used[2] - used[1]))
    assert gas[1] - gas[0] == pytest.approx(3 * (gas[2] - gas[1]), abs=0.002)


def test_quarter_hour_demand_starts_from_zero() -> None:
    """The demand grows through a quarter-hour to its average and is 0 again at its end."""
    begin = datetime(2024, 1, 16, 19, 0, tzinfo=DUTCH)
    for minute in range(1, 15):
        energy = energy_kwh(begin + minute * MINUTE, USED, NORMAL) - energy_kwh(begin, USED, NORMAL)
        assert demand_kw(begin + minute * MINUTE) == pytest.approx(energy * 4)
    assert demand_kw(begin + 15 * MINUTE) == 0


def test_no_quarter_hour_exceeds_the_month_peak() -> None:
    """From the end of the month's first quarter-hour on, its peak is constant and higher than every average power."""
    month = datetime(2024, 7, 1, tzinfo=DUTCH)
    peak = month_peak(month + QUARTER)
    assert peak.moment == month + QUARTER
    for days in range(31):
        assert month_peak(month + timedelta(days=days, hours=12)) == peak
    for quarter in range(96):
        begin = month + quarter * QUARTER
        used = sum(counters(begin + QUARTER)[:2]) - sum(counters(begin)[:2])
        assert used / (QUARTER / HOUR) < min(PEAKS_KW)


def test_month_peak_joins_the_past_ones() -> None:
    """At the end of a month its peak becomes the newest of thirteen, the oldest goes, a new one begins."""
    end = datetime(2024, 2, 1, tzinfo=DUTCH)
    peak, past = month_peak(end - 10 * MINUTE), past_peaks(end - 10 * MINUTE)
    assert past_peaks(end) == [*past[1:], (end, peak)]
    assert len({end for end, _ in past}) == 13
    assert month_peak(end).value == 0
    history = reading('belgium', end + MINUTE).BELGIUM_MAXIMUM_DEMAND_13_MONTHS
    assert len(history) == 13
    assert [entry.occurred for entry in history] == sorted(entry.occurred for entry in history)


def test_counters_of_years() -> None:
    """In a year a household's energy is used; a clock set far back finds the counters where they began."""
    used = [sum(counters(SUMMER_NOON + timedelta(days=days))[:2]) for days in (0, 366)]
    assert 1000 < used[1] - used[0] < 5000
    assert counters(datetime(1970, 1, 1, tzinfo=timezone.utc)) == counters(
        datetime(2023, 12, 31, tzinfo=DUTCH)
    )


# The line


@pytest.mark.parametrize('version', VERSIONS)
def test_a_reader_gets_telegrams(version: str) -> None:
    """Through the port, at the baud rate of its version, the newest telegram arrives unharmed."""
    with (
        SimulatedMeter(version, interval=0.01) as meter,
        reader(meter, VERSIONS[version].baud_rate) as port,
    ):
        first, second = next_telegram(port), next_telegram(port)
        parsed(first, version)
        assert second.startswith(b'/SIM5')
        assert meter.sent > 0


def test_the_first_telegram_is_immediate() -> None:
    """With an hour between telegrams the first one is there all the same, and only it."""
    with SimulatedMeter(interval=3600) as meter:
        wait_for(lambda: meter.sent == 1)
        assert meter.last.startswith(b'/SIM5')


def test_the_line_has_its_baud_rate() -> None:
    """A telegram takes the time of its bits: once the baud rate is set to 9600, 100 bytes take 0.1 s or more."""
    with SimulatedMeter(interval=0.001, source=lambda: bytes(100)) as meter:
        meter.baud_rate = 9600
        begin, sent = time.monotonic(), meter.sent
        wait_for(lambda: meter.sent > sent + 1)  # the first one may have begun before
        assert time.monotonic() - begin > 0.1


def test_unpaced_nothing_is_lost() -> None:
    """With interval 0 every telegram arrives whole and in order, although the reader lets the line fill up first."""
    numbers = iter(range(10**6))
    with SimulatedMeter(interval=0, source=lambda: b'%06d\n' % next(numbers)) as meter:

        def is_full() -> bool:
            before = meter.sent
            time.sleep(0.05)
            return 0 < before == meter.sent

        # Opening with pyserial would discard what waits.
        descriptor = os.open(meter.port, os.O_RDONLY | os.O_NOCTTY)
        try:
            wait_for(is_full)
            data = b''
            while len(data) < 100_000:
                data += os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
    received = data.split(b'\n')[:-1]
    assert received == [b'%06d' % number for number in range(len(received))]


def test_paced_it_sends_to_nobody() -> None:
    """On a paced line the meter goes on without a reader, long after the port has no room left."""
    with SimulatedMeter(interval=0.001, baud=10**9, source=lambda: bytes(10_000)) as meter:
        wait_for(lambda: meter.sent > 50)


def test_a_name_in_use_is_not_taken(tmp_path: Path) -> None:
    """A file where the link should be is refused and left alone, and nothing stays open."""
    taken = tmp_path / 'meter'
    taken.write_text('mine')
    before = open_files()
    with pytest.raises(FileExistsError):
        SimulatedMeter(link=str(taken))
    assert taken.read_text() == 'mine'
    assert open_files() == before


@pytest.mark.parametrize('interval', [0, 0.01, 3600])
def test_nothing_is_left_behind(interval: float, tmp_path: Path) -> None:
    """Closed, also twice, the meter leaves neither thread nor descriptor nor link."""
    before = open_files(), threading.active_count()
    meter = SimulatedMeter(interval=interval, link=str(tmp_path / 'meter'))
    assert 'simulated-meter' in {thread.name for thread in threading.enumerate()}
    wait_for(lambda: meter.last != b'')
    meter.close()
    meter.close()
    assert (open_files(), threading.active_count()) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('interval', [0, 3600])
def test_closing_does_not_wait_for_the_line(interval: float) -> None:
    """In the middle of a telegram that is slow or finds no room, closing ends the thread at once."""
    meter = SimulatedMeter(interval=interval, source=lambda: bytes(100_000))
    wait_for(lambda: meter.last != b'')
    begin = time.monotonic()
    meter.close()
    assert time.monotonic() - begin < 3
    assert meter.sent == 0
    assert 'simulated-meter' not in {thread.name for thread in threading.enumerate()}


# The faults


def test_silence() -> None:
    """A hushed meter has ended its telegram, sends no other, and sends again when it is not silent any more."""
    with (
        FaultyMeter(interval=0.01, baud=9600, source=lambda: ANY_TELEGRAM) as meter,
        reader(meter, 9600) as port,
    ):
        received = read_until(port, lambda data: len(data) > 20)
        hush(meter)
        sent = meter.sent
        end = ANY_TELEGRAM[-20:]
        read_until(port, lambda data: (received + data).endswith(end) and not port.in_waiting)
        assert port.read(1) == b''
        assert meter.sent == sent
        meter.silent = False
        assert next_telegram(port) == ANY_TELEGRAM


def test_it_sends_when_it_is_asked() -> None:
    """A silent meter sends as many telegrams as it is asked for, each when the reader has taken the one before."""
    with FaultyMeter(interval=0.01, source=lambda: ANY_TELEGRAM) as meter:
        hush(meter)
        with reader(meter) as port, ThreadPoolExecutor(1) as pool:
            sent, taken = meter.sent, meter.taken
            sending = pool.submit(meter.send, 2)
            wait_for(lambda: meter.sent == sent + 1)
            assert not sending.done()
            data = read_until(port, lambda data: len(data) >= 2 * len(ANY_TELEGRAM))
            sending.result(PATIENCE)
            assert data == 2 * ANY_TELEGRAM
            assert (meter.sent, meter.taken) == (sent + 2, taken + 2)
            assert port.read(1) == b''


def test_what_nobody_reads_is_not_taken() -> None:
    """Telegrams count as taken only while a reader has the port open, and takes them."""
    with FaultyMeter(interval=0.01, source=lambda: ANY_TELEGRAM) as meter:
        wait_for(lambda: meter.sent > 2)
        assert not meter.has_reader
        with reader(meter) as port:
            assert meter.has_reader
            read_until(port, lambda _: meter.taken > 0)
        hush(meter)
        taken, sent = meter.taken, meter.sent
        meter.silent = False
        wait_for(lambda: meter.sent > sent + 2)
        assert meter.taken == taken


@contextmanager
def faulty(**faults: Any) -> Iterator[tuple[FaultyMeter, serial.Serial]]:
    """A meter that has these faults from its first telegram on, and a reader."""
    release = threading.Event()

    def source() -> bytes:
        assert release.wait(PATIENCE)
        return ANY_TELEGRAM

    with FaultyMeter(interval=0, source=source) as meter, reader(meter) as port:
        for name, value in faults.items():
            setattr(meter, name, value)
        release.set()
        yield meter, port


@pytest.mark.parametrize(('every', 'wrong'), [(0, 0), (1, 6), (2, 3), (3, 2)])
def test_corruption(every: int, wrong: int) -> None:
    """Each n-th telegram has one wrong digit, which its checksum shows, and is otherwise whole."""
    with faulty(corrupt_every=every) as (_, port):
        data = read_until(port, lambda data: len(data) >= 6 * len(ANY_TELEGRAM))
    size = len(ANY_TELEGRAM)
    received = [data[start : start + size] for start in range(0, 6 * size, size)]
    corrupted = ANY_TELEGRAM.replace(b'456*', b'453*')
    assert [one for one in received if one != ANY_TELEGRAM] == wrong * [corrupted]


def test_cut_short_after_noise() -> None:
    """Noise comes before the telegram, of which only the beginning is sent, and it does not count as sent."""
    expected = 2 * (b'\x00~' + ANY_TELEGRAM[:7])
    with faulty(cut=7, noise=b'\x00~') as (meter, port):
        assert read_until(port, lambda data: len(data) >= len(expected)).startswith(expected)
        assert meter.sent == 0
        assert meter.last == ANY_TELEGRAM


@pytest.mark.parametrize(('version', 'wrong'), [('5.0', 9600), ('2.2', 115200)])
def test_the_wrong_baud_rate_yields_garbage(version: str, wrong: int) -> None:
    """At the wrong baud rate no line of a telegram comes through; at the right one the next telegram does."""
    with FaultyMeter(version, interval=0.01) as meter, reader(meter, wrong) as port:
        garbage = read_until(port, lambda data: len(data) > 100)
        text = [byte for byte in garbage if chr(byte).isprintable() and byte < 0x7F]
        assert len(text) < len(garbage) / 4
        assert b'\r\n' not in garbage
        port.baudrate = VERSIONS[version].baud_rate
        parsed(next_telegram(port), version)


def test_misreading() -> None:
    """Read too fast a byte becomes several, too slowly several become one, at the right baud rate all stay."""
    data = bytes(range(256))
    assert misread(data, 9600, 9600) == data
    assert 3 * len(data) < len(misread(data, 9600, 115200)) < 12 * len(data)
    assert len(data) / 14 < len(misread(data, 115200, 9600)) < len(data) / 6
    assert set(misread(ANY_TELEGRAM, 9600, 115200)) <= {
        0x00,
        0x80,
        0xE0,
        0xF0,
        0xF8,
        0xFC,
        0xFE,
        0xFF,
    }


def test_unplugged_and_plugged_in_again(tmp_path: Path) -> None:
    """Unplugging fails the reader and removes the link; plugged in, the same name has telegrams again."""
    link = tmp_path / 'meter'
    with FaultyMeter(interval=0.01, link=str(link)) as meter:
        assert meter.port == str(link)
        with reader(meter) as port:
            next_telegram(port)
            meter.unplug()
            with pytest.raises((serial.SerialException, OSError)):
                read_until(port, lambda _: False)
        assert not os.path.lexists(link)
        meter.plug_in()
        meter.plug_in()
        with reader(meter) as port:
            parsed(next_telegram(port), '5.0')
    assert not os.path.lexists(link)


def test_nothing_counts_while_unplugged() -> None:
    """What is sent without a plug does not count; unplugging twice is as good as once, also before closing."""
    made = []

    def source() -> bytes:
        made.append(ANY_TELEGRAM)
        return ANY_TELEGRAM

    before = open_files()
    with FaultyMeter(interval=0, source=source) as meter:
        wait_for(lambda: meter.sent > 0)
        meter.unplug()
        meter.unplug()
        begin = len(made)
        wait_for(lambda: len(made) > begin + 2)
        begin, sent = len(made), meter.sent
        wait_for(lambda: len(made) > begin + 5)
        assert meter.sent == sent
        meter.plug_in()
        wait_for(lambda: meter.sent > sent)
        meter.unplug()
    assert open_files() == before


# The command


@pytest.mark.parametrize('end', [signal.SIGTERM, signal.SIGINT])
def test_by_hand(end: signal.Signals) -> None:
    """The command names the device on stdout, sends there, and ends well on a signal."""
    command = [
        sys.executable,
        '-m',
        'dsmr_rest.simulated',
        '--version',
        '2.2',
        '--interval',
        '0',
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            device = re.fullmatch(r'port = (/dev/pts/\d+)\n', process.stdout.readline())
            assert device
            with serial.Serial(device[1], 9600, timeout=0.05) as port:
                parsed(next_telegram(port), '2.2')
            process.send_signal(end)
            rest, complaint = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, rest, complaint.count('\n')) == (0, '', 1)


def test_a_signal_that_comes_early_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A signal that came before the meter was there is not lost: the command ends well at once."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        assert main(['--interval', '3600']) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert capsys.readouterr().out.startswith('port = /dev/pts/')


@pytest.mark.parametrize('interval', ['-1', 'nan', 'inf', 'soon'])
def test_an_impossible_interval_is_refused(
    interval: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interval that is no time to wait ends the command with status 2 before there is a meter."""
    with pytest.raises(SystemExit) as refused:
        main([f'--interval={interval}'])
    shown = capsys.readouterr()
    assert (refused.value.code, shown.out) == (2, '')
    assert '--interval' in shown.err
