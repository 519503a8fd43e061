"""Telegram to reading: the document that is served, made once per telegram and never changed.

make_reading() splits a telegram into lines, chooses the specification for them, parses each line into an item, and
combines the items into the document. This module does not know the syntax of a line (lines.py), what an OBIS code
means (specification.py), or how a reading is sent to clients. No I/O, no clock.

The document has dsmr_parser's names in camelCase. An item with a value is {"value", "unit"}; with a time too,
{"datetime", "value", "unit"}; the monthly peaks are a list of {"datetime", "occurred", "value", "unit"}; the power
failure log is {"buffer_length", "buffer_type", "buffer": [...]}. Times are the meter's own, ISO 8601 with offset, or
null.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from typing import Any

from dsmr_rest.faults import Fault
from dsmr_rest.reading.lines import (
    Item,
    Object,
    UnreadableLineError,
    code_of,
    device_channel,
    groups_of,
    object_lines,
)
from dsmr_rest.reading.mbus import GAS_METER, MbusDevice, mbus_device
from dsmr_rest.reading.quantities import GAS_COPIES, GAS_IDENTIFIER
from dsmr_rest.reading.specification import Chooser, Plan, PlannedLine, Specification, value_names
from dsmr_rest.reading.telegram import Telegram

ParsedLines = list[tuple[PlannedLine, Item]]
"""In the order of the document."""

_VERSIONS = ('p1MessageHeader', 'belgiumVersionInformation')
"""Keys of the version of the standard, whatever the specification."""
_IDENTIFIERS = (
    'equipmentIdentifier',
    'belgiumEquipmentIdentifier',
    'luxembourgEquipmentIdentifier',
    'equipmentSerialNumber',
    'cosemLogicalDeviceName',
    'q3dEquipmentIdentifier',
)
"""Keys of the meter's own number, whatever the specification."""


class UnusableTelegramError(Exception):
    """A telegram that must not be served; `fault` is the reason: CHECKSUM_FAILED or LINE_GARBLED."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


@dataclass(frozen=True)
class Reading:
    """One telegram as it is served.

    `specification` is the name of the one that was used, `unsure` whether it knows less than half of the lines.
    `not_understood` has the OBIS codes of the lines that are unknown or cannot be read, `unreadable` the keys that the
    meter's own lines among the latter would have in the document. `received` is Unix time, `arrived` that of
    clock.py, both in seconds.
    """

    document: Mapping[str, Any]
    telegram: bytes
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
        return self._first_value(_IDENTIFIERS)

    def _first_value(self, keys: tuple[str, ...]) -> str | None:
        for key in keys:
            if key in self.document:
                value: str | None = self.document[key]['value']
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
    return frozenset(keys | {'mbusDevices', 'hourlyGasMeterReading'})


def make_reading(
    telegram: Telegram,
    chooser: Chooser,
    received: float,
    arrived: float,
    *,
    encrypted: bool = False,
) -> Reading:
    """The reading of a whole telegram.

    Raises UnusableTelegramError when its checksum does not hold, or none of its lines can be read.
    """
    text = telegram.raw.decode('latin-1')
    header, _, _ = text.partition('\n')
    lines = object_lines(text)
    choice = chooser.choose(header, lines, encrypted=encrypted)
    specification = choice.specification
    if not _checksum_allows(telegram, specification):
        raise UnusableTelegramError(Fault.CHECKSUM_FAILED, 'the checksum is wrong or missing')
    items, unreadable_lines = _parse(lines, choice.plan)
    unreadable_codes = dict.fromkeys(code_of(lines[planned.index]) for planned in unreadable_lines)
    document = _document(items, lines, specification.name)
    if not document:
        raise UnusableTelegramError(Fault.LINE_GARBLED, 'no line of the telegram can be read')
    return Reading(
        document=document,
        telegram=telegram.raw,
        specification=specification.name,
        unsure=choice.unsure,
        not_understood=(*choice.unknown_codes, *unreadable_codes),
        unreadable=_keys_of_meter(unreadable_lines),
        received=received,
        arrived=arrived,
    )


def _checksum_allows(telegram: Telegram, specification: Specification) -> bool:
    """Whether a telegram may be served.

    A checksum that is there must hold, even when the lines look like a specification that has none. The exception is
    the Irish meter, whose checksum is not the P1 standard's.
    """
    if telegram.checksum_holds:
        return True
    if specification.has_checksum:
        return False
    is_absent = telegram.checksum_holds is None
    return is_absent or specification.name == 'ISKRA_IE'


def _parse(lines: list[str], plan: Plan) -> tuple[ParsedLines, Plan]:
    """The items of the lines that can be read, and the lines that cannot."""
    items: ParsedLines = []
    unreadable: Plan = []
    for planned in plan:
        try:
            groups = groups_of(lines[planned.index])
            item = planned.entry.parser.parse(groups)
        except UnreadableLineError:
            unreadable.append(planned)
            continue
        items.append((planned, item))
    return items, unreadable


def _keys_of_meter(plan: Plan) -> frozenset[str]:
    """The keys of the lines that are about the meter itself."""
    return frozenset(camel_case(planned.entry.name) for planned in plan if planned.channel is None)


def _document(items: ParsedLines, lines: list[str], specification: str) -> Object:
    document: Object = {}
    devices = _empty_devices(lines)
    for planned, item in items:
        key = camel_case(planned.entry.name)
        # A pattern for the meter's own line may match a device's line too, which is the device's then. Monthly peaks
        # are always the meter's.
        if planned.channel is None or isinstance(item, list):
            document[key] = item
        else:
            devices[planned.channel][key] = item
    _drop_gas_of_no_device(document, specification)
    known_devices = []
    for channel, device in devices.items():
        if device:
            known_devices.append({'channelId': channel, **device})
    if known_devices:
        document['mbusDevices'] = known_devices
    document.update(_gas(known_devices))
    return document


def _drop_gas_of_no_device(document: Object, specification: str) -> None:
    """Removes the keys of the gas meter, so that they can only be those of an M-Bus device.

    The names that V2_2 and V4 have for its objects do not depend on the channel, and channel 0 is the meter itself.
    """
    for key in GAS_COPIES:
        is_the_meters_own_number = specification == 'ISKRA_IE' and key == GAS_IDENTIFIER
        if not is_the_meters_own_number:
            document.pop(key, None)


def _empty_devices(lines: list[str]) -> dict[int, Object]:
    """A place for the items of each M-Bus device, by channel, in telegram order."""
    devices: dict[int, Object] = {}
    for line in lines:
        channel = device_channel(line)
        if channel is not None:
            devices[channel] = {}
    return devices


def _gas(devices: list[Object]) -> Object:
    """The keys at the top for the gas meter with the newest reading; empty when no gas meter has one."""
    newest: MbusDevice | None = None
    newest_time: datetime | None = None
    for device in devices:
        meter = mbus_device(device)
        if meter.kind != GAS_METER or not meter.measured:
            continue
        time = datetime.fromisoformat(meter.measured['datetime'])
        if newest_time is None or time > newest_time:
            newest = meter
            newest_time = time
    if newest is None:
        return {}
    keys: Object = {'deviceType': {'value': GAS_METER, 'unit': None}}
    if newest.identifier:
        keys['equipmentIdentifierGas'] = newest.identifier
    keys['hourlyGasMeterReading'] = newest.measured
    return keys
