"""The simulated meter against dsmr_parser, a real pseudo-terminal and pyserial."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import serial
from dsmr_parser import telegram_specifications
from dsmr_parser.parsers import TelegramParser

from dsmr_rest.simulated_meter import (
    DUTCH,
    LOW,
    NORMAL,
    VERSIONS,
    House,
    SimulatedMeter,
    misread,
    telegram,
    with_checksum,
)

PATIENCE = 10
SUMMER_NOON = datetime(2024, 6, 21, 13, 40, 5, tzinfo=DUTCH)
SPECIFICATIONS = {
    '5.0': telegram_specifications.V5,
    '4.2': telegram_specifications.V4,
    '2.2': telegram_specifications.V2_2,
    'belgium': telegram_specifications.BELGIUM_FLUVIUS,
}
ANY_TELEGRAM = with_checksum('/ANY5\\TEST\r\n\r\n1-0:1.8.1(000123.456*kWh)\r\n1-0:1.7.0(00.789*kW)\r\n')


def parsed(data: bytes, version: str) -> Any:
    """What dsmr_parser makes of a telegram; a copy, since its parsers keep state."""
    return TelegramParser(deepcopy(SPECIFICATIONS[version])).parse(data.decode('ascii'), throw_ex=True)


@contextmanager
def reader(meter: SimulatedMeter, baud: int = 115200) -> Iterator[serial.Serial]:
    with serial.Serial(meter.port, baud, timeout=0.05) as port:
        yield port


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, 'the condition never came true'
        time.sleep(0.002)


def read_until(port: serial.Serial, done: Callable[[bytes], bool]) -> bytes:
    """All that has been read when `done` accepts it."""
    data, deadline = b'', time.monotonic() + PATIENCE
    while not done(data):
        assert time.monotonic() < deadline, f'only {data[-200:]!r} came'
        data += port.read(port.in_waiting or 1)
    return data


def next_telegram(port: serial.Serial) -> bytes:
    """The first telegram that is whole, '/' to the end of its checksum line."""
    whole = re.compile(rb'/[^!/]*![0-9A-F]*\r\n')
    found = whole.search(read_until(port, lambda data: bool(whole.search(data))))
    assert found
    return found[0]


@pytest.fixture
def house() -> House:
    return House()


@pytest.mark.parametrize('version', VERSIONS)
def test_every_line_parses(house: House, version: str) -> None:
    """Each line of a telegram is one object to dsmr_parser under its version's specification."""
    data = telegram(house, version, SUMMER_NOON)
    lines = [line for line in data.split(b'\r\n')[2:-2] if not line.startswith(b'(')]
    result = parsed(data, version)
    devices = getattr(result, 'MBUS_DEVICES', [])
    values = [name for name, _ in result if name != 'MBUS_DEVICES']
    assert len(values) + sum(len(list(device)) for device in devices) == len(lines)


@pytest.mark.parametrize('version', VERSIONS)
def test_ends_of_lines_and_telegram(house: House, version: str) -> None:
    """A telegram starts with identification and empty line, all lines end in CRLF, the last one is '!'."""
    data = telegram(house, version, SUMMER_NOON)
    end = rb'![0-9A-F]{4}\r\n' if VERSIONS[version].checksum else rb'!\r\n'
    assert re.fullmatch(rb'/SIM5[^\r\n]+\r\n\r\n([^\r\n!/]+\r\n)+' + end, data)


def test_checksum_line() -> None:
    """with_checksum takes text or bytes and adds the line that the library verifies."""
    assert with_checksum(b'/ANY5\r\n\r\n') == with_checksum('/ANY5\r\n\r\n')
    TelegramParser.validate_checksum(ANY_TELEGRAM.decode())


def test_values_are_the_houses(house: House) -> None:
    """The telegram says what the house's attributes say, to the width of its fields."""
    result = parsed(telegram(house, '5.0', SUMMER_NOON), '5.0')
    assert result.CURRENT_ELECTRICITY_DELIVERY.value == Decimal(f'{house.delivered_kw:.3f}')
    assert result.ELECTRICITY_USED_TARIFF_2.value == Decimal(f'{house.used_kwh[NORMAL]:.3f}')
    second_phase = Decimal(f'{house.delivered_w[1] / 1000:.3f}')
    assert result.INSTANTANEOUS_ACTIVE_POWER_L2_NEGATIVE.value == second_phase
    assert result.ELECTRICITY_ACTIVE_TARIFF.value == '0002'
    assert result.POWER_EVENT_FAILURE_LOG.buffer_length == 2


