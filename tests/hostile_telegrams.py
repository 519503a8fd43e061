"""Hypothesis strategies of hostile telegrams: whole ones, as they come from the line, and the groups of one bad line.

The grammar is that of a telegram, so that what is hostile gets past the framing: header lines, OBIS codes that the
specifications know and codes that resemble them, values of the kinds that their lines have, and then numbers of any
length, units that are none, times that never were, brackets that do not match, and every byte that is not a line end.
Until the checksum is added all of it is text, one character for each byte (latin-1).
"""

import re
from collections.abc import Callable
from datetime import datetime

from hypothesis import strategies as st

from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.reading.mbus import KINDS
from dsmr_rest.reading.tables import rows
from dsmr_rest.simulated.telegrams import with_checksum
from tests.telegrams import of_specification

TOO_LONG_FOR_INT = 4301
"""Digits from which int() raises ValueError."""
LONG = '9' * TOO_LONG_FOR_INT

Text = st.SearchStrategy[str]


def _tails() -> list[str]:
    """What follows the channel in each OBIS code of the specifications, such as 1.8.1."""
    tails = set()
    for name in SPECIFICATION_NAMES:
        for row in rows(name):
            _, _, pattern = row.pattern.partition(':')
            tail, _, _ = pattern.partition('.+?')
            tail = tail.replace('\\.', '.')
            for choice in (r'\1', r'\2'):
                tails.add(re.sub(r'\[(.)(.)\]', choice, tail))
    return sorted(tails)


@st.composite
def _mostly(draw: st.DrawFn, usual: Text, unusual: Text) -> str:
    """Three times out of four the usual text; one_of() would choose each of all alternatives equally often."""
    if draw(st.integers(0, 3)) < 3:
        return draw(usual)
    return draw(unusual)


def _joined(parts: st.SearchStrategy[list[str]]) -> Text:
    return parts.map(''.join)


# Texts

ANY_CHARACTER = st.characters(max_codepoint=255, exclude_characters='\n')
ANY_TEXT = st.text(ANY_CHARACTER, max_size=20)
ODD_TEXTS = st.sampled_from(
    [
        *('\x1b[2J\x1b[31m', '\x9b31m', '\r', '\x00', '\xff' * 8, '\x07\x08', '\x85', '\xa0'),
        *('"', '\\', '\\n', '\\"', '{}', '"} 1', ' # {} 1', ',a="b"', '%s%n', "'; --", '<script>'),
        *('NaN', 'null', '-0', '!', '!1234', '/', '/ABC5', 'http://a/b', '*', '**', '1*2*3'),
        *('0-0:96.7.19', '1-0:1.8.1', '0-1:24.2.1', '\xdf', '\xb5', '\xb2', 'x' * 300),
    ]
)
HEX_TEXTS = st.binary(max_size=24).map(bytes.hex) | st.text('0123456789ABCDEFabcdefg', max_size=9)
TEXTS = HEX_TEXTS | ODD_TEXTS | ANY_TEXT

# Numbers

