"""Lines to items of the document: timestamps, groups, and the kinds of line that dsmr_parser has."""

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from dsmr_parser import telegram_specifications
from dsmr_parser.parsers import CosemParser, DSMRObjectParser, MBusParser, ValueParser
from dsmr_parser.value_types import timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.reading.lines import (
    BYTE,
    POSITIVE_BYTE,
    UnreadableLineError,
    device_channel,
    groups_of,
    line_parser,
    local_timestamp,
    object_lines,
)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('200927202614S', '2020-09-27T20:26:14+02:00'),
        ('240115103000W', '2024-01-15T10:30:00+01:00'),
        ('241027023000S', '2024-10-27T02:30:00+02:00'),  # the ambiguous hour, both times
        ('241027023000W', '2024-10-27T02:30:00+01:00'),
        ('240701120000W', '2024-07-01T12:00:00+01:00'),  # a meter that stays on W all summer
        ('240115120000S', '2024-01-15T12:00:00+02:00'),
        ('240701120000', '2024-07-01T12:00:00+02:00'),
        ('240115120000', '2024-01-15T12:00:00+01:00'),
        ('240229000000W', '2024-02-29T00:00:00+01:00'),
        ('700101000000W', '1970-01-01T00:00:00+01:00'),
        ('691231235959W', '1969-12-31T23:59:59+01:00'),
        ('681231235959W', '2068-12-31T23:59:59+01:00'),
        ('000101000000W', '2000-01-01T00:00:00+01:00'),
    ],
)
def test_a_timestamp_is_the_meter_s_own(text: str, expected: str) -> None:
    """The digits stay as they are, with the offset of their suffix, or of the Netherlands without one."""
    moment = local_timestamp(text)
    assert moment
    assert moment.isoformat() == expected


NO_DATES = [
    '632525252525W',
    '632525252525',
    '000000000000W',
    '230229120000W',
    '240115250000W',
    '240115106000W',
    '240115103060W',
    '24011510300W',
    '2401151030000W',
    '240115103000s',
    '240115103000X',
    '240115103000W\n',
    '2401151030',
    '-40115103000W',
    ' 40115103000W',
    '24011510300\u0663W',
    '9' * 5000,
    '',
]


@pytest.mark.parametrize('text', NO_DATES)
def test_what_is_no_date_is_none(text: str) -> None:
    """Meters send impossible dates where they have nothing to say."""
    assert local_timestamp(text) is None


def test_the_groups_of_a_line_are_what_its_brackets_hold() -> None:
    """An empty pair is an empty group, blanks at the end of a group are dropped, what follows the last is ignored."""
    assert groups_of('1-0:1.8.1(1*kWh)( 2 \t)() end') == ['1*kWh', ' 2', '']
    assert groups_of('1-0:1.8.1(1') == []


@pytest.mark.parametrize(
    'line', ['0-0:96.13.0(Tel (06) 1/23)', '1-0:1.8.1(0.1)*kW)', '1-0:1.8.1(1))']
)
def test_brackets_within_a_group_are_unreadable(line: str) -> None:
    """No part of such a line is taken for its value."""
    with pytest.raises(UnreadableLineError):
        groups_of(line)


def test_a_value_on_a_line_of_its_own_belongs_to_a_2_2_gas_reading_only() -> None:
    """The second line of 24.3.0 is joined to the first; after another code, or without one, it is dropped."""
    text = '(0)\n1-0:1.8.1(1)\r\n(2)\r\n0-1:24.3.0(1)(m3)\r\n  (00123.450) \r\nstray\n'
    assert object_lines(text) == ['1-0:1.8.1(1)', '0-1:24.3.0(1)(m3)(00123.450)']


@pytest.mark.parametrize(
    ('code', 'channel'),
    [
        ('0-1:24.1.0', 1),
        ('0-12:24.1.0', 12),
        ('0-255:24.1.0', 255),
        ('00-01:24.1.0', 1),
        ('0-0:96.1.1', None),
        ('1-1:31.4.0', None),
        ('0-256:24.1.0', None),
        ('0-999:24.1.0', None),
        ('0-0001:24.1.0', None),
        (f'0-{"9" * 5000}:24.1.0', None),
        (f'{"0" * 5000}-1:24.1.0', None),
    ],
)
def test_a_channel_is_one_byte(code: str, channel: int | None) -> None:
    """A line is a device's when its medium is 0 and its channel from 1 to 255."""
    assert device_channel(f'{code}(003)') == channel


def test_the_patterns_of_a_byte_match_each_byte_and_no_other_number() -> None:
    """BYTE takes leading zeros, POSITIVE_BYTE neither these nor 0."""
    numbers = range(1200)
    assert [number for number in numbers if re.fullmatch(BYTE, str(number))] == [*range(256)]
    assert [number for number in numbers if re.fullmatch(BYTE, f'{number:03}')] == [*range(256)]
    assert [number for number in numbers if re.fullmatch(POSITIVE_BYTE, str(number))] == [
        *range(1, 256)
    ]
    assert not re.fullmatch(POSITIVE_BYTE, '01')


UNKNOWN_KINDS = {
    'a parser of no known class': DSMRObjectParser(ValueParser(str)),
    'a type that JSON does not have': CosemParser(ValueParser(complex)),
    'three groups': MBusParser(ValueParser(timestamp), ValueParser(str), ValueParser(str)),
}


@pytest.mark.parametrize('kind', UNKNOWN_KINDS)
@pytest.mark.parametrize('groups', [['1'], ['1', '2', '3']])
def test_a_kind_of_line_from_a_newer_library_is_unreadable(kind: str, groups: list[str]) -> None:
    """What this version does not know costs the line, when it is read and not before."""
    parser = line_parser(UNKNOWN_KINDS[kind])
    with pytest.raises(UnreadableLineError):
        parser.parse(groups)


@given(st.from_regex(r'\A-?[0-9]{1,30}(\.[0-9]{0,30})?\Z'))
def test_a_number_is_that_of_its_decimal_digits(text: str) -> None:
    """The binary fraction is the nearest to the digits, as of dsmr_parser's Decimal."""
    item = line_parser(CosemParser(ValueParser(Decimal))).parse([f'{text}*kWh'])
    assert item == {'value': float(Decimal(text)), 'unit': 'kWh'}


LIBRARY_PARSERS = [
    row['value_parser']
    for name in SPECIFICATION_NAMES
    for row in getattr(telegram_specifications, name)['objects']
]
GROUP = st.text(
    st.characters(max_codepoint=255, exclude_characters='()'), max_size=12
) | st.sampled_from(
    [
        '',
        '1',
        '-1',
        '9' * 5000,
        '-',
        '*',
        '1*2*3',
        '1' * 5000 + '*m3',
        '\xb2',
        '240115103000W',
        '0-0:96.7.19',
        '1E999',
    ]
)


@settings(deadline=None, max_examples=500, derandomize=True)
@given(st.sampled_from(LIBRARY_PARSERS), st.lists(GROUP, max_size=9))
def test_any_groups_are_json_or_unreadable(library_parser: Any, groups: list[str]) -> None:
    """No group of a line raises another exception, or becomes what JSON cannot say."""
    try:
        item = line_parser(library_parser).parse(groups)
    except UnreadableLineError:
        return
    assert json.loads(json.dumps(item, allow_nan=False)) == item
