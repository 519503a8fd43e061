"""Physical quantities of a reading: which keys of its document have them, and their numbers in one unit.

Pure: it knows the keys and units of the document and nothing of any output format.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

Item = Mapping[str, Any]
"""An object of the document: {"value", "unit"}, with "datetime" where it has a time."""
Document = Mapping[str, Any]
Unit = str | None
"""As in the document: None for a count."""

TARIFFS = ('1', '2', '3', '4')
PHASES = ('1', '2', '3')
DURATIONS = ('short', 'long')

MULTIPLES = {'m': 0.001, '': 1.0, 'k': 1000.0, 'M': 1e6, 'G': 1e9}
"""The prefixes of SI units that meters send, and their factors."""
BASE_UNITS = ('Wh', 'W', 'V', 'A', 'Hz', 'J')
"""Units that meters send with or without a prefix."""
VOLUMES: dict[Unit, float] = {'m3': 1.0, 'dm3': 0.001, 'l': 0.001, 'L': 0.001}
"""Units of volume in m3: their prefix is part of what is raised to the third power."""


def _factors(base_unit: str) -> dict[Unit, float]:
    """The units with this base unit, and what a number in them is multiplied by to be in the base unit."""
    return {prefix + base_unit: factor for prefix, factor in MULTIPLES.items()}


_KINDS: tuple[dict[Unit, float], ...] = (
    *(_factors(base_unit) for base_unit in BASE_UNITS),
    VOLUMES,
)
"""For each kind of quantity its units and their factors."""
LARGEST = 1e30
"""The largest number that counts as one: no meter gets there, and every conversion and sum stays a finite float."""
FIRST_YEAR_OF_READINGS = 1971
"""Earlier times mean "never": a device that was not read yet sends 1970."""
_REGISTER = re.compile(r'1-\d{1,3}:(?P<kind>\d{1,3}\.\d{1,3})\.0*(?P<tariff>[1-9]\d{0,2})(\*255)?')
"""OBIS code of a tariff register of electricity; register 0 is the total."""
_DIGITS = 9
"""Decimals that a conversion keeps: meters send 7 at most, and the binary fraction's noise is beyond them."""


def number(item: Any) -> float | None:
    """The value of an item of the document, in its own unit; None when it is not a number of at most LARGEST."""
    if not isinstance(item, Mapping):
        return None
    value = item.get('value')
    if isinstance(value, int | float) and abs(value) <= LARGEST:  # false for NaN
        return value
    return None


def amount(item: Any, unit: Unit) -> float | None:
    """The number of an item in this unit; None when its own unit is not one of the same kind."""
    value = number(item)
    if value is None:
        return None
    factor = _factor(item.get('unit'), unit)
    if factor is None:
        return None
    return round(value * factor, _DIGITS)


@cache
def _factor(sent_unit: Unit, unit: Unit) -> float | None:
    """What a number in the unit that was sent is multiplied by to be in this unit; None when their kinds differ.

    For the same unit it is the integer 1, so that a count stays an integer.
    """
    if sent_unit == unit:
        return 1
    for factors in _KINDS:
        if sent_unit in factors and unit in factors:
            return factors[sent_unit] / factors[unit]
    return None


def time_of(item: Any) -> datetime | None:
    """The meter's local time of an item, with its offset; None when it has none, or it was never measured."""
    if not isinstance(item, Mapping):
        return None
    return _moment(item.get('datetime'))


def moment_of(item: Any) -> datetime | None:
    """The time that is the value of an item, as p1MessageTimestamp has it; None when it has none."""
    if not isinstance(item, Mapping):
        return None
    return _moment(item.get('value'))


def _moment(text: Any) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.year < FIRST_YEAR_OF_READINGS:
        return None
    return moment


