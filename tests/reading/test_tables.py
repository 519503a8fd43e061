"""dsmr_parser's tables: exact patterns, and the names on which all tables agree."""

from decimal import Decimal

import pytest
from dsmr_parser import telegram_specifications
from dsmr_parser.parsers import CosemParser, ValueParser

from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.reading import tables
from dsmr_rest.reading.items import Parsers
from dsmr_rest.reading.tables import (
    OWN_NUMBERS,
    SIGNS_OF_COUNTRY,
    AgreedNames,
    Row,
    entry_of,
    rows,
    value_names,
)
from dsmr_rest.reading.times import MeterTime
from tests.telegrams import of_specification, read_lines

PARSERS = Parsers(MeterTime())
AGREED_NAMES = AgreedNames(PARSERS)


@pytest.mark.parametrize('name', SPECIFICATION_NAMES)
def test_the_rows_are_those_of_the_library(name: str) -> None:
    """Every row of a table is there, in its order, with the library's own pattern, name and parser."""
    table = getattr(telegram_specifications, name)
    expected = [tuple(row[key] for key in ('obis_reference', 'value_name', 'value_parser'))
                for row in table['objects']]  # fmt: skip
    assert [tuple(row) for row in rows(name)][: len(expected)] == expected
    assert {row.name for row in rows(name)} <= value_names()


def test_a_further_row_is_used_as_the_library_s_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A code that a table lacks is added in one place, and is read, chosen and described from then on."""
    row = Row(r'^\d-\d:77\.7\.0.+?\r\n', 'NOISE_LEVEL', CosemParser(ValueParser(Decimal)))
    monkeypatch.setitem(tables.FURTHER_ROWS, 'V5', (row,))
    reading = read_lines('1-3:0.2.8(50)', '1-0:77.7.0(12.5*dB)', specification='auto')
    assert reading.document['noiseLevel'] == {'value': 12.5, 'unit': 'dB'}
    lines, document = of_specification('V5')
    assert b':77.7.0(' in lines
    assert 'noiseLevel' in document


def test_the_names_that_are_looked_for_are_in_the_tables() -> None:
    """The library has not given other names to the meter's own number and to the signs of a country."""
    assert {*OWN_NUMBERS, *SIGNS_OF_COUNTRY} <= value_names()


def matches(specification: str, line: str) -> list[str]:
    """The names that a table has for a line."""
    entries = [entry_of(row, PARSERS) for row in rows(specification)]
    return [entry.name for entry in entries if entry.pattern.match(line)]


@pytest.mark.parametrize(
    ('specification', 'line', 'names'),
    [
        ('V5', '1-0:1.8.1(1)', ['ELECTRICITY_USED_TARIFF_1']),
        ('V5', '1-0:1.8.1*255(1)', ['ELECTRICITY_USED_TARIFF_1']),
        ('V5', '1-0:1.8.1.255(1)', ['ELECTRICITY_USED_TARIFF_1']),
        ('V5', '1-0:1.8.1 (1)', ['ELECTRICITY_USED_TARIFF_1']),
        ('V5', '1-0:1.8.1*01(1)', []),  # of the last billing period
        ('V5', '1-0:1.8.10(1)', []),
        ('V5', '1-0:1.8.1x(1)', []),
        ('V5', '1-0:1.8.1', []),
        ('V5', '0-12:24.2.1(1)', ['MBUS_METER_READING']),
        ('V5', '0-0:24.2.1(1)', []),
        ('V5', '0-256:24.2.1(1)', []),
        ('V5', '1-3:0.2.8(50)', ['P1_MESSAGE_HEADER']),
        ('V5', '1-0:0.2.8(1EA43311)', []),  # the signature of the firmware
        ('Q3D', '0-0:96.1.255*255(1)', ['Q3D_EQUIPMENT_SERIALNUMBER']),
    ],
)
def test_a_pattern_is_for_the_lines_that_the_library_means(
    specification: str, line: str, names: list[str]
) -> None:
    """It knows all channels, ends where the code ends, and takes neither past values nor another code."""
    assert matches(specification, line) == names


@pytest.mark.parametrize(
    ('line', 'name'),
    [
        ('1-0:1.8.3(1)', 'ELECTRICITY_USED_TARIFF_3'),
        ('1-0:2.8.0(1)', 'ELECTRICITY_EXPORTED_TOTAL'),
        ('1-0:21.7.0(1)', 'INSTANTANEOUS_ACTIVE_POWER_L1_POSITIVE'),
        ('1-0:14.7.0(1)', 'FREQUENCY'),
        ('1-0:3.7.0(1)', 'CURRENT_REACTIVE_IMPORTED'),
        ('0-0:17.0.0(1)', 'ACTUAL_TRESHOLD_ELECTRICITY'),
        ('0-0:96.3.10(1)', 'ACTUAL_SWITCH_POSITION'),
        ('0-2:24.3.0(1)', 'GAS_METER_READING'),
    ],
)
def test_the_tables_agree_on_a_name(line: str, name: str) -> None:
    """All tables that know the line, be it one, call it so."""
    entry = AGREED_NAMES.entry(line)
    assert entry
    assert entry.name == name


@pytest.mark.parametrize(
    'line',
    [
        '1-0:99.9.9(1)',  # that no table knows
        '0-0:96.1.0(1)',  # on which tables differ
        '0-0:42.0.0(1)',
        '0-1:24.1.0(003)',
        '1-1:31.4.0(1)',
        '1-0:31.4.0(1)',  # a fuse in two countries, an average elsewhere
        '1-0:51.4.0(1)',
        '1-0:1.4.0(1)',  # whose name says that it is Belgian
        '1-0:1.6.0(1)',
        '0-0:98.1.0(1)',
        '1-0:9.7.0(1)',
        '0-0:96.13.2(1)',
        '1-0:0.0.0(1)',
        '1-0:0.2.8(1)',
    ],
)
def test_a_name_of_one_country_is_no_agreed_name(line: str) -> None:
    """A name on which tables differ, or that is one country's own, is not given to the meters of others."""
    assert AGREED_NAMES.entry(line) is None
