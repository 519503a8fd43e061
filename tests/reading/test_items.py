"""Groups to items of the document: by the kinds of line that dsmr_parser has, or by their form."""

import json
from decimal import Decimal
from typing import Any

import pytest
from dsmr_parser.parsers import CosemParser, DSMRObjectParser, MBusParser, ValueParser
from dsmr_parser.value_types import timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.reading.items import Parsers
from dsmr_rest.reading.lines import UnreadableLineError
from dsmr_rest.reading.tables import rows
from dsmr_rest.reading.times import MeterTime

PARSERS = Parsers(MeterTime())

UNKNOWN_KINDS = {
    'a parser of no known class': DSMRObjectParser(ValueParser(str)),
    'a type that JSON does not have': CosemParser(ValueParser(complex)),
    'three groups': MBusParser(ValueParser(timestamp), ValueParser(str), ValueParser(str)),
    'two groups without time': MBusParser(ValueParser(str), ValueParser(Decimal)),
}


@pytest.mark.parametrize('kind', UNKNOWN_KINDS)
@pytest.mark.parametrize('groups', [['1'], ['240115103000W', '1'], ['1', '2', '3']])
def test_a_kind_of_line_from_a_newer_library_is_unreadable(kind: str, groups: list[str]) -> None:
    """What this version does not know costs the line, when it is read and not before."""
    parser = PARSERS.line_parser(UNKNOWN_KINDS[kind])
    with pytest.raises(UnreadableLineError):
        parser.parse(groups)


@given(st.from_regex(r'\A-?[0-9]{1,30}(\.[0-9]{0,30})?\Z'))
def test_a_number_is_that_of_its_decimal_digits(text: str) -> None:
    """The binary fraction is the nearest to the digits, as of dsmr_parser's Decimal."""
    item = PARSERS.line_parser(CosemParser(ValueParser(Decimal))).parse([f'{text}*kWh'])
    assert item == {'value': float(Decimal(text)), 'unit': 'kWh'}


LIBRARY_PARSERS = [row.library_parser for name in SPECIFICATION_NAMES for row in rows(name)]
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
@given(st.sampled_from(LIBRARY_PARSERS), st.lists(GROUP, min_size=1, max_size=9))
def test_any_groups_are_json_or_unreadable(library_parser: Any, groups: list[str]) -> None:
    """No group of a line raises another exception, or becomes what JSON cannot say."""
    try:
        item = PARSERS.line_parser(library_parser).parse(groups)
    except UnreadableLineError:
        return
    assert json.loads(json.dumps(item, allow_nan=False)) == item


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.lists(GROUP, min_size=1, max_size=9))
def test_any_groups_have_a_form(groups: list[str]) -> None:
    """Every line with groups has an item, of which nothing is lost that is no number or time."""
    item = PARSERS.item_by_form(groups)
    assert json.loads(json.dumps(item, allow_nan=False)) == item
    assert set(item) in ({'value', 'unit'}, {'datetime', 'value', 'unit'}, {'groups'})
    if 'groups' in item:
        assert item['groups'] == groups


TIMED = MBusParser(ValueParser(timestamp), ValueParser(Decimal))
STAMP, TIME = '240115103000W', '2024-01-15T10:30:00+01:00'


@pytest.mark.parametrize(
    ('groups', 'item'),
    [
        ([STAMP, '02.589*kW'], (TIME, 2.589, 'kW')),
        (['02.589*kW', STAMP], (TIME, 2.589, 'kW')),
        (['02.589*kW', '240115103000'], (TIME, 2.589, 'kW')),
        (['240115103000', '02.589'], (TIME, 2.589, None)),
        (['632525252525W', '00000.000'], (None, 0.0, None)),
        (['00000.000', '632525252525W'], (None, 0.0, None)),
        (['000000000000', '00000000'], (None, 0.0, None)),
        (['240115103000s', '00000.000'], (None, 0.0, None)),
        (['000012345678', STAMP], (TIME, 12345678.0, None)),
        (['240115103000*Wh', STAMP], (TIME, 240115103000.0, 'Wh')),
        ([STAMP, ''], (TIME, None, None)),
        (['', STAMP], (TIME, None, None)),
        (['', '02.589*kW'], (None, 2.589, 'kW')),
        (['', ''], (None, None, None)),
    ],
)
def test_a_timed_quantity_has_its_groups_in_either_order(
    groups: list[str], item: tuple[str | None, float | None, str | None]
) -> None:
    """The group that is a time or a known mark for none is the time, wherever it is, and the other is the number."""
    time, value, unit = item
    expected = {'datetime': time, 'value': value, 'unit': unit}
    assert PARSERS.line_parser(TIMED).parse(groups) == expected


@pytest.mark.parametrize(
    'groups',
    [
        ['02.589*kW'],
        [STAMP],
        [STAMP, STAMP],
        [STAMP, '240115103000'],
        ['240115103000', '000000000000'],
        ['02.589*kW', '03.000*kW'],
        ['000012345678', '02.589*kW'],
        ['noon', '02.589*kW'],
        [STAMP, 'ON'],
        [STAMP, '1*2*3'],
        [STAMP, '02.589*kW', ''],
    ],
)
def test_what_is_no_time_and_number_is_no_timed_quantity(groups: list[str]) -> None:
    """Two times, two numbers or a text have neither a time nor a value under this name."""
    with pytest.raises(UnreadableLineError):
        PARSERS.line_parser(TIMED).parse(groups)


def failure_log() -> Any:
    return next(row.library_parser for row in rows('V5') if '99\\.97' in row.pattern)


@pytest.mark.parametrize('code', ['0-0:96.7.19', '0-0:96.7.9', '', 'x'])
def test_a_failure_log_is_read_by_the_form_of_its_entries(code: str) -> None:
    """Whatever the code of the entries is, they have a time and a number, in either order."""
    groups = ['3', code, STAMP, '0000000240*s', '0000000008*s', '000000000000W', STAMP, '4.5*min']
    log = PARSERS.line_parser(failure_log()).parse(groups)
    assert log == {
        'buffer_length': 3,
        'buffer_type': code or None,
        'buffer': [
            {'datetime': TIME, 'value': 240, 'unit': 's'},
            {'datetime': None, 'value': 8, 'unit': 's'},
            {'datetime': TIME, 'value': 4.5, 'unit': 'min'},
        ],
    }
    assert isinstance(log, dict)
    assert type(log['buffer'][0]['value']) is int