def test_belgium_numbers_its_tariffs_the_other_way_round(house: House) -> None:
    """By day the Belgian tariff is 1, and its counters stand in that order."""
    result = parsed(telegram(house, 'belgium', SUMMER_NOON), 'belgium')
    assert result.ELECTRICITY_ACTIVE_TARIFF.value == '0001'
    assert result.ELECTRICITY_USED_TARIFF_1.value == Decimal(f'{house.used_kwh[NORMAL]:.3f}')
    assert result.ELECTRICITY_USED_TARIFF_2.value == Decimal(f'{house.used_kwh[LOW]:.3f}')


def test_same_seed_same_telegrams() -> None:
    """Seed and moments alone decide: one house repeats another, a third with another seed does not."""
    later = SUMMER_NOON + timedelta(minutes=7)
    one, same, other = [
        [telegram(house, 'belgium', moment) for moment in (SUMMER_NOON, later)]
        for house in (House(5), House(5), House(6))
    ]
    assert one == same
    assert one != other


def test_time_runs_forward_only(house: House) -> None:
    """A clock set back changes nothing in the house."""
    telegram(house, '5.0', SUMMER_NOON)
    before = dict(vars(house))
    house.advance(SUMMER_NOON - timedelta(hours=3))
    assert vars(house) == before


def counters(house: House) -> list[float]:
    gas_and_water = [house.gas_hourly.value, house.gas_recent.value, house.water.value]
    return [*house.used_kwh.values(), *house.delivered_kwh.values(), *gas_and_water]


@pytest.mark.parametrize('month', [1, 6])
def test_counters_are_the_integral_of_power(house: House, month: int) -> None:
    """Over a day counters never fall, all grow, and electricity's grow by power times time."""
    begin = datetime(2024, month, 19, tzinfo=timezone.utc)
    house.advance(begin)
    first = last = counters(house)
    used = delivered = 0.0
    for step in range(1, 24 * 360 + 1):
        house.advance(begin + timedelta(seconds=10 * step))
        assert all(new >= old for new, old in zip(counters(house), last, strict=True))
        last = counters(house)
        used, delivered = used + house.used_kw / 360, delivered + house.delivered_kw / 360
    grown = [new - old for new, old in zip(last, first, strict=True)]
    assert sum(grown[:2]) == pytest.approx(used)
    assert sum(grown[2:4]) == pytest.approx(delivered)
    assert min(grown[0], grown[1], grown[3], *grown[4:]) > 0


def test_one_leap_is_as_good_as_many_steps() -> None:
    """A day lived in one go comes close to the same day lived in steps of ten seconds."""
    leaper, walker = House(), House()
    for house, step in ((leaper, 86400), (walker, 10)):
        for seconds in range(0, 86401, step):
            house.advance(SUMMER_NOON + timedelta(seconds=seconds))
    assert counters(leaper) == pytest.approx(counters(walker), rel=1e-3)
    assert leaper.gas_hourly.moment == walker.gas_hourly.moment


def test_summer_noon_delivers_and_night_uses(house: House) -> None:
    """The sun makes the house deliver, the dark makes it use; it never does both at once."""
    house.advance(SUMMER_NOON)
    assert house.delivered_kw > 0.5
    assert house.used_kw == 0
    house.advance(datetime(2024, 6, 22, 2, 0, tzinfo=DUTCH))
    assert house.used_kw > 0.1
    assert house.delivered_kw == 0


def test_phases_agree(house: House) -> None:
    """On each phase power is either used or delivered, and is voltage times current."""
    for hour in range(24):
        house.advance(SUMMER_NOON + timedelta(hours=hour))
        for used, delivered, volts, amperes in zip(
            house.used_w, house.delivered_w, house.volts, house.amperes, strict=True
        ):
            assert min(used, delivered) == 0
            assert 220 < volts < 240
            assert volts * amperes == pytest.approx(used + delivered)


@pytest.mark.parametrize(
    ('moment', 'tariff'),
    [
        (datetime(2024, 6, 21, 6, 59, 59, tzinfo=DUTCH), LOW),
        (datetime(2024, 6, 21, 7, tzinfo=DUTCH), NORMAL),
        (datetime(2024, 6, 21, 22, 59, 59, tzinfo=DUTCH), NORMAL),
        (datetime(2024, 6, 21, 23, tzinfo=DUTCH), LOW),
        (datetime(2024, 6, 22, 12, tzinfo=DUTCH), LOW),
    ],
)
def test_tariff_hours(moment: datetime, tariff: int) -> None:
    """The normal tariff holds on weekdays from seven to eleven in the evening, local time."""
    assert House.tariff(moment) == tariff


