"""Writes the tables of keys into docs/reading.md, between its two marks.

python -m docs.make_keys

Which keys there are, in which specifications and with which OBIS codes, comes from dsmr_parser's tables. What a key
means and its units come from the descriptions in dsmr_rest/api/openapi.json, where clients find them too.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.reading.document import camel_case
from dsmr_rest.reading.quantities import GAS_COPIES
from dsmr_rest.reading.tables import rows

ROOT = Path(__file__).parent.parent
PAGE = ROOT / 'docs' / 'reading.md'
BEGIN = '<!-- The tables are made by python -m docs.make_keys -->'
END = '<!-- End of the tables -->'

DUTCH = {'V2_2': '2.2', 'V3': '3', 'V4': '4', 'V5': '5'}
"""The versions of DSMR, by the names of their specifications."""
COUNTRIES = {
    'BELGIUM_FLUVIUS': 'BE',
    'LUXEMBOURG_SMARTY': 'LU',
    'MSN': 'LU',
    'SWEDEN': 'SE',
    'Q3D': 'DE',
    'SAGEMCOM_T210_D_R': 'AT',
    'AUSTRIA_ENERGIENETZE_STEIERMARK': 'AT',
    'ISKRA_IE': 'BE',
    'EON_HUNGARY': 'HU',
}
"""The countries of all other specifications, by their names."""
KINDS = {
    'Text': 'text',
    'Time': 'time',
    'Count': 'whole number',
    'Factor': 'number',
    'Code': 'whole number or text',
}
"""What a value without a unit is, by its schema in openapi.json."""
MBUS_CODES = ('24.1.', '24.2.', '24.3.', '24.4.')
"""How the OBIS codes begin that only an M-Bus device has: its type, its readings and its valve."""
MBUS_CHANNEL = '-[1-9]:'
"""The channel in dsmr_parser's patterns for the lines of M-Bus devices only."""

_DESCRIPTION: dict[str, Any] = json.loads((ROOT / 'dsmr_rest' / 'api' / 'openapi.json').read_text())
_SCHEMAS = _DESCRIPTION['components']['schemas']


@dataclass(frozen=True)
class Key:
    """A key of the reading. `codes` are its OBIS codes without A-B, `sent_by` the specifications that have it."""

    name: str
    codes: tuple[str, ...]
    sent_by: tuple[str, ...]
    has_device_pattern: bool

    @property
    def meaning(self) -> str:
        """The description in openapi.json without the codes with which it begins."""
        codes = ' or '.join(self.codes)
        described = _SCHEMAS['Objects']['properties']
        if self.name not in described:
            raise SystemExit(
                f'openapi.json: components.schemas.Objects lacks {self.name}: write there what it means'
            )
        description: str = described[self.name]['description']
        return description.removeprefix(f'{codes}: ')

    @property
    def unit(self) -> str:
        """The units that meters send; where there is none, what the value is, in italics."""
        schema = _SCHEMAS['Objects']['properties'][self.name]
        units = units_in(schema)
        if units:
            return ', '.join(units)
        kind = KINDS[_referred(schema)]
        return f'*{kind}*'

    @property
    def is_copied(self) -> bool:
        """Whether the gas meter's value is at the top of the reading too."""
        return self.name in GAS_COPIES

    @property
    def is_of_device(self) -> bool:
        """Whether M-Bus devices have it."""
        has_device_code = self.codes[0].startswith(MBUS_CODES)
        return self.has_device_pattern or has_device_code or self.is_copied

    @property
    def is_dutch(self) -> bool:
        return not DUTCH.keys().isdisjoint(self.sent_by)


def codes_in(pattern: str) -> tuple[str, ...]:
    r"""The OBIS codes of one of dsmr_parser's patterns, without A-B: '^\d-[1-9]:24\.2\.[13].+?\r\n' has two."""
    _, _, after_channel = pattern.partition(':')
    code, _, _ = after_channel.partition('.+?')
    code = code.replace('\\.', '.')
    choice = re.search(r'\[(\d+)\]', code)
    if choice is None:
        return (code,)
    return tuple(code.replace(choice[0], digit) for digit in choice[1])


