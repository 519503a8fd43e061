"""Every specification that the library knows: set by name, found automatically, and left unchanged in the library."""

import gc
import tracemalloc
from itertools import cycle, islice
from typing import Any

import pytest
from dsmr_parser.clients import settings as library_settings

from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.reading.document import make_reading, possible_keys
from dsmr_rest.reading.specification import Chooser
from dsmr_rest.reading.tables import rows
from dsmr_rest.reading.telegram import Telegram
from tests.telegrams import framed, from_lines, of_specification, of_version, read, usable_readings

ENCRYPTED = ('MSN', 'SAGEMCOM_T210_D_R', 'AUSTRIA_ENERGIENETZE_STEIERMARK')
PLAIN_NAMES = [name for name in SPECIFICATION_NAMES if name not in ENCRYPTED]
SAME_AS = {'V3': 'V2_2', 'AUSTRIA_ENERGIENETZE_STEIERMARK': 'SAGEMCOM_T210_D_R'}


def test_all_of_the_library_s_specifications_are_offered() -> None:
    """The setting offers all tables that are read, and none of the tables that the library builds them from."""
    assert set(SPECIFICATION_NAMES) == {
        *(
            'V2_2',
            'V3',
            'V4',
            'V5',
            'BELGIUM_FLUVIUS',
            'LUXEMBOURG_SMARTY',
            'MSN',
            'SWEDEN',
            'EON_HUNGARY',
            'ISKRA_IE',
        ),
        *('Q3D', 'SAGEMCOM_T210_D_R', 'AUSTRIA_ENERGIENETZE_STEIERMARK'),
    }


@pytest.mark.parametrize('name', SPECIFICATION_NAMES)
def test_each_object_comes_out_when_the_specification_is_set(name: str) -> None:
    """A line for each of the library's objects is served under the object's camelCase name with its value."""
    data, expected = of_specification(name)
    reading = read(data, name, encrypted=name in ENCRYPTED)
    assert reading.document == expected
    assert (reading.specification, reading.unsure, reading.not_understood) == (name, False, ())
    assert set(reading.document) <= possible_keys()


@pytest.mark.parametrize('name', SPECIFICATION_NAMES)
def test_each_object_comes_out_when_the_specification_is_found(name: str) -> None:
    """With `specification = auto` the same is served, by that specification or the one it is another name for."""
    data, expected = of_specification(name)
    reading = read(data, encrypted=name in ENCRYPTED)
    assert reading.specification == SAME_AS.get(name, name)
    assert (reading.document, reading.unsure) == (expected, False)


@pytest.mark.parametrize('name', PLAIN_NAMES)
def test_a_wrong_checksum_is_never_served(name: str) -> None:
    """Whatever the lines of a telegram look like, a checksum that is there must hold."""
    data, _ = of_specification(name)
    end = data.rindex(b'!') + 1
    wrong = data[:end] + b'0000\r\n'
    for specification in (name, 'auto'):
        assert usable_readings(wrong, Chooser(specification)) == []


@pytest.mark.parametrize(
    ('version', 'name'),
    [('5.0', 'V5'), ('4.2', 'V4'), ('2.2', 'V2_2'), ('belgium', 'BELGIUM_FLUVIUS')],
)
def test_a_simulated_meter_is_understood_completely(version: str, name: str) -> None:
    """The choice is right and sure, and every line is understood."""
    reading = read(of_version(version))
    assert (reading.specification, reading.unsure) == (name, False)
    assert reading.not_understood == ()


@pytest.mark.parametrize(
    ('total', 'name'), [((), 'V5'), (('1-0:1.8.0(000001.000*kWh)',), 'EON_HUNGARY')]
)
def test_a_version_line_decides_unless_the_total_energy_is_sent(
    total: tuple[str, ...], name: str
) -> None:
    """A meter that states 50 is Dutch; one that also sends the total is read by what knows the most of its lines."""
    hungarian_lines = [f'1-0:{quantity}.7.0(00.500*kvar)' for quantity in (5, 6, 7, 8)]
    reading = read(
        from_lines('1-3:0.2.8(50)', *total, '1-0:1.8.1(000001.000*kWh)', *hungarian_lines)
    )
    assert reading.specification == name


def test_one_chooser_follows_the_meters() -> None:
    """The choice is made per telegram: when another meter follows, it is read by its own specification."""
    chooser = Chooser()
    versions = {'5.0': 'V5', '2.2': 'V2_2', 'belgium': 'BELGIUM_FLUVIUS', '4.2': 'V4'}
    for version, name in [*versions.items()] * 2:
        assert make_reading(framed(of_version(version)), chooser, 0.0, 0.0).specification == name


def test_the_same_lines_under_another_header_are_another_meter_s() -> None:
    """A Luxembourg header decides for its specification, also directly after the same codes under another header."""
    chooser = Chooser()
    for header, name in [('/TST5', 'V5'), ('/Lux5', 'LUXEMBOURG_SMARTY')] * 2:
        data = from_lines('1-3:0.2.8(50)', '1-0:1.8.1(000001.000*kWh)', header=header)
        assert make_reading(framed(data), chooser, 0.0, 0.0).specification == name


def test_a_telegram_that_no_specification_half_fits_is_read_as_far_as_it_is_known() -> None:
    """Of mostly foreign lines the known ones have names, the others are under their codes, and the choice is unsure."""
    foreign = [f'1-0:{code}.99.0(1)' for code in range(200, 206)]
    reading = read(
        from_lines(
            '1-0:1.8.1(000001.000*kWh)', *foreign, '1-0:1.7.0(00.500*kW)', '0-0:96.14.0(0002)'
        )
    )
    assert reading.unsure
    assert reading.document['electricityUsedTariff1'] == {'value': 1.0, 'unit': 'kWh'}
    assert reading.document['currentElectricityUsage'] == {'value': 0.5, 'unit': 'kW'}
    assert [*reading.document['otherObjects']] == [line.partition('(')[0] for line in foreign]
    assert reading.not_understood == ()