DIGITS = st.text('0123456789', min_size=1, max_size=32)
WHOLE_NUMBERS = st.integers(0, 999_999).map('{:06}'.format)
DECIMALS = st.builds('{}.{}'.format, DIGITS, DIGITS)
SOUND_NUMBERS = WHOLE_NUMBERS | DECIMALS
ODD_NUMBERS = st.sampled_from(
    [
        *('', '0', '-1', '-000.500', '+1', '- 1', ' 1', '1 ', '1\t', '5.', '.5', '.', '-', '--1'),
        *('1e5', '1E999', '-1e999', '1e-400', 'NaN', 'nan', 'Infinity', '-inf', '0x1F', '1_000'),
        *('1,5', '1.2.3', '\xb2', '\xbc', '\xa05', '1\x00', '\x001', '00:01', '1/2'),
        *('9' * 30, '9' * 31, '9' * 309, '-' + '9' * 30, '1' + '0' * 29, '1' + '0' * 30),
        *('9' * 30 + '.' + '9' * 30, '0.' + '0' * 29 + '1', '0' * 40 + '1'),
    ]
)
NUMBERS = SOUND_NUMBERS | ODD_NUMBERS
UNITS = st.sampled_from(
    [
        *(
            'kWh',
            'Wh',
            'MWh',
            'kW',
            'W',
            'MW',
            'V',
            'A',
            'mA',
            'kA',
            'kV',
            'Hz',
            'kHz',
            'm3',
            'dm3',
            'GJ',
            's',
            'kvar',
        ),
        *('', ' ', 'KWH', 'm\xb3', 'kWh*', '*kWh', 'kWh\x00'),
    ]
)
SOUND_AMOUNTS = st.builds('{}*{}'.format, SOUND_NUMBERS, UNITS)
ODD_AMOUNTS = st.builds('{}*{}'.format, NUMBERS, UNITS | TEXTS)
AMOUNTS = SOUND_AMOUNTS | NUMBERS | ODD_AMOUNTS

# Times

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31))  # noqa: DTZ001 the season is the zone
SOUND_TIMES = st.builds('{:%y%m%d%H%M%S}{}'.format, MOMENTS, st.sampled_from(['S', 'W', '']))
ODD_TIMES = st.sampled_from(
    [
        *('', '632525252525W', '700101010000W', '000000000000W', '000000000000', '000101000000W'),
        *('240229120000W', '230229120000W', '240715246060S', '681231235959S', '690101000000W'),
        *('240331023000', '241027023000', '240715103000s', '240715103000X', '240715103000SS'),
        *('24071510300', '24071510300\xb2W', '-40715103000S', '240715103000S*W'),
    ]
)
TIMES = SOUND_TIMES | ODD_TIMES

# Groups

SOME_GROUPS = AMOUNTS | TIMES | TEXTS
BRACKETS = st.sampled_from(
    ['({})'] * 8 + ['({}', '{})', '(({}))', '()({})', '{}', '( {} )', '[{}]']
)
ANY_GROUPS = _joined(st.lists(st.builds(str.format, BRACKETS, SOME_GROUPS), max_size=6))
COUNTS = st.integers(-1, 11).map(str) | ODD_NUMBERS
FAILURES = st.builds('({})({})'.format, TIMES, st.builds('{}*s'.format, WHOLE_NUMBERS) | AMOUNTS)
FAILURE_CODES = st.sampled_from(['0-0:96.7.19', '0-0:96.7.9', '', 'x', '0-0:96.7.19*s'])
FAILURE_LOGS = st.builds(
    '({})({}){}'.format,
    COUNTS,
    FAILURE_CODES,
    _joined(st.lists(FAILURES, max_size=11)),
)
PEAKS = st.builds('({})({})({})'.format, TIMES, TIMES, AMOUNTS)
PEAK_HISTORIES = st.builds(
    '({})(1-0:1.6.0)(1-0:1.6.0){}'.format, COUNTS, _joined(st.lists(PEAKS, max_size=4))
)
DEVICE_TYPES = st.just('003') | st.sampled_from([f'{kind:03}' for kind in KINDS]) | NUMBERS
GAS_OF_DSMR_2 = st.builds(
    '({})({})({})({})(0-1:24.2.1)({}){}({})'.format,
    TIMES,
    st.sampled_from(['00', '', 'x']),
    st.sampled_from(['60', '-1', 'x']),
    st.sampled_from(['1', '2', '', 'x']),
    UNITS | TEXTS,
    st.sampled_from(['\r\n', '\n', '\r\n \t', '\r\n\r\n', '']),
    NUMBERS | AMOUNTS,
)
BAD_GROUPS = st.one_of(
    st.builds('({})'.format, AMOUNTS),
    st.builds('({})'.format, TEXTS),
    st.builds('({})({})'.format, TIMES, AMOUNTS),
    st.builds('({})({})'.format, AMOUNTS, TIMES),
    st.builds('({})({})'.format, TIMES, TIMES),
    FAILURE_LOGS,
    PEAK_HISTORIES,
    ANY_GROUPS,
)
"""What may stand in place of the groups of a line; some of it can be read."""

