"""Telegram to reading: odd lines cost one value each, devices are kept apart, and the JSON is strict."""

import json
from dataclasses import replace
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telegrams import STAMP, TIME, from_lines, of_version, read, read_lines

from dsmr_rest.reading import Reading, UnusableTelegramError, camel_case, make_reading
from dsmr_rest.simulated_meter import with_checksum
from dsmr_rest.specification import NAMES, Chooser
from dsmr_rest.telegram import Framer, Telegram

BEFORE, BEHIND = ('1-0:1.8.2(000002.000*kWh)', '0-0:96.14.0(0002)')
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

UNREADABLE = [
    '1-0:1.8.1',
    '1-0:1.8.1(',
    '1-0:1.8.1(000123.456*kWh',
    '1-0:1.8.1(000123.456kWh)',
    '1-0:1.8.1(0001O3.456*kWh)',
    '1-0:1.8.1(kWh)',
    '1-0:1.8.1(*kWh)',
    '1-0:1.8.1(NaN*kWh)',
    '1-0:1.8.1(sNaN)',
    '1-0:1.8.1(Infinity)',
    '1-0:1.8.1(-inf)',
    '1-0:1.8.1(1E9*kWh)',
    '1-0:1.8.1(1E999*kWh)',
    '1-0:1.8.1(1e9999999999*kWh)',
    '1-0:1.8.1(12.34.56*kWh)',
    '1-0:1.8.1(1*2*kWh)',
    '1-0:1.8.1( 00123.456*kWh)',
    '1-0:1.8.1(00123,456*kWh)',
    '1-0:1.8.1(00012\xff.456*kWh)',
    '1-0:1.8.1(' + '9' * 400 + ')',
    '1-0:1.8.1(1)(2)',
    '1-0:1.8.1 ',
    '0-0:96.13.0(Tel (06) 1/23)',
    '0-0:96.13.0(a/b/(c)/d)',
    '0-0:96.13.0(24/7',
    '1-0:1.8.1(0.1)*kW)/h',
    '0-0:96.7.9(0x1F)',
    '0-0:96.7.9(4.5)',
    '0-0:96.7.9(' + '9' * 5000 + ')',
    '1-0:99.97.0(2)(0-0:96.7.19)(240115103000W)(0000000240*s)',
    '1-0:99.97.0(1)(0-0:96.7.19)(240115103000W)(0000000240*s)(240115103000W)(0000000240*s)',
    '1-0:99.97.0(1)(0-0:96.7.19)(240115103000W)(long*s)',
    '1-0:99.97.0(11)(0-0:96.7.19)' + '(240115103000W)(0000000240*s)' * 11,
    '1-0:99.97.0(x)(0-0:96.7.19)',
    # unknown, some of them only begin like a known one
    '1-0:1.8.10(000123.456*kWh)',
    '1-0:1.8.11(000123.456*kWh)',
    '0-1:24.2.10(240115103000W)(00001.000*m3)',
    '0-0:96.1.10(4531)',
    '0-0:96.13.01(41)',
    '1-0:11.8.1(000123.456*kWh)',
    '1-0:21.8.1(000123.456*kWh)',
    '1-0:99.99.99(1)',
    '9-9:99.99.99()',
]


@pytest.mark.parametrize(('line', 'key', 'value'), ODD_BUT_READ)
def test_an_odd_line_is_read_as_what_it_says(line: str, key: str, value: Any) -> None:
    """What is missing is null; nothing else changes and nothing is called not understood."""
    reading = read_lines(BEFORE, line, BEHIND)
    assert strict(reading) == REST | {key: value}
    assert reading.not_understood == ()


@pytest.mark.parametrize('line', UNREADABLE, ids=lambda line: line[:40])
@pytest.mark.parametrize('end', ['\r\n', '\n'], ids=['CRLF', 'LF'])
def test_an_unreadable_line_costs_itself_alone(line: str, end: str) -> None:
    """The lines around it come out, it gives no value, and its code is named once."""
    reading = read(from_lines(BEFORE, line, BEHIND, end=end), 'V5')
    assert strict(reading) == REST
    assert reading.not_understood == (line.partition('(')[0].strip(),)


@pytest.mark.parametrize('stray', ['(stray)', '(00001.000)', 'stray', '1-0', ')', '\0'])
def test_a_stray_line_costs_no_other(stray: str) -> None:
    """A line without a code takes no value from the line before it."""
    assert strict(read_lines(BEFORE, stray, BEHIND)) == REST