@pytest.mark.parametrize(
    ('known', 'foreign', 'unsure'), [(2, 2, False), (2, 3, True), (4, 3, False), (4, 4, False)]
)
def test_half_the_lines_is_the_limit(known: int, foreign: int, unsure: bool) -> None:
    """A choice that knows half of the lines is sure, one that knows less is not."""
    foreign_lines = [f'1-0:{code}.99.0(1)' for code in range(200, 200 + foreign)]
    known_lines = ['1-0:1.8.1(000001.000*kWh)'] * known
    reading = read(from_lines(*known_lines, *foreign_lines))
    assert reading.unsure is unsure


def test_one_chooser_names_the_lines_without_value_of_each_telegram() -> None:
    """A line without brackets is named as that of its own telegram, not of the one before."""
    chooser = Chooser()
    for code in ('1-0:1.8.3', '1-0:1.8.4', '0-0:1.8.4'):
        data = from_lines('1-0:1.8.1(000001.000*kWh)', code)
        assert make_reading(framed(data), chooser, 0.0, 0.0).not_understood == (code,)


def test_a_line_is_named_by_what_it_is_now() -> None:
    """A code without a value in one telegram is read in the next, where it has one."""
    chooser = Chooser()
    for value, named in [('', ('1-0:1.8.1',)), ('(000001.000*kWh)', ()), ('', ('1-0:1.8.1',))]:
        data = from_lines(
            '1-3:0.2.8(50)', f'1-0:1.8.1{value}', '1-0:1.8.2(000002.000*kWh)', '0-0:96.14.0(0001)'
        )
        reading = make_reading(framed(data), chooser, 0.0, 0.0)
        assert ('electricityUsedTariff1' in reading.document) is bool(value)
        assert reading.not_understood == named


def test_a_device_s_number_does_not_replace_the_meter_s() -> None:
    """The meter keeps its own identifier when a device on a channel sends one with the same code."""
    reading = read(
        from_lines('1-3:0.2.8(50)', '0-0:96.1.1(4531)', '0-1:24.1.0(003)', '0-1:96.1.1(4731)'), 'V5'
    )
    assert reading.document['equipmentIdentifier'] == {'value': '4531', 'unit': None}


def state_of_the_library() -> Any:
    state = {}
    for name in SPECIFICATION_NAMES:
        for row in rows(name):
            parser = row.library_parser
            state[name, row.name] = (row.pattern, id(parser), state_of_parser(parser))
    serial_settings = {
        key: repr(value) for key, value in vars(library_settings).items() if key.isupper()
    }
    return state, serial_settings


def state_of_parser(parser: Any) -> Any:
    formats = [*getattr(parser, 'value_formats', ())]
    for formats_of_type in getattr(parser, 'buffer_types', {}).values():
        formats += formats_of_type
    return [(id(value_format), value_format.coerce_type) for value_format in formats]


def test_reading_leaves_the_library_as_it_was() -> None:
    """Whatever is read, the library's own specifications and serial settings stay what they were."""
    before = state_of_the_library()
    for name in SPECIFICATION_NAMES:
        read(of_specification(name)[0], name, encrypted=name in ENCRYPTED)
    assert state_of_the_library() == before


def with_failures(seconds: int, kind: str = '0-0:96.7.19') -> Telegram:
    failures = ''.join(f'(2401{day:02}103000W)({seconds:010}*s)' for day in range(1, 11))
    return framed(from_lines('1-3:0.2.8(50)', f'1-0:99.97.0(10)({kind}){failures}'))


def test_parsing_does_not_grow() -> None:
    """Two thousand telegrams with ten power failures leave no more memory in use than two hundred.

    dsmr_parser's own parser of the failure log would leave 160 bytes of each; other threads of the tests use a little.
    """
    chooser, telegrams = Chooser(), cycle(with_failures(seconds) for seconds in range(2))

    def used_after(times: int) -> int:
        for telegram in islice(telegrams, times):
            make_reading(telegram, chooser, 0.0, 0.0)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first = used_after(200)
        assert used_after(2000) < first + 100_000
    finally:
        tracemalloc.stop()


def test_a_foreign_failure_log_does_not_change_the_types_of_the_next() -> None:
    """Entries of any type have a time and whole seconds, and so have those of the next log."""
    chooser = Chooser()
    for seconds, kind in ((240, '0-0:96.7.99'), (241, '0-0:96.7.19')):
        telegram = with_failures(seconds, kind)
        log = make_reading(telegram, chooser, 0.0, 0.0).document['powerEventFailureLog']
        failure = {'datetime': '2024-01-01T10:30:00+01:00', 'value': seconds, 'unit': 's'}
        assert log['buffer'][0] == failure
        assert len(log['buffer']) == 10


def test_each_telegram_has_its_own_values() -> None:
    """What one chooser has read before is neither repeated nor changed by what it reads next."""
    chooser = Chooser()
    lines = [
        '1-0:1.8.1({}*kWh)',
        '0-0:96.14.0(0002)',
        '0-1:24.1.0(003)',
        '0-1:24.2.1({}*m3)',
        '1-0:99.97.0()',
    ]
    first, second, third = (
        make_reading(
            framed(from_lines('1-3:0.2.8(50)', *(line.format(value) for line in lines))),
            chooser,
            0.0,
            0.0,
        ).document
        for value in ('000001.000', '000002.000', '000001.000')
    )
    assert [document['electricityUsedTariff1']['value'] for document in (first, second, third)] == [
        1.0,
        2.0,
        1.0,
    ]
    assert first == third