# Lines

CHANNELS = st.sampled_from(
    [
        *('1-0', '1-0', '1-0', '0-0', '0-0', '1-3', '0-1', '0-2', '0-3', '0-4', '0-9', '0-10'),
        *('0-255', '0-256', '0-01', '00-01', '000-001', '1-1', '9-9'),
    ]
)
TAILS = st.sampled_from(_tails())
ENDS_OF_CODES = st.sampled_from(
    [''] * 8 + ['*255', '.255', '*01', '*', '0', '.1', ' ', '\x00', 'x']
)
KNOWN_CODES = st.builds('{}:{}{}'.format, CHANNELS, TAILS, ENDS_OF_CODES)
UNKNOWN_CODES = st.sampled_from(
    [
        '1-0:15.7.0',
        '0-0:96.50.68',
        '1-0:1.8.5',
        '1-0:1.8.63',
        '0-1:24.9.0',
        '0-0:F.F',
        'C.1.0',
        '1-0:x',
    ]
)
CODES = KNOWN_CODES | UNKNOWN_CODES


def _device_lines(channel: str, kind: str, identifier: str, groups: str) -> str:
    """The lines of an M-Bus device: its type, its identifier and its reading."""
    lines = (
        f'0-{channel}:24.1.0({kind})',
        f'0-{channel}:96.1.0({identifier})',
        f'0-{channel}:24.2.1{groups}',
    )
    return '\r\n'.join(lines)


SOUND_MEASUREMENTS = st.builds('({})({}*m3)'.format, SOUND_TIMES, SOUND_NUMBERS)
DEVICES = st.builds(
    _device_lines,
    st.sampled_from(['1', '2', '3', '4', '12', '255', '0']),
    DEVICE_TYPES,
    TEXTS,
    _mostly(SOUND_MEASUREMENTS, BAD_GROUPS),
)
HOSTILE_LINES = st.one_of(
    st.builds('{}{}'.format, CODES, BAD_GROUPS),
    DEVICES,
    st.builds('1-0:99.97.0{}'.format, FAILURE_LOGS),
    st.builds('0-0:98.1.0{}'.format, PEAK_HISTORIES),
    st.builds('0-{}:24.3.0{}'.format, st.integers(0, 4), GAS_OF_DSMR_2),
    ANY_TEXT,
)
LONG_LINES = [
    *(f'0-{LONG}:24.1.0(003)', f'{LONG}-0:1.8.1(1*kWh)', f'1-0:1.8.{LONG}(1*kWh)', LONG),
    *(f'1-3:0.2.8({LONG})', f'0-0:96.1.4({LONG})', f'0-0:96.14.0({LONG})'),
    *(f'1-0:1.8.1({LONG}*kWh)', f'1-0:1.8.1(0.{LONG}*kWh)', f'1-0:1.8.1(-{LONG[1:]})'),
    *(f'1-0:1.7.0(1*{LONG})', f'0-0:96.7.21({LONG})', f'1-0:32.32.0(-{LONG})'),
    *(f'0-1:24.1.0({LONG})', f'0-1:24.1.0(0{"0" * len(LONG)}3)', f'0-1:96.1.0({LONG})'),
    *(f'0-1:24.2.1(240115103000W)({LONG}*m3)', f'0-1:24.2.1({LONG}W)(1*m3)'),
    *(f'1-0:99.97.0({LONG})(0-0:96.7.19)', f'0-0:98.1.0({LONG})(1-0:1.6.0)(1-0:1.6.0)'),
    *(
        f'0-1:24.3.0(240115103000)(00)({LONG})(1)(0-1:24.2.1)(m3)\r\n(1)',
        '1-0:1.8.1' + '(1)' * 4000,
    ),
]
"""At most one is in a telegram, which would be too long with more."""


