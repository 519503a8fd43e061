"""Telegram to reading: the document that is served, made once per telegram and never changed.

make_reading() splits a telegram into lines (lines.py), chooses the specification for them (specification.py), makes an
item of each line (items.py), and combines the items into the document (combination.py). This module does not know the
syntax of a line, what an OBIS code means, or how a reading is sent to clients. No I/O, no clock.

The document has dsmr_parser's names in camelCase. An item with a value is {"value", "unit"}; with a time too,
{"datetime", "value", "unit"}; the monthly peaks are a list of {"datetime", "occurred", "value", "unit"}; the power
failure log is {"buffer_length", "buffer_type", "buffer": [...]}. Times are the meter's own, ISO 8601 with offset, or
null. Lines without a name are in `otherObjects` by their OBIS codes, in the forms of Parsers.item_by_form().
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from dsmr_rest.reading.combination import Combination, NamedItem
from dsmr_rest.reading.items import Item
from dsmr_rest.reading.lines import UnreadableLineError, groups_of, object_lines
from dsmr_rest.reading.mbus import MbusDevice, mbus_device
from dsmr_rest.reading.quantities import GAS_COPIES, OTHER_OBJECTS
from dsmr_rest.reading.specification import Chooser, Plan
from dsmr_rest.reading.tables import OWN_NUMBERS, value_names
from dsmr_rest.reading.telegram import Proof, Telegram

_VERSIONS = ('p1MessageHeader', 'belgiumVersionInformation')
"""Keys of the version of the standard, whatever the specification."""
_CODES_OF_OWN_NUMBER = ('0-0:42.0.0', '0-0:96.1.0', '0-0:96.1.1', '1-0:0.0.0')
"""Where meters send their own number when their table has no name for it, the best first: the logical device name, the
numbers of the device (IEC 62056-6-1)."""


class UnusableTelegramError(Exception):
    """A telegram that cannot be served, because none of its lines can be read."""


@dataclass(frozen=True)
class Reading:
    """One telegram as it is served.

    `verified_by` says what proved the telegram, and `has_changed_line_ends` is as in Telegram. `specification` is the
    name of the one that was used, `unsure` whether it knows less than half of the lines.
    `not_understood` has the OBIS codes of the lines that are nowhere in the document, because they have no groups,
    `unreadable` the keys of the meter's own lines that have a name, but groups that do not fit it. `received` is Unix
    time, `arrived` that of clock.py, both in seconds.
    """

    document: Mapping[str, Any]
    telegram: bytes
    verified_by: Proof
    has_changed_line_ends: bool
    specification: str
    unsure: bool
    not_understood: tuple[str, ...]
    unreadable: frozenset[str]
    received: float
    arrived: float

    @cached_property
    def json(self) -> bytes:
        """The document as the response to GET /: indented by 3, with a final newline."""
        return render(self.document)

    @cached_property
    def line(self) -> bytes:
        """The document as JSON on one line."""
        text = json.dumps(self.document, separators=(',', ':'))
        return text.encode()

    @property
    def identification(self) -> str:
        """The header line without its '/': who made the meter, and which one."""
        header, _, _ = self.telegram.partition(b'\n')
        return header.strip(b'/\r').decode('latin-1')

    @property
    def version(self) -> str | None:
        """The version of the standard as the meter states it, such as '50'; None before DSMR 4."""
        return self._first_value(_VERSIONS)

    @property
    def identifier(self) -> str | None:
        """The meter's own number, as it sends it; None when it sends none."""
        keys = tuple(camel_case(name) for name in OWN_NUMBERS)
        return self._first_value(keys) or self._number_without_name()

    def _first_value(self, keys: tuple[str, ...]) -> str | None:
        for key in keys:
            item = self.document.get(key)
            if item is not None and item['value'] is not None:
                value: str = item['value']
                return value
        return None

    def _number_without_name(self) -> str | None:
        others = self.document.get(OTHER_OBJECTS, {})
        for code in _CODES_OF_OWN_NUMBER:
            item = others.get(code)
            if not isinstance(item, Mapping):
                continue
            value = item.get('value')
            if isinstance(value, str) and value.strip('0'):
                return value
        return None

    @property
    def devices(self) -> list[MbusDevice]:
        """The M-Bus devices in telegram order."""
        devices = self.document.get('mbusDevices', [])
        return [mbus_device(device) for device in devices]


