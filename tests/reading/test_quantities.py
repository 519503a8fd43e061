"""Quantities: the numbers of the document in one unit, times, and registers with and without a name."""

import math
from typing import Any

import pytest

from dsmr_rest.reading import quantities
from dsmr_rest.reading.document import possible_keys
from dsmr_rest.reading.quantities import (
    ENERGY_DELIVERED,
    ENERGY_USED,
    LARGEST,
    MULTIPLES,
    POWER_USED,
    Quantity,
    Unit,
    amount,
    latest,
    moment_of,
    number,
    time_of,
)


def item(value: Any, unit: str | None = None) -> dict[str, Any]:
    return {'value': value, 'unit': unit}


@pytest.mark.parametrize(
    ('sent', 'unit', 'expected'),
    [
        (item(0.241, 'kV'), 'V', 241.0),
        (item(241000, 'mV'), 'V', 241.0),
        (item(0.005, 'kA'), 'A', 5.0),
        (item(5000, 'mA'), 'A', 5.0),
        (item(0.049, 'kHz'), 'Hz', 49.0),
        (item(12.5, 'MWh'), 'kWh', 12500.0),
        (item(12500, 'Wh'), 'kWh', 12.5),
        (item(1.5, 'GW'), 'W', 1.5e9),
        (item(1500, 'MJ'), 'GJ', 1.5),
        (item(1500, 'dm3'), 'm3', 1.5),
        (item(1500, 'l'), 'm3', 1.5),
        (item(8), None, 8),
        (item(8, 'kWh'), 'V', None),
        (item(8), 'V', None),
        (item(8, 'V'), None, None),
        (item(8, 'kkV'), 'V', None),
        (item(8, 'KV'), 'V', None),
        (item(None, 'V'), 'V', None),
        (item('8', 'V'), 'V', None),
    ],
)
def test_an_amount_is_in_the_unit_that_is_wanted(
    sent: dict[str, Any], unit: Unit, expected: float | None
) -> None:
    """Every multiple of a unit is converted, and another kind of unit, or none, is no amount."""
    assert amount(sent, unit) == expected


def test_a_count_stays_an_integer() -> None:
    """What needs no conversion is not converted."""
    assert type(amount(item(8), None)) is int


@pytest.mark.parametrize('prefix', MULTIPLES)
def test_every_multiple_means_the_same_for_each_unit(prefix: str) -> None:
    """A prefix has one factor."""
    for unit in ('Wh', 'W', 'V', 'A', 'Hz', 'J'):
        assert amount(item(3.0, prefix + unit), unit) == 3.0 * MULTIPLES[prefix]


@pytest.mark.parametrize('value', [None, 'text', math.nan, math.inf, LARGEST * 10, -LARGEST * 10])
def test_what_no_meter_can_mean_is_no_number(value: Any) -> None:
    """A number is finite and of a size that every sum can have."""
    assert number(item(value)) is None
    assert number('no item') is None


@pytest.mark.parametrize(
    ('text', 'is_time'),
    [
        ('2024-01-15T10:30:00+01:00', True),
        ('1970-01-01T00:00:00+01:00', False),
        (None, False),
        ('', False),
    ],
)
def test_a_time_before_the_first_readings_is_none(text: str | None, is_time: bool) -> None:
    """1970 means never, in an item that has a time as in one whose value is a time."""
    assert (time_of({'datetime': text, 'value': 1.0, 'unit': None}) is not None) is is_time
    assert (moment_of(item(text)) is not None) is is_time
    assert (time_of('no item'), moment_of(None)) == (None, None)


def test_registers_are_found_with_and_without_a_name() -> None:
    """The tariffs of the document, and those that are only in otherObjects, each once."""
    document = {
        'electricityUsedTariff1': item(1.0, 'kWh'),
        'electricityUsedTariff2': item(2.0),
        'otherObjects': {
            '1-0:1.8.1': item(100.0, 'kWh'),
            '1-0:1.8.2': item(200.0, 'V'),
            '1-0:1.8.5': [item(4.0, 'kWh'), item(5.0, 'kWh')],
            '1-1:1.8.06*255': item(6000.0, 'Wh'),
            '1-0:1.8.7*01': item(7.0, 'kWh'),
            '1-0:2.8.8': item(8.0, 'kWh'),
            '0-1:1.8.9': item(9.0, 'kWh'),
            '1-0:1.8.10': {'groups': ['10', '11']},
            '1-0:1.8.0': item(12.0, 'kWh'),
        },
    }
    assert ENERGY_USED.registers_in(document) == {'1': 1.0, '5': 5.0, '6': 6.0}
    assert ENERGY_DELIVERED.registers_in(document) == {'8': 8.0}
    assert POWER_USED.registers_in(document) == {}


def test_the_latest_of_several_lines_is_the_last() -> None:
    """An item that is alone is the latest, and of a list it is the last."""
    one, other = item(1.0, 'kWh'), item(2.0, 'kWh')
    assert latest(one) == one
    assert latest([one, other]) == other


def test_every_key_of_a_quantity_can_occur() -> None:
    """The keys of all quantities are keys that some telegram specification has, each in one quantity."""
    keys: list[str] = []
    for quantity in vars(quantities).values():
        if isinstance(quantity, Quantity):
            keys += quantity.parts.values()
            keys += filter(None, [quantity.total])
    assert len(keys) > 30
    assert len(set(keys)) == len(keys)
    assert set(keys) <= possible_keys()
