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

from dsmr_rest.faults import Fault
from dsmr_rest.mbus import GAS_METER, MbusDevice, mbus_device
from dsmr_rest.specification import Chooser, Specification, object_lines, value_names
from dsmr_rest.telegram import Telegram

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
    """A telegram that must not be served; `fault` says why: CHECKSUM_FAILED or LINE_GARBLED."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


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
        raise UnusableTelegramError(Fault.CHECKSUM_FAILED, 'the checksum is wrong or missing')
    objects, unreadable = choice.specification.parse(lines, choice.plan)
    document = _document(objects, lines, choice.specification.name)
    if not document:
        raise UnusableTelegramError(Fault.LINE_GARBLED, 'no line of the telegram can be read')
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