def test_a_telegram_of_odd_lines_alone_is_unusable() -> None:
    """Where no line can be read there is no reading, and no empty document."""
    with pytest.raises(UnusableTelegramError) as error:
        read(from_lines('1-0:1.8.1(NaN)', '1-0:99.99.99(1)'), 'V5')
    assert error.value.fault.code == 'line_garbled'


@pytest.mark.parametrize('checksum', [b'!0000\r\n', b'!\r\n'])
def test_a_wrong_or_missing_checksum_is_unusable(checksum: bytes) -> None:
    """The code says so, whether the specification is set or found."""
    data = of_version('5.0')
    for specification in ('V5', 'auto'):
        with pytest.raises(UnusableTelegramError) as error:
            read(data[: data.rindex(b'!')] + checksum, specification)
        assert error.value.fault.code == 'checksum_failed'


def device(
    channel: int, kind: str, moment: str, value: str, identifier: str | None = '4731', *, unit: str = 'm3'
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
    'the newest, first': ([device(1, '003', NEW, '00001.000'), device(2, '003', OLD, '00002.000')], 1.0),
    'the newest, last': ([device(1, '003', OLD, '00001.000'), device(2, '003', NEW, '00002.000')], 2.0),
    'W and S in the ambiguous hour': (
        [device(1, '003', '241027023000W', '00001.000'), device(2, '003', '241027024500S', '00002.000')],
        1.0,
    ),
    'dead channel first': ([device(1, '003', NEVER, '00000.000', ''), device(2, '003', OLD, '00002.000')], 2.0),
    'dead channel with a date': ([device(1, '003', NEW, '00000.000', ''), device(2, '003', OLD, '00002.000')], 2.0),
    'dead channel, zeros for id': (
        [device(1, '003', NEW, '00000.000', '0' * 34), device(2, '003', OLD, '00002.000')],
        2.0,
    ),
    'dead channel without date': ([device(1, '003', '', '00000.000', ''), device(2, '003', OLD, '00002.000')], 2.0),
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
    'none': ([], None),
}


@pytest.mark.parametrize('specification', ['V4', 'V5', 'BELGIUM_FLUVIUS', 'LUXEMBOURG_SMARTY'])
@pytest.mark.parametrize('case', GAS_METERS)
def test_the_gas_keys_are_the_newest_valid_meter_s(case: str, specification: str) -> None:
    """The three keys come from the gas meter with the newest valid reading, or are absent."""
    devices, expected = GAS_METERS[case]
    lines = [line for each in devices for line in each]
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
def test_devices_of_every_kind_are_kept_apart(specification: str, names: tuple[str, str, str], order: int) -> None:
    """Gas, water, heat, cold and electricity in m3, GJ and kWh stand under their channels, in telegram order."""
    lines = [line for each in OTHERS[::order] for line in each]
    document = strict(read_lines(*lines, specification=specification))
    told = [tuple(each[name]['value'] for name in names) for each in document['mbusDevices']]
    expected = [(3, '4701', 1.0), (7, '4702', 2.0), (4, '4703', 3.5), (10, '4704', 4.0), (2, '4709', 9.0)]
    assert told == [*expected, (12, '4710', 10.0), (3, '4712', 12.0)][::order]
    assert [each['channelId'] for each in document['mbusDevices']] == [1, 2, 3, 4, 9, 10, 12][::order]
    assert [each[names[2]]['unit'] for each in document['mbusDevices']] == ['m3', 'm3', 'GJ', 'GJ', 'kWh', 'GJ', 'm3'][
        ::order
    ]
    assert document['hourlyGasMeterReading']['value'] == 1.0


def test_devices_whose_lines_are_mixed_are_kept_apart() -> None:
    """Lines of two devices in any order go to their own."""
    one, two = device(1, '003', NEW, '00001.000', '4701'), device(10, '007', NEW, '00002.000', '4710')
    document = strict(read_lines(two[2], one[0], two[0], one[2], one[1], two[1]))
    ten, first = document['mbusDevices']
    assert (ten['channelId'], ten['mbusEquipmentIdentifier']['value'], ten['mbusMeterReading']['value']) == (
        10,
        '4710',
        2.0,
    )
    assert (first['channelId'], first['mbusEquipmentIdentifier']['value']) == (1, '4701')