class Quantity(NamedTuple):
    """What a meter measures in total, in parts (by tariff, phase or duration), or both.

    `unit` is the unit that its amounts are converted to. `parts` has the document's key of each part,
    and `total` the key of all of them together, empty when no telegram specification has one. `registers` is the
    beginning of the OBIS codes (C.D) of its tariff registers, empty when it has none.
    """

    unit: Unit = None
    parts: Mapping[str, str] = MappingProxyType({})
    total: str = ''
    registers: str = ''

    def total_in(self, document: Document) -> float | None:
        """The total as the meter sends it, not a sum of parts; None when it is missing or its unit does not fit."""
        item = document.get(self.total)
        return amount(item, self.unit)

    def parts_in(self, document: Document) -> dict[str, float]:
        """The parts that the document has in a unit that fits."""
        found = {}
        for part, key in self.parts.items():
            item = document.get(key)
            value = amount(item, self.unit)
            if value is not None:
                found[part] = value
        return found

    def registers_in(self, document: Document) -> dict[str, float]:
        """The tariff registers that the document has in a unit that fits, also those that no table has a name for."""
        found = self.parts_in(document)
        for code, item in document.get(OTHER_OBJECTS, {}).items():
            tariff = self.tariff_of(code)
            value = amount(latest(item), self.unit)
            if tariff and value is not None:
                found.setdefault(tariff, value)
        return found

    def tariff_of(self, code: str) -> str:
        """The tariff whose register of this quantity has the OBIS code, such as '3'; empty when it is none of them."""
        register = _REGISTER.fullmatch(code)
        if register is None or register['kind'] != self.registers:
            return ''
        return register['tariff']


def latest(item: Any) -> Any:
    """An item of otherObjects; the last one of a code that came more than once."""
    if isinstance(item, list):
        return item[-1]
    return item


def _by(parts: Iterable[str], key: str) -> dict[str, str]:
    """A key for each part, with the part in place of the braces."""
    return {part: key.format(part) for part in parts}


ENERGY_USED = Quantity(
    unit='kWh',
    parts=_by(TARIFFS, 'electricityUsedTariff{}'),
    total='electricityImportedTotal',
    registers='1.8',
)
ENERGY_DELIVERED = Quantity(
    unit='kWh',
    parts=_by(TARIFFS, 'electricityDeliveredTariff{}'),
    total='electricityExportedTotal',
    registers='2.8',
)
POWER_USED = Quantity(
    unit='W',
    parts=_by(PHASES, 'instantaneousActivePowerL{}Positive'),
    total='currentElectricityUsage',
)
POWER_DELIVERED = Quantity(
    unit='W',
    parts=_by(PHASES, 'instantaneousActivePowerL{}Negative'),
    total='currentElectricityDelivery',
)
VOLTAGE = Quantity(unit='V', parts=_by(PHASES, 'instantaneousVoltageL{}'))
CURRENT = Quantity(unit='A', parts=_by(PHASES, 'instantaneousCurrentL{}'))
FREQUENCY = Quantity(unit='Hz', total='frequency')
VOLTAGE_SAGS = Quantity(parts=_by(PHASES, 'voltageSagL{}Count'))
VOLTAGE_SWELLS = Quantity(parts=_by(PHASES, 'voltageSwellL{}Count'))
POWER_FAILURES = Quantity(parts=_by(DURATIONS, '{}PowerFailureCount'))
AVERAGE_DEMAND = Quantity(unit='W', total='belgiumCurrentAverageDemand')
MONTHLY_PEAK = Quantity(unit='W', total='belgiumMaximumDemandMonth')
GAS = Quantity(unit='m3', total='hourlyGasMeterReading')

OTHER_OBJECTS = 'otherObjects'
"""The key of the lines without a name, at the top of the document and in an item of mbusDevices."""
TIME_OF_TELEGRAM = 'p1MessageTimestamp'
ACTIVE_TARIFF = 'electricityActiveTariff'
GAS_IDENTIFIER = 'equipmentIdentifierGas'
GAS_COPIES = frozenset({'deviceType', GAS_IDENTIFIER, GAS.total})
"""Keys at the top of the document whose values are copies from the M-Bus device that is the gas meter."""