def test_each_tariff_counts_its_own_hours(house: House) -> None:
    """A leap across the change of tariff gives each counter what was used under it."""
    house.advance(datetime(2024, 1, 16, 22, 30, tzinfo=DUTCH))
    before = dict(house.used_kwh)
    house.advance(datetime(2024, 1, 16, 23, 0, tzinfo=DUTCH))
    assert house.used_kwh[NORMAL] > before[NORMAL]
    assert house.used_kwh[LOW] == before[LOW]


def test_gas_is_read_at_round_moments(house: House) -> None:
    """4.2 and 2.2 pass on the gas reading of the hour, 5.0 and Belgium that of the last five minutes."""
    telegram(house, '5.0', datetime(2024, 1, 16, 19, 3, tzinfo=DUTCH))
    now = datetime(2024, 1, 16, 20, 13, 40, tzinfo=DUTCH)
    stamps = {version: telegram(house, version, now) for version in VERSIONS}
    assert b'0-1:24.2.1(240116201000W)' in stamps['5.0']
    assert b'0-1:24.2.1(240116200000W)' in stamps['4.2']
    assert b'0-1:24.3.0(240116200000)' in stamps['2.2']
    assert b'0-1:24.2.3(240116201000W)' in stamps['belgium']
    assert b'0-2:24.2.1(240116201000W)' in stamps['belgium']
    assert house.gas_hourly.value < house.gas_recent.value


@pytest.mark.parametrize(('utc_hour', 'stamp'), [(0, b'241027023000S'), (1, b'241027023000W')])
def test_the_hour_that_comes_twice(house: House, utc_hour: int, stamp: bytes) -> None:
    """In the October change S and W tell the two half past twos apart."""
    moment = datetime(2024, 10, 27, utc_hour, 30, tzinfo=timezone.utc)
    data = telegram(house, '5.0', moment)
    assert b'0-0:1.0.0(%b)\r\n' % stamp in data
    assert parsed(data, '5.0').P1_MESSAGE_TIMESTAMP.value == moment


def test_the_october_night_lasts_an_hour_longer(house: House) -> None:
    """Local times across the change differ by the time that really passed."""
    house.advance(datetime(2024, 10, 27, 1, 30, tzinfo=DUTCH))
    water, gas = house.water.value, house.gas_recent.value
    house.advance(datetime(2024, 10, 27, 3, 30, tzinfo=DUTCH))
    flow = (house.gas_recent.value - gas) / 3
    house.advance(datetime(2024, 10, 27, 4, 30, tzinfo=DUTCH))
    assert house.gas_recent.value - gas == pytest.approx(4 * flow, rel=0.01)
    assert house.water.value == water


def test_quarter_hour_demand_starts_anew(house: House) -> None:
    """The demand grows through a quarter-hour to its average and is nought again at its end."""
    begin, energy = datetime(2024, 1, 16, 19, 0, tzinfo=DUTCH), 0.0
    house.advance(begin)
    for minute in range(1, 15):
        house.advance(begin + timedelta(minutes=minute))
        energy += house.used_kw / 60
        assert house.demand_kw == pytest.approx(energy * 4)
    house.advance(begin + timedelta(minutes=15))
    assert house.demand_kw == 0


def test_month_peak_joins_the_past_ones(house: House) -> None:
    """At the end of a month its peak becomes the newest of thirteen, the oldest goes, a new one begins."""
    before_end = datetime(2024, 1, 31, 23, 50, tzinfo=DUTCH)
    house.advance(before_end - timedelta(days=1))
    house.advance(before_end)
    peak, past = house.month_peak, house.past_peaks
    house.advance(datetime(2024, 2, 1, 0, 1, tzinfo=DUTCH))
    assert house.past_peaks == [*past[1:], (datetime(2024, 2, 1, tzinfo=DUTCH), peak)]
    assert len(house.past_peaks) == 13
    assert house.month_peak.value == 0
    result = parsed(telegram(house, 'belgium', datetime(2024, 2, 1, 0, 2, tzinfo=DUTCH)), 'belgium')
    history = result.BELGIUM_MAXIMUM_DEMAND_13_MONTHS
    assert len(history) == 13
    assert [entry.occurred for entry in history] == sorted(entry.occurred for entry in history)