@pytest.mark.parametrize('kind', ['3', '03', '003'])
@pytest.mark.parametrize('break_', ['\r\n', ''], ids=['two lines', 'one line'])
@pytest.mark.parametrize('end', ['\r\n', '\n'], ids=['CRLF', 'LF'])
def test_the_gas_reading_of_2_2(kind: str, break_: str, end: str) -> None:
    """The reading stands in a second line or behind the first; its time has no suffix and is Dutch."""
    gas = f'0-2:24.3.0(240701120000)(00)(60)(1)(0-2:24.2.1)(m3){break_}(00123.450)'.replace('\r\n', end)
    lines = ('1-0:1.8.1(00001.000*kWh)', f'0-2:24.1.0({kind})', '0-2:96.1.0(4731)', gas, '0-2:24.4.0(1)')
    reading = read(from_lines(*lines, checksum=False, end=end))
    expected = {'datetime': '2024-07-01T12:00:00+02:00', 'value': 123.45, 'unit': 'm3'}
    assert reading.specification == 'V2_2'
    assert reading.document['hourlyGasMeterReading'] == expected
    assert reading.document['mbusDevices'][0]['gasMeterReading'] == expected
    assert reading.document['mbusDevices'][0]['valvePositionGas'] == {'value': '1', 'unit': None}
    assert reading.not_understood == ()


def test_a_2_2_gas_line_without_its_second_line_costs_itself() -> None:
    """The line behind it is not taken for the reading."""
    gas = '0-1:24.3.0(240701120000)(00)(60)(1)(0-1:24.2.1)(m3)'
    reading = read(from_lines(BEFORE, '0-1:24.1.0(3)', gas, '0-1:24.4.0(1)', BEHIND, checksum=False), 'V2_2')
    assert 'hourlyGasMeterReading' not in reading.document
    assert reading.document['mbusDevices'][0]['valvePositionGas'] == {'value': '1', 'unit': None}
    assert reading.not_understood == ('0-1:24.3.0',)


PEAK = '(240101000000W)(231215174500W)(03.695*kW)'
MONTH = {'datetime': '2024-01-01T00:00:00+01:00', 'occurred': '2023-12-15T17:45:00+01:00', 'value': 3.695, 'unit': 'kW'}
CODES = '(1-0:1.6.0)(1-0:1.6.0)'


@pytest.mark.parametrize(
    ('groups', 'expected'),
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
        (f'(1){CODES}(632525252525W)(632525252525W)(03.695*kW)', [MONTH | {'datetime': None, 'occurred': None}]),
        (f'(2){CODES}{PEAK}(632525252525W)(231215174500W)(03.695*kW)', [MONTH, MONTH | {'datetime': None}]),
    ],
)
def test_the_belgian_peak_history(groups: str, expected: list[Any]) -> None:
    """Nought, one or thirteen months come out, and the impossible dates that meters send there are null."""
    reading = read_lines(BEFORE, f'0-0:98.1.0{groups}', BEHIND, specification='BELGIUM_FLUVIUS')
    assert strict(reading) == REST | {'belgiumMaximumDemand13Months': expected}
    assert reading.not_understood == ()


@pytest.mark.parametrize(
    'groups',
    [
        f'(2){CODES}{PEAK}',
        f'(1){CODES}(240101000000W)(231215174500W)',
        f'(1){CODES}',
        '(1)',
        f'(x){CODES}{PEAK}',
        f'(1){CODES}(240101000000W)(231215174500W)(NaN*kW)',
        f'(1){CODES}(240101000000W)(231215174500W)()',
        f'(-1){CODES}{PEAK * 2}',
    ],
)
def test_a_wrong_peak_history_costs_itself(groups: str) -> None:
    """A count above what is there, or a value that is none, costs the history and nothing else."""
    reading = read_lines(BEFORE, f'0-0:98.1.0{groups}', BEHIND, specification='BELGIUM_FLUVIUS')
    assert strict(reading) == REST
    assert reading.not_understood == ('0-0:98.1.0',)


def test_the_belgian_month_peak_has_its_time() -> None:
    """Average demand and the peak of the month come out, the peak with its time."""
    lines = ('1-0:1.4.0(02.351*kW)', '1-0:1.6.0(240115103000W)(02.589*kW)')
    assert strict(read_lines(*lines, specification='BELGIUM_FLUVIUS')) == {
        'belgiumCurrentAverageDemand': {'value': 2.351, 'unit': 'kW'},
        'belgiumMaximumDemandMonth': {'datetime': TIME, 'value': 2.589, 'unit': 'kW'},
    }


