"""Telegram to reading: an odd line costs its own value, devices are kept apart, and the JSON is strict."""

import json
import re
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.reading.document import Reading, UnusableTelegramError, camel_case, make_reading
from dsmr_rest.reading.specification import Chooser
from dsmr_rest.simulated.telegrams import with_checksum
from tests.telegrams import STAMP, TIME, from_lines, of_version, read, read_lines, telegrams_in

BEFORE, AFTER = ('1-0:1.8.2(000002.000*kWh)', '0-0:96.14.0(0002)')
REST = {
    'electricityUsedTariff2': {'value': 2.0, 'unit': 'kWh'},
    'electricityActiveTariff': {'value': '0002', 'unit': None},
}


def refuse(text: str) -> NoReturn:
    pytest.fail(f'{text} is not JSON')


def strict(reading: Reading) -> Any:
    """The document as a strict client reads it."""
    document = json.loads(reading.json, parse_constant=refuse)
    assert document == json.loads(reading.line, parse_constant=refuse) == reading.document
    return document


# The line, its key, and what the key holds.
ODD_BUT_READ = [
    ('1-0:1.8.1(000123.456)', 'electricityUsedTariff1', {'value': 123.456, 'unit': None}),
    ('1-0:1.8.1(123*kWh)', 'electricityUsedTariff1', {'value': 123.0, 'unit': 'kWh'}),
    ('1-0:1.8.1(-000.5*kWh)', 'electricityUsedTariff1', {'value': -0.5, 'unit': 'kWh'}),
    ('1-0:1.8.1(000123.456*)', 'electricityUsedTariff1', {'value': 123.456, 'unit': ''}),
    ('1-0:1.8.1*255(000123.456*kWh)', 'electricityUsedTariff1', {'value': 123.456, 'unit': 'kWh'}),
    ('1-0:1.8.1()', 'electricityUsedTariff1', {'value': None, 'unit': None}),
    ('0-0:96.13.0()', 'textMessage', {'value': None, 'unit': None}),
    *((f'0-0:96.13.0({text})', 'textMessage', {'value': text, 'unit': None})
      for text in ('a b', 'a/b', '!', '\xff', '\x85')),
    ('  1-0:1.8.1(000123.456*kWh) ', 'electricityUsedTariff1', {'value': 123.456, 'unit': 'kWh'}),
    ('1-0:1.8.1(000123.456*kWh )', 'electricityUsedTariff1', {'value': 123.456, 'unit': 'kWh'}),
    ('0-0:1.0.0(632525252525W)', 'p1MessageTimestamp', {'value': None, 'unit': None}),
    ('0-0:1.0.0()', 'p1MessageTimestamp', {'value': None, 'unit': None}),
    ('1-0:99.97.0()', 'powerEventFailureLog', {'buffer_length': 0, 'buffer_type': None, 'buffer': []}),
    ('1-0:99.97.0(0)(0-0:96.7.19)', 'powerEventFailureLog',
     {'buffer_length': 0, 'buffer_type': '0-0:96.7.19', 'buffer': []}),
    (f'1-0:99.97.0(1)(0-0:96.7.19)({STAMP})(0000000240*s)', 'powerEventFailureLog',
     {'buffer_length': 1, 'buffer_type': '0-0:96.7.19', 'buffer': [{'datetime': TIME, 'value': 240, 'unit': 's'}]}),
    ('1-0:99.97.0(1)(0-0:96.7.19)(632525252525W)(0000000240*s)', 'powerEventFailureLog',
     {'buffer_length': 1, 'buffer_type': '0-0:96.7.19', 'buffer': [{'datetime': None, 'value': 240, 'unit': 's'}]}),
]  # fmt: skip

WITHOUT_GROUPS = [
    '1-0:1.8.1',
    '1-0:1.8.1(',
    '1-0:1.8.1(000123.456*kWh',
    '1-0:1.8.1 ',
    '1-0:1.8.1(0.1)*kW)/h',
    '1-0:99.9.9(Tel (06 1/23)',
    '0-0:96.13.0(a/b/(c/d',
    '0-0:96.13.0(24/7',
    '9-9:99.99.99',
]


def text(value: str, unit: str | None = None) -> dict[str, Any]:
    """The item of otherObjects for a text."""
    return {'value': value, 'unit': unit}


def groups(*texts: str) -> dict[str, Any]:
    """The item of otherObjects for groups that are no quantity."""
    return {'groups': [*texts]}


