"""Builders of telegrams: from lines, from the library's patterns for a specification, with even parity, encrypted."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from dsmr_parser.parsers import MaxDemandParser, MBusParser, ProfileGenericParser
from dsmr_parser.value_types import timestamp

from dsmr_rest.p1.framing import EncryptedFrame, Framer
from dsmr_rest.p1.proof import Prover, Rejection
from dsmr_rest.reading.document import Reading, UnusableTelegramError, camel_case, make_reading
from dsmr_rest.reading.specification import Chooser
from dsmr_rest.reading.tables import Row, rows
from dsmr_rest.reading.telegram import Telegram
from dsmr_rest.simulated.house import DUTCH
from dsmr_rest.simulated.telegrams import telegram as simulated_telegram
from dsmr_rest.simulated.telegrams import with_checksum

HEADER = '/TST5\\2TELEGRAM'
NOON = datetime(2024, 6, 21, 12, tzinfo=DUTCH)
KEY = bytes(range(16))
TITLE = b'TST\x00\x01\x02\x03\x04'
PUBLIC_KEY = bytes.fromhex('00112233445566778899AABBCCDDEEFF')  # Luxmetering P1 specification 3.2.5
STAMP, TIME = '240115103000W', '2024-01-15T10:30:00+01:00'

WITHOUT_CHECKSUM = ('V2_2', 'V3', 'Q3D')
"""The specifications of meters whose telegrams have none."""

# Objects of an M-Bus device whose pattern does not say so.
_ON_CHANNEL_1 = {
    'EQUIPMENT_IDENTIFIER_GAS',
    'DEVICE_TYPE',
    'VALVE_POSITION_GAS',
    'GAS_METER_READING',
    'HOURLY_GAS_METER_READING',
}


def from_lines(
    *lines: str, header: str = HEADER, checksum: bool = True, end: str = '\r\n'
) -> bytes:
    """The telegram of these lines."""
    text = ''.join(line + end for line in (header, '', *lines))
    if checksum:
        return with_checksum(text)
    return f'{text}!{end}'.encode('latin-1')


def numbered(*lines: str) -> Callable[[], bytes]:
    """A source of telegrams with their number in a text message, and with these lines."""
    numbers = iter(range(1, 10_000))
    rest = ''.join(f'{line}\r\n' for line in lines)
    return lambda: with_checksum(
        f'/SIM5\\NUMBERED\r\n\r\n1-3:0.2.8(50)\r\n1-0:1.7.0(00.355*kW)\r\n0-0:96.13.0({next(numbers):08})\r\n{rest}'
    )


def of_version(version: str) -> bytes:
    """The simulated meter's telegram of a summer noon."""
    return simulated_telegram(version, NOON)


def telegrams_in(data: bytes) -> list[Telegram]:
    """The telegrams that end in these bytes, proved or not; encrypted frames are left out."""
    return _proved(data, Prover(ignores_checksum=True))


def _proved(data: bytes, prover: Prover) -> list[Telegram]:
    telegrams = []
    for found in Framer().feed(data):
        if isinstance(found, EncryptedFrame):
            continue
        telegram = prover.prove(found)
        if telegram is Rejection.UNCONFIRMED:
            telegram = prover.prove(found)  # as the next telegram of the same meter would
        if isinstance(telegram, Telegram):
            telegrams.append(telegram)
    return telegrams


def framed(data: bytes) -> Telegram:
    """The one telegram in these bytes."""
    (found,) = telegrams_in(data)
    return found


def read(data: bytes, specification: str = 'auto', *, encrypted: bool = False) -> Reading:
    """The reading of the one telegram in these bytes."""
    return make_reading(framed(data), Chooser(specification), 0.0, 0.0, encrypted=encrypted)


def usable_readings(
    data: bytes, chooser: Chooser, *, encrypted: bool = False, prover: Prover | None = None
) -> list[Reading]:
    """The readings of the telegrams in these bytes that may be served; `prover` is one that knows earlier telegrams."""
    readings = []
    for telegram in _proved(data, prover or Prover()):
        with suppress(UnusableTelegramError):
            readings.append(make_reading(telegram, chooser, 0.0, 0.0, encrypted=encrypted))
    return readings


def read_lines(*lines: str, specification: str = 'V5') -> Reading:
    """The reading of a telegram of these lines."""
    return read(from_lines(*lines), specification)


def at_8n1(data: bytes) -> bytes:
    """What a port at 8N1 makes of bytes that were sent at 7E1."""
    return bytes(byte | 0x80 if byte.bit_count() % 2 else byte for byte in data)


def cipher_frame(
    plain: bytes,
    key: bytes = KEY,
    authentication_key: bytes = PUBLIC_KEY,
    counter: int = 1,
    *,
    control: int = 0x30,
) -> bytes:
    """A DLMS general-global-cipher frame of security suite 0 (IEC 62056-5-3)."""
    count = counter.to_bytes(4, 'big')
    sealed = AESGCM(key).encrypt(TITLE + count, plain, bytes([control]) + authentication_key)
    # Of the tag, twelve bytes are sent.
    content = bytes([control]) + count + sealed[: len(plain) + 12]
    return b'\xdb\x08' + TITLE + b'\x82' + len(content).to_bytes(2, 'big') + content