def test_a_text_of_0xff_leaves_the_checksum_right() -> None:
    """The checksum counts the bytes as they came, and the header may have foreign letters too."""
    reading = read(from_lines('0-0:96.13.0(\xff)', BEFORE, BEHIND, header='/T\xe9ST5'), 'V5')
    assert strict(reading) == REST | {'textMessage': {'value': '\xff', 'unit': None}}
    assert reading.identification == 'T\xe9ST5'


@pytest.mark.parametrize(('version', 'told'), [('5.0', '50'), ('4.2', '42'), ('2.2', None), ('belgium', '50217')])
def test_what_the_meter_says_of_itself(version: str, told: str | None) -> None:
    """The identification is the header line, the version is the meter's own."""
    reading = read(of_version(version))
    assert reading.version == told
    assert reading.telegram == of_version(version)
    assert reading.identification == of_version(version).partition(b'\r')[0][1:].decode()


@pytest.mark.parametrize(
    ('name', 'key'),
    [('EQUIPMENT_IDENTIFIER_GAS', 'equipmentIdentifierGas'), ('P1_MESSAGE_HEADER', 'p1MessageHeader')],
)
def test_names_are_camel_case(name: str, key: str) -> None:
    """dsmr_parser's names in camelCase."""
    assert camel_case(name) == key


FIT = ['', '0', '1', '-1', '003', '13', STAMP, '632525252525W', '00001.000*m3', '0-0:96.7.19']
UNFIT = ['1E999', 'NaN', '1*2*3', ')(', '1' * 5000]
TEXT = st.text(st.characters(max_codepoint=255, exclude_characters='\n'), max_size=12)
GROUPS = st.lists(TEXT | st.sampled_from(FIT + UNFIT), max_size=9).map(
    lambda groups: ''.join(f'({group})' for group in groups)
)
CODE_LIST = """1-3:0.2.8 0-0:1.0.0 1-0:1.8.0 1-0:1.8.1 0-0:96.14.0 0-0:96.7.9 1-0:99.97.0 0-0:96.13.0 0-0:98.1.0
    1-0:1.6.0 0-1:24.1.0 0-1:96.1.0 0-1:96.1.1 0-1:24.2.1 0-1:24.2.3 0-1:24.3.0 0-12:24.2.1 00-01:24.1.0 0-0:24.1.0
    0-01:24.2.1 1-1:31.4.0 0-0:0.0.0 9-99:99.99"""


def test_the_meter_s_own_number_is_not_the_gas_meter_s() -> None:
    """Without a gas meter there is no flat key of one, though a specification has that name for another line."""
    assert strict(read(from_lines(BEFORE, '0-0:96.1.0(4731)', BEHIND), 'V4')) == REST


ANY_CODE = st.sampled_from(CODE_LIST.split())
STREAM = st.lists(st.tuples(ANY_CODE, GROUPS).map(''.join) | st.text(st.characters(max_codepoint=255)), max_size=12)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(STREAM, st.sampled_from(['auto', *NAMES]), st.booleans())
def test_any_lines_give_a_strict_reading_or_none(lines: list[str], specification: str, encrypted: bool) -> None:
    """Whatever the lines say, there is strict JSON or an UnusableTelegramError, also when the checksum holds."""
    chooser = Chooser(specification)
    for found in Framer().feed(from_lines(*lines)):
        if isinstance(found, Telegram):
            try:
                reading = make_reading(replace(found, checksum_holds=True), chooser, 0.0, 0.0, encrypted=encrypted)
            except UnusableTelegramError:
                continue
            strict(reading)
            assert len(set(reading.not_understood)) <= len(lines) + 1


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(st.binary(max_size=200) | st.sampled_from([b'/', b'\r\n', b'1-0:1.8.1(1)\r\n', b'!\r\n']), max_size=12))
def test_any_bytes_give_a_strict_reading_or_none(pieces: list[bytes]) -> None:
    """Any bytes between a header and a checksum are read without another exception."""
    for found in Framer().feed(with_checksum(b'/TST5\r\n1-0:1.8.1(1)\r\n' + b''.join(pieces))):
        if isinstance(found, Telegram):
            try:
                strict(make_reading(found, Chooser(), 0.0, 0.0))
            except UnusableTelegramError:
                continue