FAILURE = ('240115103000W', '0000000240*s')
# The line of V5, and its item in otherObjects.
UNFIT_OR_UNKNOWN: list[tuple[str, Any]] = [
    ('1-0:1.8.1(000123.456kWh)', text('000123.456kWh')),
    ('1-0:1.8.1(0001O3.456*kWh)', text('0001O3.456', 'kWh')),
    ('1-0:1.8.1(*kWh)', text('', 'kWh')),
    ('1-0:1.8.1(NaN*kWh)', text('NaN', 'kWh')),
    ('1-0:1.8.1(sNaN)', text('sNaN')),
    ('1-0:1.8.1(Infinity)', text('Infinity')),
    ('1-0:1.8.1(-inf)', text('-inf')),
    ('1-0:1.8.1(1E9*kWh)', text('1E9', 'kWh')),
    ('1-0:1.8.1(1e9999999999*kWh)', text('1e9999999999', 'kWh')),
    ('1-0:1.8.1(12.34.56*kWh)', text('12.34.56', 'kWh')),
    ('1-0:1.8.1(1*2*kWh)', groups('1*2*kWh')),
    ('1-0:1.8.1( 00123.456*kWh)', text(' 00123.456', 'kWh')),
    ('1-0:1.8.1(00123,456*kWh)', text('00123,456', 'kWh')),
    ('1-0:1.8.1(00012\xff.456*kWh)', text('00012\xff.456', 'kWh')),
    ('1-0:1.8.1(' + '9' * 400 + ')', text('9' * 400)),
    ('1-0:1.8.1(1)(2)', groups('1', '2')),
    ('1-0:1.8.1(240115103000)', text('240115103000')),
    ('1-0:1.8.1*1(000123.456*kWh)', {'value': 123.456, 'unit': 'kWh'}),
    ('1-0:1.8.1(240115103000W)(000123.456*kWh)', {'datetime': TIME, 'value': 123.456, 'unit': 'kWh'}),
    ('0-0:96.7.9(0x1F)', text('0x1F')),
    ('0-0:96.7.9(4.5)', {'value': 4.5, 'unit': None}),
    ('0-0:96.7.9(240115103000)', text('240115103000')),
    ('0-0:96.7.9(' + '9' * 5000 + ')', text('9' * 5000)),
    ('0-0:1.0.0(noon)', text('noon')),
    ('1-0:99.97.0(2)(0-0:96.7.19)(240115103000W)(0000000240*s)', groups('2', '0-0:96.7.19', *FAILURE)),
    ('1-0:99.97.0(1)(0-0:96.7.19)(240115103000W)(0000000240*s)(240115103000W)(0000000240*s)',
     groups('1', '0-0:96.7.19', *FAILURE, *FAILURE)),
    ('1-0:99.97.0(1)(0-0:96.7.19)(240115103000W)(long*s)', groups('1', '0-0:96.7.19', '240115103000W', 'long*s')),
    ('1-0:99.97.0(1)(0-0:96.7.19)(240115103000W)(240115103000W)',
     groups('1', '0-0:96.7.19', '240115103000W', '240115103000W')),
    ('1-0:99.97.0(11)(0-0:96.7.19)' + '(240115103000W)(0000000240*s)' * 11, groups('11', '0-0:96.7.19', *FAILURE * 11)),
    ('1-0:99.97.0(x)(0-0:96.7.19)', groups('x', '0-0:96.7.19')),
    # unknown, some of them only begin like a known one
    ('1-0:1.8.10(000123.456*kWh)', {'value': 123.456, 'unit': 'kWh'}),
    ('1-0:1.8.11(000123*kWh)', {'value': 123.0, 'unit': 'kWh'}),
    ('0-0:96.1.10(4531)', text('4531')),
    ('0-0:96.13.01(41)', text('41')),
    ('1-0:11.8.1(000123.456*kWh)', {'value': 123.456, 'unit': 'kWh'}),
    ('1-0:21.8.1(-000.500*kWh)', {'value': -0.5, 'unit': 'kWh'}),
    ('1-0:99.99.99(1)', text('1')),
    ('1-0:99.99.99(12.5)', {'value': 12.5, 'unit': None}),
    ('9-9:99.99.99()', {'value': None, 'unit': None}),
    ('1-0:99.99.99(12.5*kW)(240115103000W)', {'datetime': TIME, 'value': 12.5, 'unit': 'kW'}),
    ('1-0:99.99.99(240115103000W)(12.5)', {'datetime': TIME, 'value': 12.5, 'unit': None}),
    ('1-0:99.99.99(240115103000W)(12)', groups('240115103000W', '12')),
    ('1-0:99.99.99(240115103000W)()', groups('240115103000W', '')),
    ('1-0:99.99.99(240115103000W)(240115103000)', groups('240115103000W', '240115103000')),
    ('1-0:99.99.99(12.5*kW)(13.5*kW)', groups('12.5*kW', '13.5*kW')),
    ('1-0:99.99.99(632525252525W)(12.5*kW)', {'datetime': None, 'value': 12.5, 'unit': 'kW'}),
    ('1-0:99:97.0(x)', text('x')),
    ('1-0:99.9.0(a/b/(c) d)', text('a/b/(c) d')),
    ('1-0:1.8.1((1)*kWh)', text('(1)', 'kWh')),
    ('0-0:F.F(00)', text('00')),
    ('C.1.0(4531)', text('4531')),
    ('1.8.0*255(000123.456*kWh)', {'value': 123.456, 'unit': 'kWh'}),
]  # fmt: skip