def _lines_of_specification(name: str) -> list[str]:
    """A sound line for each object of a specification; that of DSMR 2.2 for gas contains a line end."""
    telegram, _ = of_specification(name)
    _, *others = re.split(r'\r\n(?=\d)', telegram.decode('latin-1'))
    last_line, _, _ = others[-1].partition('\r\n!')
    return [*others[:-1], last_line]


def _with_other_groups(line: str, groups: str) -> str:
    code, _, _ = line.partition('(')
    return code + groups


def _with_other_number(line: str, number: str) -> str:
    """The line with another number in its last group, and the same unit."""
    return re.sub(r'\d[\d.]*(?=(\*\w+)?\)$)', number, line)


def _lines(name: str) -> st.SearchStrategy[list[str]]:
    """Lines of a telegram of a specification, of which most are sound."""
    sound_lines = st.sampled_from(_lines_of_specification(name))
    damaged_lines = st.one_of(
        st.builds(_with_other_groups, sound_lines, BAD_GROUPS),
        st.builds(_with_other_number, sound_lines, ODD_NUMBERS),
    )
    line = _mostly(sound_lines, damaged_lines | HOSTILE_LINES)
    return st.lists(line, min_size=4, max_size=20)


LINES = {name: _lines(name) for name in SPECIFICATION_NAMES}


SOUND_HEADERS = st.sampled_from(
    [
        *('/ISK5\\2M550T-1013', '/ISk5\\2MT382-1000', '/Lux5\\253769484_A', '/KFM5KAIFA-METER'),
        *('/XMX5LGBBFFB231158062', '/HLY5/D545-METER', '/FLU5\\253769484_A', '/EST5\\253710000_A'),
    ]
)
HEADERS = SOUND_HEADERS | st.builds('/{}'.format, TEXTS) | st.builds('/ABC5\\{}'.format, TEXTS)

# Telegrams


def _without_checksum(text: str) -> bytes:
    return f'{text}!\r\n'.encode('latin-1')


def _with_small_letters(text: str) -> bytes:
    telegram = with_checksum(text)
    return telegram[:-6] + telegram[-6:].lower()


def _with_blanks_after_checksum(text: str) -> bytes:
    telegram = with_checksum(text)
    return telegram[:-2] + b' \t\x00\r\n'


def _with_wrong_checksum(text: str) -> bytes:
    telegram = with_checksum(text)
    wrong_digit = b'%X' % (15 - int(telegram[-3:-2], 16))
    return telegram[:-3] + wrong_digit + b'\r\n'


CHECKSUMS: list[Callable[[str], bytes]] = [
    *[with_checksum] * 8,
    _without_checksum,
    _with_small_letters,
    _with_blanks_after_checksum,
    _with_wrong_checksum,
]


@st.composite
def hostile_telegrams(draw: st.DrawFn) -> bytes:
    """A telegram as it comes from the line, with the checksum that it should have, another or none.

    Its lines are sound ones of a specification, sound ones with other groups, and hostile ones.
    """
    name = draw(st.sampled_from(SPECIFICATION_NAMES))
    lines = draw(LINES[name])
    long_line = draw(st.sampled_from([''] * 30 + LONG_LINES))
    line_end = draw(st.sampled_from(['\r\n', '\r\n', '\r\n', '\n', '\r\r\n', ' \r\n']))
    text = ''.join(line + line_end for line in [draw(HEADERS), long_line, *lines])
    add_checksum = draw(st.sampled_from(CHECKSUMS))
    return add_checksum(text)


SPECIFICATIONS = st.sampled_from([*['auto'] * 9, *SPECIFICATION_NAMES])
"""Values of [meter] specification."""