def render(value: Any) -> bytes:
    """A value of the document as JSON text."""
    text = json.dumps(value, indent=3) + '\n'
    return text.encode()


@cache
def camel_case(name: str) -> str:
    """EQUIPMENT_IDENTIFIER_GAS to equipmentIdentifierGas."""
    first, *others = name.lower().split('_')
    capitalized = [word.capitalize() for word in others]
    return ''.join([first, *capitalized])


@cache
def possible_keys() -> frozenset[str]:
    """Every key that a document can have at its top, whatever the specification."""
    keys = {camel_case(name) for name in value_names()}
    return frozenset(keys | {'mbusDevices', 'hourlyGasMeterReading', OTHER_OBJECTS})


def make_reading(
    telegram: Telegram,
    chooser: Chooser,
    received: float,
    arrived: float,
    *,
    encrypted: bool = False,
) -> Reading:
    """The reading of a whole telegram.

    Raises UnusableTelegramError when none of its lines can be read.
    """
    text = telegram.raw.decode('latin-1')
    header, _, _ = text.partition('\n')
    lines = object_lines(text)
    choice = chooser.choose(header, lines, encrypted=encrypted)
    specification = choice.specification
    items, unreadable = _parse(lines, choice.plan)
    combination = Combination(lines)
    _add_named(items, combination, specification.name)
    combination.add_others(chooser.parsers.item_by_form)
    document = combination.document(received)
    if not document:
        raise UnusableTelegramError('no line of the telegram can be read')
    return Reading(
        document=document,
        telegram=telegram.raw,
        verified_by=telegram.verified_by,
        has_changed_line_ends=telegram.has_changed_line_ends,
        specification=specification.name,
        unsure=choice.unsure,
        not_understood=tuple(dict.fromkeys(combination.not_understood)),
        unreadable=_keys_of_meter(unreadable),
        received=received,
        arrived=arrived,
    )


def _parse(lines: list[str], plan: Plan) -> tuple[list[NamedItem], Plan]:
    """The items of the lines that fit their names, and the lines that do not."""
    items = []
    unreadable: Plan = []
    for planned in plan:
        try:
            groups = groups_of(lines[planned.number])
            item = planned.entry.parser.parse(groups)
        except UnreadableLineError:
            unreadable.append(planned)
            continue
        key = camel_case(planned.entry.name)
        is_whole = len(groups) == 1 or not _has_first_group_only(item)
        items.append(NamedItem(planned.number, planned.channel, key, item, is_whole=is_whole))
    return items, unreadable


def _has_first_group_only(item: Item) -> bool:
    return isinstance(item, dict) and item.keys() == {'value', 'unit'}


def _add_named(items: list[NamedItem], combination: Combination, specification: str) -> None:
    for item in items:
        if not _is_gas_of_no_device(item):
            combination.add(item)
        elif specification == 'ISKRA_IE':
            # Users of dsmr_parser know the number of an IE.5 by this key; it is under its code too.
            combination.add(item._replace(is_whole=False))


def _is_gas_of_no_device(named: NamedItem) -> bool:
    """Whether an item has a key of the gas meter, but is of the meter itself.

    The names that V2_2, V4 and ISKRA_IE have for a gas meter do not depend on the channel, and channel 0 is the meter.
    """
    return named.channel is None and named.key in GAS_COPIES


def _keys_of_meter(plan: Plan) -> frozenset[str]:
    """The keys of the lines that are about the meter itself."""
    return frozenset(camel_case(planned.entry.name) for planned in plan if planned.channel is None)