def units_in(schema: Mapping[str, Any]) -> list[str]:
    """The units in the examples of a schema, of what it refers to, or of the items of its list."""
    properties = schema.get('properties', {})
    if 'unit' in properties:
        return list(properties['unit'].get('examples', []))
    if 'buffer' in properties:
        return units_in(properties['buffer'])
    if 'items' in schema:
        return units_in(schema['items'])
    if '$ref' in schema:
        return units_in(_SCHEMAS[_referred(schema)])
    return []


def _referred(schema: Mapping[str, Any]) -> str:
    """The name of the schema that a schema refers to."""
    _, _, name = schema['$ref'].rpartition('/')
    return str(name)


def all_keys() -> list[Key]:
    """Every key of every specification, in the order of the specifications."""
    patterns: dict[str, str] = {}
    sent_by: dict[str, list[str]] = {}
    for specification in SPECIFICATION_NAMES:
        for table_row in rows(specification):
            name = camel_case(table_row.name)
            patterns[name] = table_row.pattern
            sent_by.setdefault(name, []).append(specification)
    keys = []
    for name, pattern in patterns.items():
        codes = codes_in(pattern)
        key = Key(
            name=name,
            codes=codes,
            sent_by=tuple(sent_by[name]),
            has_device_pattern=MBUS_CHANNEL in pattern,
        )
        keys.append(key)
    return keys


def senders(specifications: Iterable[str]) -> str:
    """The versions of DSMR and the countries that these specifications are for."""
    versions = [DUTCH[name] for name in specifications if name in DUTCH]
    countries = [COUNTRIES[name] for name in specifications if name not in DUTCH]
    parts = []
    if versions:
        parts.append(f'DSMR {", ".join(versions)}')
    parts += dict.fromkeys(countries)  # each once
    return ', '.join(parts)


def row(key: Key) -> str:
    """The row of a key in the table of those that have it from a line of the telegram."""
    codes = ' or '.join(key.codes)
    return f'| `{key.name}` | {key.meaning} | {key.unit} | {codes} | {senders(key.sent_by)} |'


def copied_row(key: Key) -> str:
    """The row of a key at the top of the reading whose value is copied from the gas meter."""
    return f'| `{key.name}` | {key.meaning} | {key.unit} | | any, with a gas meter |'


def tables() -> str:
    """The text between the marks: keys of Dutch meters, of M-Bus devices, and of other countries' meters only."""
    dutch, of_devices, foreign = [], [], []
    for key in all_keys():
        if key.is_copied:
            dutch.append(copied_row(key))
        if key.is_of_device:
            of_devices.append(row(key))
        elif key.is_dutch:
            dutch.append(row(key))
        else:
            foreign.append(row(key))
    devices: str = _SCHEMAS['Reading']['properties']['mbusDevices']['description']
    dutch.append(f'| `mbusDevices` | {devices} | *list* | | any, with such a device |')
    other_objects: str = _SCHEMAS['OtherObjects']['description']
    other_row = f'| `otherObjects` | {other_objects} | *object* | any other | all |'
    dutch.append(other_row)
    of_devices.append(other_row)
    channel: str = _SCHEMAS['MbusDevice']['properties']['channelId']['description']
    of_devices.insert(0, f'| `channelId` | {channel} | *whole number* | | all |')
    sections = [
        '### Keys of Dutch meters',
        table(dutch),
        '### Keys of each item of `mbusDevices`',
        table(of_devices),
        '### Keys that only meters of other countries send',
        table(foreign),
    ]
    return '\n\n'.join(sections)


def table(rows: Iterable[str]) -> str:
    head = '| key | meaning | unit | OBIS code | sent by |\n|---|---|---|---|---|'
    return '\n'.join([head, *rows])


def page(text: str) -> str:
    """The text of the page with today's tables. Raises ValueError when a mark is missing."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f'{before}{BEGIN}\n\n{tables()}\n\n{END}{after}'


def main() -> None:
    made = page(PAGE.read_text())
    PAGE.write_text(made)


if __name__ == '__main__':
    main()