def _code(row: Row, name: str) -> str:
    """A code that the pattern of this object matches."""
    code = row.pattern.lstrip('^').replace(r'.+?\r\n', '').replace('\\.', '.')
    code = code.replace('[13]', '1')
    if name == 'BELGIUM_FLUVIUS':
        code = code.replace('[01]', '1')
    code = code.replace('[01]', '0')
    if '[1-9]' in code or (row.name in _ON_CHANNEL_1 and name != 'ISKRA_IE'):
        return code.replace(r'\d-\d', '0-1').replace(r'\d-[1-9]', '0-1')
    if '0.2.8' in code:
        code = code.replace(r'\d-\d', '1-3')
    return code.replace(r'\d-\d', '1-0').replace(r'\d-0', '0-0')


def _value(coerce_type: Any, number: int) -> tuple[str, Any, str | None]:
    """What a value of this type looks like on the line, and its value and unit."""
    if coerce_type is timestamp:
        return STAMP, TIME, None
    if coerce_type is Decimal:
        return f'{number:06}.{number:03}*kWh', float(f'{number}.{number:03}'), 'kWh'
    if coerce_type is int:
        return f'{number:05}', number, None
    return f'5A{number:03}', f'5A{number:03}', None


def _groups_and_item(parser: Any, number: int) -> tuple[str, Any]:
    """The groups of a line fit for this parser, and their item in the document."""
    if isinstance(parser, MaxDemandParser):
        peak = {'datetime': TIME, 'occurred': TIME, 'value': 4.329, 'unit': 'kW'}
        groups = f'({STAMP})({STAMP})(04.329*kW)'
        return f'(2)(1-0:1.6.0)(1-0:1.6.0){groups}{groups}', [peak, peak]
    if isinstance(parser, ProfileGenericParser):
        failure = {'datetime': TIME, 'value': 240, 'unit': 's'}
        groups = f'({STAMP})(0000000240*s)'
        log = {'buffer_length': 2, 'buffer_type': '0-0:96.7.19', 'buffer': [failure, failure]}
        return f'(2)(0-0:96.7.19){groups}{groups}', log
    types = [value_format.coerce_type for value_format in parser.value_formats]
    if isinstance(parser, MBusParser) and len(types) == 7:
        gas = {'datetime': TIME, 'value': 1234.5, 'unit': 'm3'}
        return '(240115103000)(00)(60)(1)(0-1:24.2.1)(m3)\r\n(01234.500)', gas
    values = [_value(coerce_type, number) for coerce_type in types]
    groups = ''.join(f'({text})' for text, _, _ in values)
    if isinstance(parser, MBusParser):
        _, value, unit = values[-1]
        return groups, {'datetime': TIME, 'value': value, 'unit': unit}
    _, value, unit = values[0]
    return groups, {'value': value, 'unit': unit}


def of_specification(name: str) -> tuple[bytes, dict[str, Any]]:
    """A telegram with a line for each object that the library has for this specification, and its document."""
    lines: list[str] = []
    document: dict[str, Any] = {}
    device: dict[str, Any] = {}
    for number, row in enumerate(rows(name), 1):
        code = _code(row, name)
        groups, item = _groups_and_item(row.library_parser, number)
        if '24.1.0' in code:
            groups, item = _gas_meter_type(row.library_parser)
        lines.append(code + groups)
        owner = document
        if code.startswith('0-1'):
            owner = device
        owner[camel_case(row.name)] = item
        has_first_group_only = isinstance(item, dict) and set(item) == {'value', 'unit'}
        if groups.count('(') > 1 and has_first_group_only:
            document['otherObjects'] = {code: {'groups': groups.strip('()').split(')(')}}
    # dsmr_parser calls the meter's own number that of a gas meter.
    if name == 'ISKRA_IE':
        document['otherObjects'] = {'1-0:96.1.0': document['equipmentIdentifierGas']}
    # The line of a device's switch fits a pattern of the meter's too: the last line has the value.
    if name == 'MSN':
        device['actualSwitchPosition'] = device['msnMbusSwitchPosition']
    if device:
        document['mbusDevices'] = [{'channelId': 1} | device]
    header = HEADER
    if name == 'LUXEMBOURG_SMARTY':
        header = '/Lux5\\253'
    data = from_lines(*lines, header=header, checksum=name not in WITHOUT_CHECKSUM)
    return data, document | _gas(device)


def _gas_meter_type(parser: Any) -> tuple[str, Any]:
    """The group of a line that says that the device is a gas meter, and its item in the document."""
    (value_format,) = parser.value_formats
    return '(3)', {'value': value_format.coerce_type('3'), 'unit': None}


def _gas(device: dict[str, Any]) -> dict[str, Any]:
    """The keys at the top for a gas meter whatever the specification calls its values."""
    reading = _first_of(device, 'mbusMeterReading', 'hourlyGasMeterReading', 'gasMeterReading')
    if not reading:
        return {}
    return {
        'deviceType': {'value': 3, 'unit': None},
        'equipmentIdentifierGas': _first_of(
            device, 'mbusEquipmentIdentifier', 'equipmentIdentifierGas'
        ),
        'hourlyGasMeterReading': reading,
    }


def _first_of(device: dict[str, Any], *names: str) -> Any:
    return next((device[name] for name in names if name in device), None)