def test_a_year_is_lived_at_once(house: House) -> None:
    """A clock set a year ahead leaves counters that are a year further and peaks of the months between."""
    house.advance(SUMMER_NOON)
    used = sum(house.used_kwh.values())
    house.advance(SUMMER_NOON + timedelta(days=366))
    assert 1000 < sum(house.used_kwh.values()) - used < 5000
    assert len({end for end, _ in house.past_peaks}) == 13


@pytest.mark.parametrize('version', VERSIONS)
def test_a_reader_gets_telegrams(version: str) -> None:
    """Through the port, at the speed of its version, the newest telegram arrives unharmed."""
    with SimulatedMeter(version, interval=0.01) as meter, reader(meter, VERSIONS[version].baud) as port:
        first, second = next_telegram(port), next_telegram(port)
        parsed(first, version)
        assert second.startswith(b'/SIM5')
        assert meter.sent > 0


def test_the_first_telegram_is_immediate() -> None:
    """With an hour between telegrams the first one is there all the same, and only it."""
    with SimulatedMeter(interval=3600) as meter:
        until(lambda: meter.sent == 1)
        assert meter.last.startswith(b'/SIM5')


def test_the_line_has_its_speed() -> None:
    """A telegram takes the time of its bits: at 9600 baud 100 bytes do not come within 0.1 s."""
    begin = time.monotonic()
    with SimulatedMeter(interval=3600, baud=9600, source=lambda: bytes(100)) as meter:
        until(lambda: meter.sent == 1)
        assert time.monotonic() - begin > 0.1


def test_unpaced_nothing_is_lost() -> None:
    """With interval 0 every telegram arrives whole and in order, however slowly it is taken."""
    numbers = iter(range(10**6))
    with SimulatedMeter(interval=0, source=lambda: b'%06d\n' % next(numbers)) as meter:
        # Opening with pyserial would discard what waits.
        descriptor = os.open(meter.port, os.O_RDONLY | os.O_NOCTTY)
        until(lambda: meter.sent > 1000)
        data = b''
        while len(data) < 300_000:
            data += os.read(descriptor, 4096)
        os.close(descriptor)
    received = data.split(b'\n')[:-1]
    assert received == [b'%06d' % number for number in range(len(received))]


def test_paced_it_talks_to_nobody() -> None:
    """On a paced line the meter goes on without a reader, long after the port has no room left."""
    with SimulatedMeter(interval=0.001, baud=10**9, source=lambda: bytes(10_000)) as meter:
        until(lambda: meter.sent > 50)


def test_silence() -> None:
    """A silent meter sends nothing, and talks again when it is not silent any more."""
    with SimulatedMeter(interval=0, source=lambda: ANY_TELEGRAM) as meter, reader(meter) as port:
        next_telegram(port)
        meter.silent = True
        while port.read(port.in_waiting or 1):
            pass
        sent = meter.sent
        assert port.read(1) == b''
        assert meter.sent == sent
        meter.silent = False
        assert next_telegram(port) == ANY_TELEGRAM


def behind(gate: threading.Event) -> Callable[[], bytes]:
    """A source that waits for the test to have set the faults."""
    return lambda: ANY_TELEGRAM if gate.wait(PATIENCE) else b''


@pytest.mark.parametrize(('every', 'wrong'), [(0, 0), (1, 6), (2, 3), (3, 2)])
def test_corruption(every: int, wrong: int) -> None:
    """Each n-th telegram has one wrong digit, which its checksum shows, and is otherwise whole."""
    gate = threading.Event()
    with SimulatedMeter(interval=0, source=behind(gate)) as meter, reader(meter) as port:
        meter.corrupt_every = every
        gate.set()
        data = read_until(port, lambda data: len(data) >= 6 * len(ANY_TELEGRAM))
    size = len(ANY_TELEGRAM)
    received = [data[start : start + size] for start in range(0, 6 * size, size)]
    corrupted = ANY_TELEGRAM.replace(b'456*', b'453*')
    assert [one for one in received if one != ANY_TELEGRAM] == wrong * [corrupted]


def test_cut_short_after_noise() -> None:
    """Noise comes before the telegram, of which only the beginning is sent, and it does not count as sent."""
    gate = threading.Event()
    with SimulatedMeter(interval=0, source=behind(gate)) as meter, reader(meter) as port:
        meter.cut, meter.noise = 7, b'\x00~'
        gate.set()
        expected = 2 * (b'\x00~' + ANY_TELEGRAM[:7])
        assert read_until(port, lambda data: len(data) >= len(expected)).startswith(expected)
        assert meter.sent == 0
        assert meter.last == ANY_TELEGRAM


