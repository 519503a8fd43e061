"""What a simulated meter's telegrams say, by dsmr_parser's own parsers."""

import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise

import pytest
from dsmr_parser.parsers import TelegramParser

from dsmr_rest.simulated.house import DELIVERED, DUTCH, LOW, NORMAL, USED, energy_kwh, phases_w
from dsmr_rest.simulated.telegrams import VERSIONS, telegram, with_checksum
from tests.library_reading import parsed, reading

SUMMER_NOON = datetime(2024, 6, 21, 13, 40, 5, tzinfo=DUTCH)


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
    TelegramParser.validate_checksum(with_checksum('/ANY5\r\n\r\n').decode())


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