@pytest.mark.parametrize(('line', 'key', 'value'), ODD_BUT_READ)
def test_an_odd_line_is_read_as_what_it_says(line: str, key: str, value: Any) -> None:
    """What is missing is null; nothing else changes and nothing is called not understood."""
    reading = read_lines(BEFORE, line, AFTER)
    assert strict(reading) == REST | {key: value}
    assert reading.not_understood == ()


@pytest.mark.parametrize('line', WITHOUT_GROUPS, ids=lambda line: line[:40])
@pytest.mark.parametrize('end', ['\r\n', '\n'], ids=['CRLF', 'LF'])
def test_a_line_without_groups_costs_itself_alone(line: str, end: str) -> None:
    """The lines around it are read, it has no value, and its code is named once."""
    reading = read(from_lines(BEFORE, line, AFTER, end=end), 'V5')
    assert strict(reading) == REST
    assert reading.not_understood == (line.partition('(')[0].strip(),)


@pytest.mark.parametrize(('line', 'item'), UNFIT_OR_UNKNOWN, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize('end', ['\r\n', '\n'], ids=['CRLF', 'LF'])
def test_a_line_that_fits_no_name_is_under_its_code(line: str, item: Any, end: str) -> None:
    """What a table cannot read, or does not know, is in otherObjects in the form of its groups, and understood."""
    reading = read(from_lines(BEFORE, line, AFTER, end=end), 'V5')
    code, _, _ = line.partition('(')
    assert strict(reading) == REST | {'otherObjects': {code: item}}
    assert reading.not_understood == ()


def test_a_code_that_comes_twice_has_a_list() -> None:
    """All lines of an unknown code are there, in telegram order."""
    lines = ('1-0:99.9.0(1)', '1-0:99.8.0(12.5*kW)', '1-0:99.9.0()', '1-0:99.9.0(2)(3)')
    assert strict(read_lines(BEFORE, *lines, AFTER)) == REST | {
        'otherObjects': {
            '1-0:99.9.0': [text('1'), {'value': None, 'unit': None}, groups('2', '3')],
            '1-0:99.8.0': {'value': 12.5, 'unit': 'kW'},
        }
    }


def test_a_message_with_brackets_is_served() -> None:
    """It is the text that the meter sends, under its name."""
    reading = read_lines(BEFORE, '0-0:96.13.0(Tel (06) 1/23)', AFTER)
    assert strict(reading) == REST | {'textMessage': text('Tel (06) 1/23')}
    assert reading.not_understood == ()


def test_a_known_line_that_comes_twice_is_not_lost() -> None:
    """The last one has the name, and the one before is under its code."""
    reading = read_lines('1-0:1.8.2(000001.000*kWh)', BEFORE, AFTER)
    assert strict(reading) == REST | {
        'otherObjects': {'1-0:1.8.2': {'value': 1.0, 'unit': 'kWh'}},
    }


def test_the_reading_of_a_device_is_not_replaced_by_another_of_its_values() -> None:
    """24.2.1 is the reading, whatever else a heat meter sends; without it, 24.2.3 is, as in Belgium."""
    energy = '0-1:24.2.1(240115103000W)(5.5*GJ)'
    volume = '0-1:24.2.3(240115103000W)(70.0*m3)'
    for lines in ((energy, volume), (volume, energy)):
        (device,) = read_lines(BEFORE, '0-1:24.1.0(004)', *lines).document['mbusDevices']
        assert device['mbusMeterReading']['unit'] == 'GJ'
        assert device['otherObjects']['0-1:24.2.3']['unit'] == 'm3'
    (device,) = read_lines(BEFORE, '0-1:24.1.0(004)', volume).document['mbusDevices']
    assert device['mbusMeterReading']['unit'] == 'm3'


def test_a_device_has_its_own_other_objects() -> None:
    """The line of a device that no table knows is with the device; without a device it is with the meter's."""
    lines = ('0-2:99.1.0(12.5*kW)', '0-1:24.1.0(003)', '0-1:24.9.0(ON)')
    document = strict(read_lines(BEFORE, *lines, AFTER))
    assert document == REST | {
        'otherObjects': {'0-2:99.1.0': {'value': 12.5, 'unit': 'kW'}},
        'mbusDevices': [
            {
                'channelId': 1,
                'mbusDeviceType': {'value': 3, 'unit': None},
                'otherObjects': {'0-1:24.9.0': text('ON')},
            },
        ],
    }


LONG = '9' * 5000
ENDLESS_NUMBERS = [
    f'0-{LONG}:24.1.0(003)',
    f'{LONG}-0:1.8.1(000123.456*kWh)',
    f'0-{"0" * 5000}1:24.1.0(003)',
    f'1-0:{LONG}.8.1(000123.456*kWh)',
    f'0-1:24.1.0({LONG})',
    f'0-1:24.2.1({LONG})({LONG}*m3)',
    f'0-0:96.7.9({LONG})',
    f'1-0:1.8.1({LONG}*kWh)',
    f'1-0:1.8.1(0.{LONG}*kWh)',
    f'1-0:99.97.0({LONG})(0-0:96.7.19)',
    f'1-0:99.97.0(1)(0-0:96.7.19)({STAMP})({LONG}*s)',
]


@pytest.mark.parametrize(
    'line', ENDLESS_NUMBERS, ids=lambda line: re.sub('9{5000}|0{5000}', 'LONG', line)
)
def test_a_number_of_any_length_costs_its_line_alone(line: str) -> None:
    """Digits beyond what int() takes, wherever they are, are no number, and nothing else is lost."""
    reading = read_lines(BEFORE, line, AFTER)
    document = strict(reading)
    others = document.pop('otherObjects', {})
    devices = document.pop('mbusDevices', [])
    assert document == REST
    assert len(others) + len(devices) + len(reading.not_understood) == 1


@pytest.mark.parametrize('specification', ['auto', 'V2_2', 'V4', 'V5', 'BELGIUM_FLUVIUS'])
def test_a_version_of_any_length_costs_no_other_line(specification: str) -> None:
    """A version line of thousands of digits is served as the text that it is, or is not understood."""
    reading = read(from_lines(f'1-3:0.2.8({LONG})', BEFORE), specification)
    assert reading.document['electricityUsedTariff2'] == {'value': 2.0, 'unit': 'kWh'}
    assert reading.version in {LONG, None}


def test_a_device_type_of_any_length_costs_no_other_line() -> None:
    """DSMR 2.2 has the type as a text: it is served as it is sent, and the device is not a gas meter."""
    device_lines = (
        f'0-1:24.1.0({LONG})',
        '0-1:96.1.0(4731)',
        '0-1:24.2.1(240115100000W)(00001.000*m3)',
    )
    reading = read(from_lines(BEFORE, *device_lines, AFTER, checksum=False), 'V2_2')
    document = strict(reading)
    assert document.keys() == {*REST, 'mbusDevices'}
    assert document['mbusDevices'][0]['deviceType'] == {'value': LONG, 'unit': None}
    assert reading.devices[0].kind is None


@pytest.mark.parametrize('channel', ['256', '999'])
@pytest.mark.parametrize('medium', ['0', '1'])
def test_a_channel_above_a_byte_is_no_device(channel: str, medium: str) -> None:
    """OBIS has one byte for it: a line with more has no name, and no device."""
    codes = (f'{medium}-{channel}:24.1.0', f'{medium}-{channel}:1.8.1')
    document = strict(read_lines(BEFORE, f'{codes[0]}(003)', f'{codes[1]}(1.5*kWh)', AFTER))
    assert document == REST | {
        'otherObjects': {codes[0]: text('003'), codes[1]: {'value': 1.5, 'unit': 'kWh'}}
    }


@pytest.mark.parametrize('channel', ['0001', LONG])
@pytest.mark.parametrize('medium', ['0', '1'])
def test_what_is_longer_than_a_channel_is_no_code(channel: str, medium: str) -> None:
    """A line that begins with more digits than a code can have is nowhere, and not shown."""
    reading = read_lines(BEFORE, f'{medium}-{channel}:24.1.0(003)', AFTER)
    assert strict(reading) == REST
    assert reading.not_understood == ('?',)


def test_the_last_channel_is_255() -> None:
    """All of a byte is read."""
    document = strict(read_lines(BEFORE, '0-255:24.1.0(003)', AFTER))
    assert document['mbusDevices'] == [
        {'channelId': 255, 'mbusDeviceType': {'value': 3, 'unit': None}}
    ]


@pytest.mark.parametrize('stray', ['(stray)', '(00001.000)', 'stray', '1-0', ')', '\0'])
def test_a_stray_line_costs_no_other(stray: str) -> None:
    """A line without a code takes no value from the line before it."""
    assert strict(read_lines(BEFORE, stray, AFTER)) == REST


def test_a_telegram_of_odd_lines_alone_is_unusable() -> None:
    """Where no line has groups there is no reading, and no empty document."""
    with pytest.raises(UnusableTelegramError):
        read(from_lines('1-0:1.8.1(', '1-0:99.99.99'), 'V5')


def device(
    channel: int,
    kind: str,
    moment: str,
    value: str,
    identifier: str | None = '4731',
    *,
    unit: str = 'm3',
) -> tuple[str, ...]:
    """The lines of an M-Bus device."""
    named = () if identifier is None else (f'0-{channel}:96.1.0({identifier})',)
    return (f'0-{channel}:24.1.0({kind})', *named, f'0-{channel}:24.2.1({moment})({value}*{unit})')


OLD, NEW, NEVER = '240101000000W', '240115100000W', '700101000000W'
GAS = ('deviceType', 'equipmentIdentifierGas', 'hourlyGasMeterReading')

# The devices and the reading that wins, if any.
GAS_METERS: dict[str, tuple[list[tuple[str, ...]], float | None]] = {
    'one': ([device(1, '003', NEW, '00001.000')], 1.0),
    'type in one digit': ([device(1, '3', NEW, '00001.000')], 1.0),
    'on channel 12': ([device(12, '003', NEW, '00001.000')], 1.0),
    'the newest, first': (
        [device(1, '003', NEW, '00001.000'), device(2, '003', OLD, '00002.000')],
        1.0,
    ),
    'the newest, last': (
        [device(1, '003', OLD, '00001.000'), device(2, '003', NEW, '00002.000')],
        2.0,
    ),
    'the first of two at the same time': (
        [device(1, '003', NEW, '00001.000'), device(2, '003', NEW, '00002.000')],
        1.0,
    ),
    'W and S in the ambiguous hour': (
        [
            device(1, '003', '241027023000W', '00001.000'),
            device(2, '003', '241027024500S', '00002.000'),
        ],
        1.0,
    ),
    'dead channel first': (
        [device(1, '003', NEVER, '00000.000', ''), device(2, '003', OLD, '00002.000')],
        2.0,
    ),
    'dead channel with a date': (
        [device(1, '003', NEW, '00000.000', ''), device(2, '003', OLD, '00002.000')],
        2.0,
    ),
    'dead channel, zeros for id': (
        [device(1, '003', NEW, '00000.000', '0' * 34), device(2, '003', OLD, '00002.000')],
        2.0,
    ),
    'dead channel without date': (
        [device(1, '003', '', '00000.000', ''), device(2, '003', OLD, '00002.000')],
        2.0,
    ),
    'dead channel, impossible date': (
        [device(1, '003', '632525252525W', '00009.000'), device(2, '003', OLD, '00002.000')],
        2.0,
    ),
    'only a dead channel': ([device(1, '003', NEW, '00000.000', '')], None),
    'only 1970': ([device(1, '003', NEVER, '00005.000')], None),
    'only no value': ([('0-1:24.1.0(003)', '0-1:96.1.0(4731)', f'0-1:24.2.1({NEW})()')], None),
    'only the type': ([('0-1:24.1.0(003)',)], None),
    'a new meter at zero': ([device(1, '003', NEW, '00000.000', '4731')], 0.0),
    'no identifier': ([device(1, '003', NEW, '00001.000', None)], 1.0),
    'water': ([device(1, '007', NEW, '00001.000')], None),
    'type 13': ([device(1, '013', NEW, '00001.000')], None),
    'type 30': ([device(1, '030', NEW, '00001.000')], None),
    'no type': ([device(1, '', NEW, '00001.000')], None),
    'channel 0, the meter itself': ([device(0, '003', NEW, '00001.000')], None),
    'none': ([], None),
}


@pytest.mark.parametrize('specification', ['V4', 'V5', 'BELGIUM_FLUVIUS', 'LUXEMBOURG_SMARTY'])
@pytest.mark.parametrize('case', GAS_METERS)
def test_the_gas_keys_are_the_newest_valid_meter_s(case: str, specification: str) -> None:
    """The three keys come from the gas meter with the newest valid reading, or are absent."""
    devices, expected = GAS_METERS[case]
    lines = [line for device_lines in devices for line in device_lines]
    document = strict(read_lines(BEFORE, *lines, specification=specification))
    if expected is None:
        assert not document.keys() & set(GAS)
        return
    assert document['hourlyGasMeterReading']['value'] == expected
    assert document['deviceType'] == {'value': 3, 'unit': None}
    assert ('equipmentIdentifierGas' in document) is (case != 'no identifier')


OTHERS = [
    device(1, '003', NEW, '00001.000', '4701'),
    device(2, '007', NEW, '00002.000', '4702'),
    device(3, '004', NEW, '00003.500', '4703', unit='GJ'),
    device(4, '010', NEW, '00004.000', '4704', unit='GJ'),
    device(9, '002', NEW, '00009.000', '4709', unit='kWh'),
    device(10, '012', NEW, '00010.000', '4710', unit='GJ'),
    device(12, '003', OLD, '00012.000', '4712'),
]


@pytest.mark.parametrize(
    ('specification', 'names'),
    [
        ('V4', ('deviceType', 'equipmentIdentifierGas', 'hourlyGasMeterReading')),
        ('V5', ('mbusDeviceType', 'mbusEquipmentIdentifier', 'mbusMeterReading')),
    ],
)
@pytest.mark.parametrize('order', [1, -1])
def test_devices_of_every_kind_are_kept_apart(
    specification: str, names: tuple[str, str, str], order: int
) -> None:
    """Gas, water, heat, cold and electricity in m3, GJ and kWh are under their channels, in telegram order."""
    lines = [line for device_lines in OTHERS[::order] for line in device_lines]
    document = strict(read_lines(*lines, specification=specification))
    devices = document['mbusDevices']
    shown = [tuple(device[name]['value'] for name in names) for device in devices]
    expected = [
        (3, '4701', 1.0),
        (7, '4702', 2.0),
        (4, '4703', 3.5),
        (10, '4704', 4.0),
        (2, '4709', 9.0),
    ]
    assert shown == [*expected, (12, '4710', 10.0), (3, '4712', 12.0)][::order]
    assert [device['channelId'] for device in devices] == [1, 2, 3, 4, 9, 10, 12][::order]
    units = ['m3', 'm3', 'GJ', 'GJ', 'kWh', 'GJ', 'm3']
    assert [device[names[2]]['unit'] for device in devices] == units[::order]
    assert document['hourlyGasMeterReading']['value'] == 1.0


def test_devices_whose_lines_are_mixed_are_kept_apart() -> None:
    """A line goes to the device on its channel, whatever lines are around it."""
    one, two = (
        device(1, '003', NEW, '00001.000', '4701'),
        device(10, '007', NEW, '00002.000', '4710'),
    )
    document = strict(read_lines(two[2], one[0], two[0], one[2], one[1], two[1]))
    ten, first = document['mbusDevices']
    assert ten['channelId'] == 10
    assert ten['mbusEquipmentIdentifier']['value'] == '4710'
    assert ten['mbusMeterReading']['value'] == 2.0
    assert first['channelId'] == 1
    assert first['mbusEquipmentIdentifier']['value'] == '4701'
    assert first['mbusMeterReading']['value'] == 1.0


@pytest.mark.parametrize('kind', ['3', '03', '003'])
@pytest.mark.parametrize('break_', ['\r\n', ''], ids=['two lines', 'one line'])
@pytest.mark.parametrize('end', ['\r\n', '\n'], ids=['CRLF', 'LF'])
def test_the_gas_reading_of_2_2(kind: str, break_: str, end: str) -> None:
    """The reading is on a second line or at the end of the first; its time has no suffix and is Dutch time."""
    gas = f'0-2:24.3.0(240701120000)(00)(60)(1)(0-2:24.2.1)(m3){break_}(00123.450)'.replace(
        '\r\n', end
    )
    lines = (
        '1-0:1.8.1(00001.000*kWh)',
        f'0-2:24.1.0({kind})',
        '0-2:96.1.0(4731)',
        gas,
        '0-2:24.4.0(1)',
    )
    reading = read(from_lines(*lines, checksum=False, end=end))
    expected = {'datetime': '2024-07-01T12:00:00+02:00', 'value': 123.45, 'unit': 'm3'}
    assert reading.specification == 'V2_2'
    assert reading.document['hourlyGasMeterReading'] == expected
    assert reading.document['mbusDevices'][0]['gasMeterReading'] == expected
    assert reading.document['mbusDevices'][0]['valvePositionGas'] == {'value': '1', 'unit': None}
    assert reading.not_understood == ()


def test_a_2_2_gas_line_without_its_second_line_costs_itself() -> None:
    """The next line is not taken for the reading."""
    gas = '0-1:24.3.0(240701120000)(00)(60)(1)(0-1:24.2.1)(m3)'
    reading = read(
        from_lines(BEFORE, '0-1:24.1.0(3)', gas, '0-1:24.4.0(1)', AFTER, checksum=False), 'V2_2'
    )
    assert 'hourlyGasMeterReading' not in reading.document
    (gas_meter,) = reading.document['mbusDevices']
    assert gas_meter['valvePositionGas'] == {'value': '1', 'unit': None}
    assert len(gas_meter['otherObjects']['0-1:24.3.0']['groups']) == 6


PEAK = '(240101000000W)(231215174500W)(03.695*kW)'
MONTH = {
    'datetime': '2024-01-01T00:00:00+01:00',
    'occurred': '2023-12-15T17:45:00+01:00',
    'value': 3.695,
    'unit': 'kW',
}
CODES = '(1-0:1.6.0)(1-0:1.6.0)'


@pytest.mark.parametrize(
    ('peak_groups', 'expected'),
    [
        (f'(0){CODES}', []),
        (f'(00){CODES}', []),
        ('(0)', []),
        ('()', []),
        (f'(){CODES}', []),
        (f'(0){CODES}()()()', []),
        (f'(1){CODES}{PEAK}', [MONTH]),
        (f'(01){CODES}{PEAK}', [MONTH]),
        (f'(13){CODES}{PEAK * 13}', [MONTH] * 13),
        (
            f'(1){CODES}(632525252525W)(632525252525W)(03.695*kW)',
            [MONTH | {'datetime': None, 'occurred': None}],
        ),
        (
            f'(2){CODES}{PEAK}(632525252525W)(231215174500W)(03.695*kW)',
            [MONTH, MONTH | {'datetime': None}],
        ),
        (
            f'(2){CODES}(240101000000W)(03.695*kW)(231215174500W)(03.695*kW)(240101000000W)(231215174500W)',
            [MONTH, MONTH],
        ),
    ],
)
def test_the_belgian_peak_history(peak_groups: str, expected: list[Any]) -> None:
    """No, one or thirteen months are read, and the impossible dates that meters send there are null."""
    reading = read_lines(BEFORE, f'0-0:98.1.0{peak_groups}', AFTER, specification='BELGIUM_FLUVIUS')
    assert strict(reading) == REST | {'belgiumMaximumDemand13Months': expected}
    assert reading.not_understood == ()


@pytest.mark.parametrize(
    'peak_groups',
    [
        f'(2){CODES}{PEAK}',
        f'(1){CODES}(240101000000W)(231215174500W)',
        f'(1){CODES}',
        '(1)',
        f'(x){CODES}{PEAK}',
        f'(1){CODES}(240101000000W)(231215174500W)(NaN*kW)',
        f'(1){CODES}(240101000000W)(231215174500W)()',
        f'(-1){CODES}{PEAK * 2}',
        f'({LONG}){CODES}{PEAK}',
        f'(1){CODES}(240101000000W)(231215174500W)({LONG}*kW)',
        f'(1){CODES}(240101000000W)(2312(15)174500W)(03.695*kW)',
        f'(1){CODES}(noon)(231215174500W)(03.695*kW)',
        f'(1){CODES}(240101000000W)(01.234*kW)(03.695*kW)',
        f'(1){CODES}(240101000000W)(231215174500W)(231215174500W)',
        f'(1){CODES}{PEAK * 2}',
        '()(04.329*kW)',
        f'(1)(04.329*kW)(1-0:1.6.0){PEAK}',
        f'(0){CODES}{PEAK}',
        '(',
        '',
    ],
)
def test_a_wrong_peak_history_costs_itself(peak_groups: str) -> None:
    """A count above the number of peaks, or what is no number or no time, costs the history and nothing else."""
    line = f'0-0:98.1.0{peak_groups}'
    reading = read_lines(BEFORE, line, AFTER, specification='BELGIUM_FLUVIUS')
    document = strict(reading)
    others = document.pop('otherObjects', {})
    assert document == REST
    assert [*others, *reading.not_understood] == ['0-0:98.1.0']


def test_the_peak_history_is_the_meter_s_whatever_its_channel() -> None:
    """Peaks under a channel are at the top of the document: only the meter itself has them."""
    document = strict(
        read_lines(BEFORE, f'0-1:98.1.0(0){CODES}', AFTER, specification='BELGIUM_FLUVIUS')
    )
    assert document == REST | {'belgiumMaximumDemand13Months': []}


def test_the_belgian_month_peak_has_its_time() -> None:
    """Average demand and the peak of the month are read, the peak with its time."""
    lines = ('1-0:1.4.0(02.351*kW)', '1-0:1.6.0(240115103000W)(02.589*kW)')
    assert strict(read_lines(*lines, specification='BELGIUM_FLUVIUS')) == {
        'belgiumCurrentAverageDemand': {'value': 2.351, 'unit': 'kW'},
        'belgiumMaximumDemandMonth': {'datetime': TIME, 'value': 2.589, 'unit': 'kW'},
    }


def test_a_text_of_0xff_leaves_the_checksum_right() -> None:
    """The checksum is over the bytes as they came, and the header may have letters beyond ASCII too."""
    reading = read(from_lines('0-0:96.13.0(\xff)', BEFORE, AFTER, header='/T\xe9ST5'), 'V5')
    assert strict(reading) == REST | {'textMessage': {'value': '\xff', 'unit': None}}
    assert reading.identification == 'T\xe9ST5'


@pytest.mark.parametrize(
    ('version', 'stated'), [('5.0', '50'), ('4.2', '42'), ('2.2', None), ('belgium', '50217')]
)
def test_what_the_meter_states_about_itself(version: str, stated: str | None) -> None:
    """The identification is the header line, the version is the meter's own."""
    reading = read(of_version(version))
    assert reading.version == stated
    assert reading.telegram == of_version(version)
    assert reading.identification == of_version(version).partition(b'\r')[0][1:].decode()


@pytest.mark.parametrize(
    ('code', 'specification'),
    [
        ('0-0:96.1.1', 'V5'),
        ('0-0:96.1.1', 'BELGIUM_FLUVIUS'),
        ('0-0:42.0.0', 'LUXEMBOURG_SMARTY'),
        ('0-0:96.1.0', 'EON_HUNGARY'),
        ('0-0:42.0.0', 'EON_HUNGARY'),
        ('0-0:0.0.0', 'Q3D'),
    ],
)
def test_the_meter_s_own_number_is_found_under_each_of_its_names(
    code: str, specification: str
) -> None:
    """Whatever the specification calls the number, it is the reading's identifier; without one there is None."""
    energy = ('1-0:1.8.0(000001.000*kWh)', '1-0:1.8.1(000001.000*kWh)')
    assert read(from_lines(f'{code}(4531)', *energy), specification).identifier == '4531'
    assert read(from_lines(*energy), specification).identifier is None


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('EQUIPMENT_IDENTIFIER_GAS', 'equipmentIdentifierGas'),
        ('P1_MESSAGE_HEADER', 'p1MessageHeader'),
    ],
)
def test_names_are_camel_case(name: str, key: str) -> None:
    """dsmr_parser's names in camelCase."""
    assert camel_case(name) == key


