"""Telegram to reading: the document that is served, made once per telegram and never changed. No I/O, no clock.

The document has dsmr_parser's names in camelCase. An object with a value is {"value", "unit"}; with a time too,
{"datetime", "value", "unit"}; a monthly peak {"datetime", "occurred", "value", "unit"}; the power failure log
{"buffer_length", "buffer_type", "buffer": [...]}. Times are the meter's own, ISO 8601 with offset, or null.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache, cached_property
from typing import Any

from dsmr_parser.objects import CosemObject, DSMRObject, MBusObject, MBusObjectPeak, ProfileGenericObject

from dsmr_rest.specification import Chooser, Specification, object_lines, value_names
from dsmr_rest.telegram import Telegram

GAS_METER = 3
KINDS = {
    2: 'electricity',
    3: 'gas',
    4: 'heat',
    6: 'warm water',
    7: 'water',
    8: 'heat cost allocator',
    10: 'cooling',
    11: 'cooling',
    12: 'heat',
    13: 'heat and cooling',
    21: 'hot water',
    22: 'cold water',
}
"""M-Bus device types (EN 13757-3); for heat and cooling there is one each for a meter in the return and the flow."""
NEVER = '1971'
"""Times before it are none: what was never read shows 1970."""
FACTORS: dict[str, dict[str | None, float]] = {
    'kWh': {'Wh': 0.001, 'kWh': 1, 'MWh': 1000},
    'W': {'W': 1, 'kW': 1000, 'MW': 1e6},  # the Q3D sends W
    'V': {'V': 1},
    'A': {'mA': 0.001, 'A': 1},
    'Hz': {'Hz': 1},
    'm3': {'m3': 1},
    '': {None: 1},
}
"""By a unit and one that meters send instead."""
_DIGITS = 9
"""Decimals that a conversion keeps: meters send 7 at most, and the binary fraction's noise is beyond them."""
_IDENTIFIERS = (
    'equipmentIdentifier',
    'belgiumEquipmentIdentifier',
    'luxembourgEquipmentIdentifier',
    'equipmentSerialNumber',
    'cosemLogicalDeviceName',
    'q3dEquipmentIdentifier',
)
_CHANNEL = re.compile(r'0+-(\d*[1-9]\d*):')


class UnusableTelegramError(Exception):
    """A telegram that must not be served; `code` says why: checksum_failed or line_garbled."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True)
class MbusDevice:
    """A meter on one of the meter's M-Bus channels.

    `kind` is its number in KINDS or another, None when it is not said. `measured` is {"datetime", "value", "unit"};
    None when it was never read, or what is there was left behind by a meter that was exchanged.
    """

    channel: int
    kind: int | None
    identifier: Mapping[str, Any] | None
    measured: Mapping[str, Any] | None

    @property
    def kind_name(self) -> str:
        """The kind in a word or two."""
        return 'unknown' if self.kind is None else KINDS.get(self.kind, f'type {self.kind}')

    @property
    def own_number(self) -> str:
        """What `identifier` says, as text; empty when there is none."""
        return str((self.identifier and self.identifier['value']) or '')


@dataclass(frozen=True)
class Reading:
    """One telegram as it is served. `received` is Unix time, `arrived` the monotonic clock's, both in seconds."""

    document: Mapping[str, Any]
    telegram: bytes
    specification: str
    unsure: bool
    not_understood: tuple[str, ...]
    received: float
    arrived: float

    @cached_property
    def json(self) -> bytes:
        """The document as the answer to GET /: indented by 3, with a final newline."""
        return render(self.document)

    @cached_property
    def line(self) -> bytes:
        """The document as JSON on one line."""
        return json.dumps(self.document, separators=(',', ':')).encode()

    @property
    def identification(self) -> str:
        """The header line without its '/': who made the meter, and which one."""
        return self.telegram.partition(b'\n')[0].strip(b'/\r').decode('latin-1')

    @property
    def version(self) -> str | None:
        """The version of the standard as the meter states it, such as '50'; None before DSMR 4."""
        item = self.document.get('p1MessageHeader') or self.document.get('belgiumVersionInformation')
        return item and item['value']

    @property
    def identifier(self) -> str | None:
        """The meter's own number, as it sends it."""
        return next((self.document[name]['value'] for name in _IDENTIFIERS if name in self.document), None)

    @property
    def devices(self) -> list[MbusDevice]:
        """The M-Bus devices in telegram order."""
        return [mbus_device(each) for each in self.document.get('mbusDevices', [])]


def number(item: Any) -> float | None:
    """The value of an item; None when it is no number."""
    value = item.get('value') if isinstance(item, dict) else None
    return value if isinstance(value, int | float) else None


def amount(item: Any, unit: str) -> float | None:
    """The number of an item in this unit; None when its own is not one of the same kind."""
    value, factor = number(item), item and FACTORS[unit].get(item['unit'])
    return None if value is None or factor is None else round(value * factor, _DIGITS)