@pytest.mark.parametrize(('version', 'wrong'), [('5.0', 9600), ('2.2', 115200)])
def test_the_wrong_speed_gives_garbage(version: str, wrong: int) -> None:
    """At the wrong speed no line of a telegram comes through; at the right one the next telegram does."""
    with SimulatedMeter(version, interval=0.01) as meter, reader(meter, wrong) as port:
        garbage = read_until(port, lambda data: len(data) > 100)
        text = [byte for byte in garbage if chr(byte).isprintable() and byte < 0x7F]
        assert len(text) < len(garbage) / 4
        assert b'\r\n' not in garbage
        port.baudrate = VERSIONS[version].baud
        parsed(next_telegram(port), version)


def test_misreading() -> None:
    """Read too fast a byte becomes several, too slowly several become one, at the right speed all stay."""
    data = bytes(range(256))
    assert misread(data, 9600, 9600) == data
    assert 3 * len(data) < len(misread(data, 9600, 115200)) < 12 * len(data)
    assert len(data) / 14 < len(misread(data, 115200, 9600)) < len(data) / 6
    assert set(misread(ANY_TELEGRAM, 9600, 115200)) <= {0x00, 0x80, 0xE0, 0xF0, 0xF8, 0xFC, 0xFE, 0xFF}


def test_unplugged_and_plugged_in_again(tmp_path: Path) -> None:
    """Unplugging fails the reader and removes the link; plugged in, the same name has telegrams again."""
    link = tmp_path / 'meter'
    with SimulatedMeter(interval=0.01, link=str(link)) as meter:
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
    """What is sent without a plug does not count; unplugging twice is as good as once."""
    asked = 0

    def source() -> bytes:
        nonlocal asked
        asked += 1
        return ANY_TELEGRAM

    with SimulatedMeter(interval=0, source=source) as meter:
        until(lambda: meter.sent > 0)
        meter.unplug()
        meter.unplug()
        begin = asked
        until(lambda: asked > begin + 2)
        sent = meter.sent
        until(lambda: asked > begin + 5)
        assert meter.sent == sent
        meter.plug_in()
        until(lambda: meter.sent > sent)


def test_a_name_in_use_is_not_taken(tmp_path: Path) -> None:
    """A file where the link should be is refused and left alone."""
    taken = tmp_path / 'meter'
    taken.write_text('mine')
    before = descriptors()
    with pytest.raises(FileExistsError):
        SimulatedMeter(link=str(taken))
    assert taken.read_text() == 'mine'
    assert descriptors() == before


def descriptors() -> set[str]:
    return {path.name for path in Path('/proc/self/fd').iterdir()}


@pytest.mark.parametrize('interval', [0, 0.01, 3600])
def test_nothing_is_left_behind(interval: float) -> None:
    """Closed, also twice and unplugged, the meter leaves neither thread nor descriptor."""
    before = descriptors(), threading.active_count()
    meter = SimulatedMeter(interval=interval)
    assert 'simulated-meter' in {thread.name for thread in threading.enumerate()}
    until(lambda: meter.last != b'')
    meter.unplug()
    meter.close()
    meter.close()
    assert (descriptors(), threading.active_count()) == before


@pytest.mark.parametrize('baud', [300, 115200])
def test_closing_does_not_wait_for_the_line(baud: int) -> None:
    """In the middle of a telegram, and of an interval, closing ends the thread at once."""
    meter = SimulatedMeter(interval=3600, baud=baud)
    until(lambda: meter.last != b'')
    meter.close()
    assert meter.sent <= 1
    assert 'simulated-meter' not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize('end', [signal.SIGTERM, signal.SIGINT])
def test_by_hand(end: signal.Signals) -> None:
    """The command names the device on stdout, talks there, and ends well when told to stop."""
    command = [sys.executable, '-m', 'dsmr_rest.simulated_meter', '--version', '2.2', '--interval', '0']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
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


@pytest.mark.parametrize('interval', ['-1', 'nan', 'inf', 'soon'])
def test_an_impossible_interval_is_refused(interval: str) -> None:
    """An interval that is no time to wait ends the command with status 2 before there is a meter."""
    command = [sys.executable, '-m', 'dsmr_rest.simulated_meter', f'--interval={interval}']
    refused = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (refused.returncode, refused.stdout) == (2, '')
    assert '--interval' in refused.stderr