FIT = ['', '0', '1', '-1', '003', '13', STAMP, '632525252525W', '00001.000*m3', '0-0:96.7.19']
UNFIT = ['1E999', 'NaN', '1*2*3', ')(', LONG]
TEXT = st.text(st.characters(max_codepoint=255, exclude_characters='\n'), max_size=12)
GROUPS = st.lists(TEXT | st.sampled_from(FIT + UNFIT), max_size=9).map(
    lambda groups: ''.join(f'({group})' for group in groups)
)
CODE_LIST = """1-3:0.2.8 0-0:1.0.0 1-0:1.8.0 1-0:1.8.1 0-0:96.14.0 0-0:96.7.9 1-0:99.97.0 0-0:96.13.0 0-0:98.1.0
    1-0:1.6.0 0-1:24.1.0 0-300:24.1.0 0-1:96.1.0 0-1:96.1.1 0-1:24.2.1 0-1:24.2.3 0-1:24.3.0 0-12:24.2.1 00-01:24.1.0
    0-0:24.1.0 0-01:24.2.1 1-1:31.4.0 0-0:0.0.0 9-99:99.99"""


def test_the_meter_s_own_number_is_not_the_gas_meter_s() -> None:
    """Without a gas meter there is no flat key of one, though a specification has that name for another line."""
    assert strict(read(from_lines(BEFORE, '0-0:96.1.0(4731)', AFTER), 'V4')) == REST | {
        'otherObjects': {'0-0:96.1.0': text('4731')}
    }