def render(value: Any) -> bytes:
    """A value of the document as JSON text."""
    return json.dumps(value, indent=3).encode() + b'\n'


@cache
def camel_case(name: str) -> str:
    """EQUIPMENT_IDENTIFIER_GAS to equipmentIdentifierGas."""
    first, *rest = name.lower().split('_')
    return first + ''.join(part.capitalize() for part in rest)


def possible_keys() -> frozenset[str]:
    """Every key that a document can have at its top, whatever the specification."""
    return frozenset({camel_case(name) for name in value_names()} | {'mbusDevices', 'hourlyGasMeterReading'})


def make_reading(
    telegram: Telegram, chooser: Chooser, received: float, arrived: float, *, encrypted: bool = False
) -> Reading:
    """The reading of a whole telegram.

    Raises UnusableTelegramError when its checksum does not hold, or none of its lines can be read.
    """
    text = telegram.raw.decode('latin-1')
    lines = object_lines(text)
    choice = chooser.choose(text.partition('\n')[0], lines, encrypted=encrypted)
    if telegram.checksum_holds is not True and not _needs_no_checksum(telegram, choice.specification):
        raise UnusableTelegramError('checksum_failed', 'the checksum is wrong or missing')
    objects, unreadable = choice.specification.parse(lines, choice.plan)
    document = _document(objects, lines, choice.specification.name)
    if not document:
        raise UnusableTelegramError('line_garbled', 'no line of the telegram can be read')
    return Reading(
        document,
        telegram.raw,
        choice.specification.name,
        choice.unsure,
        (*choice.unknown_codes, *unreadable),
        received,
        arrived,
    )


def _needs_no_checksum(telegram: Telegram, chosen: Specification) -> bool:
    # A checksum that is there must hold, also when the lines look like a specification that has none. The Irish
    # meter alone sends one that is not the P1 standard's.
    return not chosen.has_checksum and (telegram.checksum_holds is None or chosen.name == 'ISKRA_IE')


def _document(objects: list[tuple[str, Any]], lines: list[str], specification: str) -> dict[str, Any]:
    document: dict[str, Any] = {}
    devices: dict[int, dict[str, Any]] = {int(match[1]): {} for line in lines if (match := _CHANNEL.match(line))}
    for name, item in objects:
        # A pattern for the meter's own line may match a device's too, which is the device's then.
        of_device = isinstance(item, DSMRObject) and item.is_mbus_reading
        (devices[item.obis_id_code[1]] if of_device else document)[camel_case(name)] = _item(item)
    if specification != 'ISKRA_IE':  # which calls the meter's own number so
        document.pop('equipmentIdentifierGas', None)
    known = [{'channelId': channel} | device for channel, device in devices.items() if device]
    if known:
        document['mbusDevices'] = known
    return document | _gas(known)


def _item(item: Any) -> Any:
    if isinstance(item, list):
        return [_item(each) for each in item]
    if isinstance(item, MBusObjectPeak):
        return {'datetime': _value(item.datetime), 'occurred': _value(item.occurred)} | _quantity(item)
    if isinstance(item, ProfileGenericObject):
        return {
            'buffer_length': item.buffer_length,
            'buffer_type': item.buffer_type,
            'buffer': [_item(each) for each in item.buffer],
        }
    if isinstance(item, MBusObject):
        return {'datetime': _value(item.datetime)} | _quantity(item)
    return _quantity(item)


def _quantity(item: CosemObject | MBusObject | MBusObjectPeak) -> dict[str, Any]:
    return {'value': _value(item.value), 'unit': item.unit}


def _value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def mbus_device(device: Mapping[str, Any]) -> MbusDevice:
    """An item of mbusDevices, by whatever names its specification has for what it holds."""

    def ending(name: str) -> Any:
        return next((item for key, item in device.items() if key.lower().endswith(name)), None)

    kind, measured = ending('devicetype'), ending('meterreading')
    identifier = ending('mbusequipmentidentifier') or ending('equipmentidentifiergas') or ending('equipmentidentifier')
    said = str(kind['value'] if kind else '')
    read = measured and measured['value'] is not None and measured['datetime'] and measured['datetime'] >= NEVER
    left_behind = identifier and not str(identifier['value'] or '').strip('0') and not (read and measured['value'])
    return MbusDevice(
        device['channelId'],
        int(said) if said.isdecimal() else None,
        identifier,
        measured if read and not left_behind else None,
    )


def _gas(devices: list[dict[str, Any]]) -> dict[str, Any]:
    """The three flat keys of the gas meter with the newest reading."""
    meters = [each for each in map(mbus_device, devices) if each.kind == GAS_METER and each.measured]
    if not meters:
        return {}
    newest = max(meters, key=lambda meter: datetime.fromisoformat(meter.measured['datetime']))  # type: ignore[index]
    return {
        'deviceType': {'value': GAS_METER, 'unit': None},
        **({'equipmentIdentifierGas': newest.identifier} if newest.identifier else {}),
        'hourlyGasMeterReading': newest.measured,
    }
