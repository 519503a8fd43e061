"""Which gas meter is in use, whatever the three clocks say."""

from datetime import datetime
from typing import Any

import pytest

from dsmr_rest.reading.gas import gas_keys

TELEGRAM = '2024-03-05T21:43:55+01:00'


def gas_meter(
    time: str | None, value: float, kind: int = 3, number: str | None = '4731'
) -> dict[str, Any]:
    """An item of mbusDevices."""
    return {
        'channelId': 1,
        'mbusDeviceType': {'value': kind, 'unit': None},
        'mbusEquipmentIdentifier': {'value': number, 'unit': None},
        'mbusMeterReading': {'datetime': time, 'value': value, 'unit': 'm3'},
    }


def live(times: list[str], telegram: str | None, computer: str) -> float:
    """The number, from 1, of the gas meter in use, of meters with readings of these times."""
    devices = [gas_meter(time, float(number)) for number, time in enumerate(times, 1)]
    document = {}
    if telegram is not None:
        document['p1MessageTimestamp'] = {'value': telegram, 'unit': None}
    keys = gas_keys(document, devices, datetime.fromisoformat(computer).timestamp())
    value: float = keys['hourlyGasMeterReading']['value']
    return value


NOW = '2024-03-05T20:43:50+00:00'
YEARS_LATER = '2031-03-05T20:43:50+00:00'
UNSET = '1970-01-01T00:00:10+00:00'
"""The clock of a Raspberry Pi that has not found the time yet."""

LIVE = '2024-03-05T21:00:00+01:00'
AHEAD = '2025-01-01T21:00:00+01:00'
DECADES_AHEAD = '2068-10-27T00:27:58+02:00'
OLD = '2023-06-01T12:00:00+02:00'
SOON = '2024-03-06T20:00:00+01:00'


@pytest.mark.parametrize('computer', [NOW, YEARS_LATER, UNSET])
@pytest.mark.parametrize(
    ('times', 'expected'),
    [
        ([LIVE], 1),
        ([AHEAD], 1),
        ([OLD, LIVE], 2),
        ([LIVE, OLD], 1),
        ([LIVE, LIVE], 1),
        ([AHEAD, LIVE], 2),
        ([LIVE, DECADES_AHEAD], 1),
        ([LIVE, SOON], 2),
        ([OLD, AHEAD, LIVE, DECADES_AHEAD], 3),
    ],
)
def test_the_gas_meter_in_use_has_the_newest_reading_up_to_now(
    times: list[str], expected: int, computer: str
) -> None:
    """A removed meter does not win with a time in the future, whatever the computer's clock says."""
    assert live(times, TELEGRAM, computer) == expected


@pytest.mark.parametrize(
    ('times', 'telegram', 'computer', 'expected'),
    [
        # The meter's clock is months or decades behind, and the computer's is right.
        ([OLD, LIVE], '2023-12-27T04:20:00+01:00', NOW, 2),
        ([LIVE, OLD], '2000-01-01T01:00:00+01:00', NOW, 1),
        ([OLD, LIVE, DECADES_AHEAD], '2000-01-01T01:00:00+01:00', NOW, 2),
        # DSMR 2.2 does not send the time.
        ([OLD, LIVE], None, NOW, 2),
        ([LIVE, AHEAD], None, NOW, 1),
        # The gas meter in use was read days ago.
        (['2024-03-02T21:00:00+01:00', OLD, AHEAD], TELEGRAM, NOW, 1),
        (['2024-03-02T21:00:00+01:00', OLD, AHEAD], TELEGRAM, UNSET, 1),
        # Only future ones, by all clocks: the newest.
        ([AHEAD, DECADES_AHEAD], TELEGRAM, NOW, 2),
        ([LIVE, OLD], '2000-01-01T01:00:00+01:00', UNSET, 1),
    ],
)
def test_a_wrong_clock_does_not_hide_the_gas_meter_in_use(
    times: list[str], telegram: str | None, computer: str, expected: int
) -> None:
    """The later of the meter's and the computer's time decides when no reading is from the time of the telegram."""
    assert live(times, telegram, computer) == expected


@pytest.mark.parametrize(
    ('hours', 'expected'), [('2024-03-06T20:40:00+00:00', 2), ('2024-03-06T20:50:00+00:00', 1)]
)
def test_a_day_is_tolerated(hours: str, expected: int) -> None:
    """A reading up to a day after the later of the two times counts."""
    assert live([OLD, hours], None, NOW) == expected


def test_a_device_that_is_no_gas_meter_or_has_no_reading_is_not_in_use() -> None:
    """Water, a meter that was never read and one that was removed give no keys."""
    devices = [
        gas_meter(LIVE, 1.0, kind=7),
        gas_meter(None, 2.0),
        gas_meter('1970-01-01T00:00:00+01:00', 3.0),
        gas_meter(LIVE, 0.0, number=''),
    ]
    assert gas_keys({}, devices, 0.0) == {}


def test_the_keys_are_those_of_the_meter_in_use() -> None:
    """Its type, its number as it is sent, and its reading."""
    device = gas_meter(LIVE, 1.5)
    assert gas_keys({}, [device], 0.0) == {
        'deviceType': {'value': 3, 'unit': None},
        'equipmentIdentifierGas': device['mbusEquipmentIdentifier'],
        'hourlyGasMeterReading': device['mbusMeterReading'],
    }