ANY_CODE = st.sampled_from([*CODE_LIST.split(), f'0-{LONG}:24.1.0', f'{LONG}-0:1.8.1'])
STREAM = st.lists(
    st.tuples(ANY_CODE, GROUPS).map(''.join) | st.text(st.characters(max_codepoint=255)),
    max_size=12,
)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(STREAM, st.sampled_from(['auto', *SPECIFICATION_NAMES]), st.booleans())
def test_any_lines_give_a_strict_reading_or_none(
    lines: list[str], specification: str, encrypted: bool
) -> None:
    """Whatever the lines say, there is strict JSON or an UnusableTelegramError, also when the checksum holds."""
    chooser = Chooser(specification)
    for telegram in telegrams_in(from_lines(*lines)):
        try:
            reading = make_reading(telegram, chooser, 0.0, 0.0, encrypted=encrypted)
        except UnusableTelegramError:
            continue
        strict(reading)
        assert len(set(reading.not_understood)) <= len(lines) + 1


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    st.lists(
        st.binary(max_size=200) | st.sampled_from([b'/', b'\r\n', b'1-0:1.8.1(1)\r\n', b'!\r\n']),
        max_size=12,
    )
)
def test_any_bytes_give_a_strict_reading_or_none(pieces: list[bytes]) -> None:
    """Any bytes between a header and a checksum are read without another exception."""
    for telegram in telegrams_in(with_checksum(b'/TST5\r\n1-0:1.8.1(1)\r\n' + b''.join(pieces))):
        try:
            reading = make_reading(telegram, Chooser(), 0.0, 0.0)
        except UnusableTelegramError:
            continue
        strict(reading)
