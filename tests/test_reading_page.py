"""The tables of keys in docs/reading.md, which docs/make_keys.py makes."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from docs.make_keys import COUNTRIES, DUTCH, PAGE, codes_in, page
from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.reading.document import possible_keys
from dsmr_rest.simulated.telegrams import VERSIONS
from tests.conftest import ROOT
from tests.pages import PAGES
from tests.telegrams import of_specification, of_version, read

TEXT = PAGES['docs/reading.md']
ROW = re.compile(r'^\| `(\w+)` \| (.*) \| (.*) \| (.*) ?\| (.*) \|$', re.MULTILINE)
"""Key, meaning, units, OBIS codes, senders."""
DESCRIPTION = json.loads((ROOT / 'dsmr_rest' / 'api' / 'openapi.json').read_text())
DESCRIBED = DESCRIPTION['components']['schemas']['Objects']['properties']
ENCRYPTED = ('MSN', 'SAGEMCOM_T210_D_R', 'AUSTRIA_ENERGIENETZE_STEIERMARK')


Rows = dict[str, tuple[str, ...]]
"""The rows of a table without their keys, by their keys."""


def tables() -> list[Rows]:
    """The rows of each table: of Dutch meters, of devices, of other countries."""
    found = []
    for text in TEXT.split('\n### ')[1:]:
        rows = {}
        for key, *cells in ROW.findall(text):
            rows[key] = tuple(cell.strip() for cell in cells)
        found.append(rows)
    return found


AT_THE_TOP, OF_DEVICES, FOREIGN = tables()


def test_the_tables_are_current() -> None:
    """`python -m docs.make_keys` would not change the page."""
    assert page(TEXT) == PAGE.read_text()


def test_a_changed_table_is_made_again() -> None:
    """What was edited between the marks is replaced."""
    edited = TEXT.replace('| `frequency` | frequency of the grid |', '| `frequency` | tone |')
    assert edited != TEXT
    assert page(edited) == TEXT


def test_every_possible_key_is_in_a_table() -> None:
    """The keys that a specification can have are in the tables, and no others; channelId is a device's only."""
    assert {*AT_THE_TOP, *OF_DEVICES, *FOREIGN} == possible_keys() | {'channelId'}


def test_every_key_has_a_meaning() -> None:
    """Each description in openapi.json begins with the OBIS codes of the tables, and says what the key means."""
    for key, (meaning, *_) in (AT_THE_TOP | OF_DEVICES | FOREIGN).items():
        assert re.match('[a-z]{2}|M-Bus', meaning), key
    for key, (meaning, _, codes, _) in (FOREIGN | OF_DEVICES).items():
        if key not in ('channelId', 'otherObjects'):
            assert DESCRIBED[key]['description'] == f'{codes}: {meaning}'


@pytest.mark.parametrize('name', SPECIFICATION_NAMES)
def test_a_key_is_where_its_table_says(name: str) -> None:
    """In a reading with every object of a specification, each key is in a table of its place that names the sender."""
    sender = COUNTRIES.get(name) or f'DSMR {DUTCH[name]}'
    telegram, _ = of_specification(name)
    document = read(telegram, name, encrypted=name in ENCRYPTED).document
    devices = document.get('mbusDevices', [])
    for key in document:
        *_, senders = (AT_THE_TOP | FOREIGN)[key]
        assert is_sender(sender, senders), key
    for device in devices:
        for key in device.keys() - {
            'actualSwitchPosition'
        }:  # of the device's switch: see MSN in telegrams.py
            *_, senders = OF_DEVICES[key]
            assert is_sender(sender, senders), key


def is_sender(sender: str, senders: str) -> bool:
    """Whether a cell of the last column includes a version of DSMR or a country."""
    if senders == 'all' or senders.startswith('any, '):
        return True
    return sender.removeprefix('DSMR ') in senders.removeprefix('DSMR ').split(', ')


@pytest.mark.parametrize('version', VERSIONS)
def test_the_units_of_simulated_meters_are_in_the_tables(version: str) -> None:
    """Each value of a simulated meter has a unit of its table, or none where the table has none."""
    document = read(of_version(version)).document
    check_units(document, AT_THE_TOP | FOREIGN)
    for device in document.get('mbusDevices', []):
        check_units(device, OF_DEVICES)


def check_units(items: Mapping[str, Any], rows: Rows) -> None:
    """Compares the units of these items with those in their rows."""
    for key, item in items.items():
        _, shown, *_ = rows[key]
        for unit in units(item):
            if unit is None:
                assert shown.startswith('*'), key
            else:
                assert unit in shown.split(', '), key


def units(item: Any) -> Iterator[str | None]:
    """The units of an item of the document, of the entries of its list or of its log."""
    if isinstance(item, list):
        for entry in item:
            yield from units(entry)
    elif isinstance(item, dict) and 'buffer' in item:
        yield from units(item['buffer'])
    elif isinstance(item, dict) and 'unit' in item:
        yield item['unit']


@pytest.mark.parametrize(
    ('pattern', 'codes'),
    [
        (r'^\d-\d:1\.8\.1.+?\r\n', ('1.8.1',)),
        (r'^\d-[1-9]:24\.2\.[13].+?\r\n', ('24.2.1', '24.2.3')),
        (r'^\d-\d:24\.3\.0.+?\r\n.+?\r\n', ('24.3.0',)),
    ],
)
def test_codes_of_a_pattern(pattern: str, codes: tuple[str, ...]) -> None:
    """A pattern of dsmr_parser stands for one OBIS code, or for one per digit in its brackets."""
    assert codes_in(pattern) == codes
