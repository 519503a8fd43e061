"""/metrics: which numbers of a reading are shown and how, and what Prometheus reads from it."""

import http.client
import itertools
import json
import math
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as text_families

from dsmr_rest.api import homewizard
from dsmr_rest.api.metrics import DEFINITIONS, exposition
from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.p1.line import LineCounters
from dsmr_rest.reading.document import Reading
from dsmr_rest.simulated.house import DUTCH, MINUTE
from dsmr_rest.simulated.telegrams import VERSIONS, telegram
from tests.conftest import ROOT, StartServer, free_port, hush, new_meter, wait_for
from tests.faulty_meter import FaultyMeter
from tests.pages import INTEGRATIONS, block
from tests.system_packages import program
from tests.telegrams import from_lines, of_specification, of_version, read, read_lines

COUNTERS = LineCounters(
    received_bytes=9000,
    telegrams=7,
    checksum_failures=1,
    incomplete_telegrams=2,
    decryption_failures=0,
    invalid_telegrams=0,
    port_openings=3,
    port_losses=0,
)
OPENMETRICS = 'application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.5'
OF_THE_METER = {
    'dsmr_meter': 'info',
    'dsmr_electricity_used_kwh': 'counter',
    'dsmr_electricity_delivered_kwh': 'counter',
    'dsmr_power_used_watts': 'gauge',
    'dsmr_power_delivered_watts': 'gauge',
    'dsmr_phase_power_used_watts': 'gauge',
    'dsmr_phase_power_delivered_watts': 'gauge',
    'dsmr_voltage_volts': 'gauge',
    'dsmr_current_amperes': 'gauge',
    'dsmr_power_failures': 'counter',
    'dsmr_voltage_sags': 'counter',
    'dsmr_voltage_swells': 'counter',
    'dsmr_demand_average_watts': 'gauge',
    'dsmr_demand_month_peak_watts': 'gauge',
    'dsmr_demand_month_peak_timestamp_seconds': 'gauge',
    'dsmr_object': 'gauge',
    'dsmr_mbus': 'info',
    'dsmr_mbus_reading': 'gauge',
    'dsmr_mbus_reading_timestamp_seconds': 'gauge',
}
"""The type of every metric family that only a reading has."""
OF_THE_SERVER = {
    'dsmr_up': 'gauge',
    'dsmr_reading_age_seconds': 'gauge',
    'dsmr_received_bytes': 'counter',
    'dsmr_telegrams': 'counter',
    'dsmr_checksum_failures': 'counter',
    'dsmr_parity_failures': 'counter',
    'dsmr_unconfirmed_telegrams': 'counter',
    'dsmr_internal_errors': 'counter',
    'dsmr_incomplete_telegrams': 'counter',
    'dsmr_decryption_failures': 'counter',
    'dsmr_invalid_telegrams': 'counter',
    'dsmr_port_openings': 'counter',
    'dsmr_port_losses': 'counter',
    'dsmr_errors': 'counter',
    'dsmr_http_requests': 'counter',
    'dsmr_telegram_clients': 'gauge',
}
"""The type of every other metric family. A family that is in neither table fails one test, which says so; all other
tests are about the families that they know."""
SUFFIXES = {'counter': '_total', 'info': '_info', 'gauge': ''}
ENCRYPTED = ('MSN', 'SAGEMCOM_T210_D_R', 'AUSTRIA_ENERGIENETZE_STEIERMARK')
CHANNEL = '0-1:24.1.0({kind})', '0-1:96.1.0(4730)', '0-1:24.2.1({time})({value})'


def text(reading: Reading | None, accept: str = '', *, identifiers: bool = False) -> str:
    """A scrape's body."""
    age = 0.25 if reading else None
    errors, responses = {'meter_silent': 4}, {'200': 5, '404': 1}
    body, _ = exposition(
        reading,
        age,
        COUNTERS,
        errors,
        responses,
        telegram_clients=3,
        accept=accept,
        identifiers=identifiers,
    )
    return body.decode()


def samples(exposed: str) -> dict[str, float]:
    """The values by name and labels as they are written."""
    lines = [line.rpartition(' ') for line in exposed.splitlines() if not line.startswith('#')]
    assert len({name for name, _, _ in lines}) == len(lines), 'a sample is there twice'
    return {name: float(value) for name, _, value in lines}


def of_families(exposed: str, families: Mapping[str, str]) -> dict[str, float]:
    """The samples of these families."""
    names = {name + SUFFIXES[kind] for name, kind in families.items()}
    return {
        sample: value for sample, value in samples(exposed).items() if sample.split('{')[0] in names
    }


def of_the_meter(exposed: str) -> dict[str, float]:
    return of_families(exposed, OF_THE_METER)


def shown(*lines: str, specification: str = 'V5') -> dict[str, float]:
    """What is shown of a meter that sends these lines, without the information about itself."""
    values = of_the_meter(text(read_lines(*lines, specification=specification)))
    return {name: value for name, value in values.items() if not name.startswith('dsmr_meter_info')}


def by(name: str, label: str, *values: float) -> dict[str, float]:
    """Samples with the labels '1', '2' and so on."""
    return {f'{name}{{{label}="{number}"}}': value for number, value in enumerate(values, 1)}


PER_TARIFF = {
    **by('dsmr_electricity_used_kwh_total', 'tariff', 3867.868, 4113.930),
    **by('dsmr_electricity_delivered_kwh_total', 'tariff', 645.663, 3491.293),
}
WHOLE = {'dsmr_power_used_watts': 0.0, 'dsmr_power_delivered_watts': 2802.0}
PER_PHASE = {
    **by('dsmr_phase_power_used_watts', 'phase', 151.0, 0.0, 40.0),
    **by('dsmr_phase_power_delivered_watts', 'phase', 0.0, 2993.0, 0.0),
}
WHOLE_AMPERES = by('dsmr_current_amperes', 'phase', 1.0, 13.0, 0.0)
VOLTS = by('dsmr_voltage_volts', 'phase', 229.4, 232.0, 229.5)
EVENTS = {
    'dsmr_power_failures_total{duration="short"}': 7.0,
    'dsmr_power_failures_total{duration="long"}': 2.0,
    **by('dsmr_voltage_sags_total', 'phase', 3.0, 1.0, 2.0),
    **by('dsmr_voltage_swells_total', 'phase', 0.0, 1.0, 0.0),
}
GAS = {
    'dsmr_mbus_reading{channel="1",kind="gas",unit="m3"}': 2495.435,
    'dsmr_mbus_reading_timestamp_seconds{channel="1",kind="gas"}': 1718964000.0,
}
BELGIUM = {
    **by('dsmr_electricity_used_kwh_total', 'tariff', 4113.930, 3867.868),
    **by('dsmr_electricity_delivered_kwh_total', 'tariff', 3491.293, 645.663),
    **by('dsmr_current_amperes', 'phase', 0.66, 12.9, 0.17),
    'dsmr_demand_average_watts': 0.0,
    'dsmr_demand_month_peak_watts': 2507.0,
    'dsmr_demand_month_peak_timestamp_seconds': 1717193700.0,
    'dsmr_mbus_reading{channel="2",kind="water",unit="m3"}': 434.847,
    'dsmr_mbus_reading_timestamp_seconds{channel="2",kind="water"}': 1718964000.0,
    'dsmr_object{name="actualSwitchPosition",unit=""}': 1.0,
    'dsmr_object{name="actualTresholdElectricity",unit="kW"}': 999.9,
    'dsmr_object{name="fuseThresholdL1",unit="A"}': 999.0,
    'dsmr_object{channel="1",name="mbusValvePosition",unit=""}': 1.0,
}
DSMR_2 = {
    'dsmr_power_used_watts': 0.0,
    'dsmr_power_delivered_watts': 2800.0,
    'dsmr_object{name="actualTresholdElectricity",unit="kW"}': 999.0,
}


@pytest.mark.parametrize(
    ('version', 'expected'),
    [
        ('5.0', PER_TARIFF | WHOLE | PER_PHASE | WHOLE_AMPERES | VOLTS | EVENTS | GAS),
        ('4.2', PER_TARIFF | WHOLE | PER_PHASE | WHOLE_AMPERES | EVENTS | GAS),
        ('2.2', PER_TARIFF | DSMR_2 | GAS),
        ('belgium', WHOLE | PER_PHASE | VOLTS | GAS | BELGIUM),
    ],
)
def test_every_version_shows_its_values_in_base_units(
    version: str, expected: dict[str, float]
) -> None:
    """Everything that a meter of this version measures is shown, by its name and in its unit, and nothing else."""
    values = of_the_meter(text(read(of_version(version))))
    (info,) = (name for name in values if name.startswith('dsmr_meter_info'))
    assert values.pop(info) == 1.0
    assert values == expected


@pytest.mark.parametrize('name', SPECIFICATION_NAMES)
def test_each_number_is_shown_once(name: str) -> None:
    """Of every specification's objects, each number is in one sample, whatever its unit."""
    data, _ = of_specification(name)
    reading = read(data, name, encrypted=name in ENCRYPTED)
    again = {'deviceType', 'hourlyGasMeterReading'}
    items = [
        item
        for key, item in reading.document.items()
        if key not in again and isinstance(item, dict)
    ]
    for device in reading.document.get('mbusDevices', []):
        items += [
            item
            for key, item in device.items()
            if isinstance(item, dict) and not key.endswith('eviceType')
        ]
    numbers = [item['value'] for item in items if isinstance(item.get('value'), int | float)]
    values = of_the_meter(text(reading))
    assert len(numbers) > 3 or name == 'Q3D'
    assert sorted(numbers) == sorted(
        v for k, v in values.items() if 'timestamp' not in k and '_info' not in k
    )


def names_and_labels(families: Iterable[Metric]) -> set[tuple[Any, ...]]:
    return {
        (sample.name, *sorted(sample.labels.items()))
        for family in families
        for sample in family.samples
    }


def test_the_metrics_are_these() -> None:
    """All metric families that any meter can have, with and without a reading, and their types."""
    readings: list[Reading | None] = [None]
    readings += [read(of_version(version)) for version in VERSIONS]
    found = {}
    for reading in readings:
        exposed = text(reading, OPENMETRICS, identifiers=True)
        families = openmetrics_families(exposed)  # type: ignore[no-untyped-call]  # it has no types
        found.update({family.name: family.type for family in families})
    assert found == OF_THE_METER | OF_THE_SERVER


def test_each_definition_is_one_of_these() -> None:
    """A metric that no simulated meter shows is in the list all the same."""
    defined = {definition.name: definition.type for definition in DEFINITIONS}
    assert defined.items() <= OF_THE_METER.items()


@pytest.mark.parametrize('name', SPECIFICATION_NAMES)
def test_no_family_has_a_total_beside_its_parts(name: str) -> None:
    """The samples of a family differ in the values of the same labels: sum() counts nothing twice."""
    data, _ = of_specification(name)
    exposed = text(read(data, name, encrypted=name in ENCRYPTED), OPENMETRICS)
    for family in openmetrics_families(exposed):  # type: ignore[no-untyped-call]  # it has no types
        labels = {frozenset(sample.labels) for sample in family.samples}
        assert len(labels) <= 1 or family.name == 'dsmr_object'


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('identifiers', [False, True])
def test_both_formats_can_be_parsed_and_have_the_same_samples(
    version: str, identifiers: bool
) -> None:
    """The text format and OpenMetrics are accepted by prometheus_client's own parsers and hold the same samples."""
    reading = read(of_version(version))
    plain = text(reading, identifiers=identifiers)
    newer = text(reading, OPENMETRICS, identifiers=identifiers)
    families = openmetrics_families(newer)  # type: ignore[no-untyped-call]  # it has no types
    assert names_and_labels(text_families(plain)) == names_and_labels(families)
    assert samples(plain) == samples(newer)


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('identifiers', [False, True])
def test_promtool_has_no_complaint(version: str, identifiers: bool) -> None:
    """`promtool check metrics` accepts all names, types and help texts."""
    promtool = program('promtool', 'prometheus')
    exposed = text(read(of_version(version)), identifiers=identifiers)
    checked = subprocess.run(
        [promtool, 'check', 'metrics'],
        input=exposed,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, '', '')


@pytest.mark.parametrize(
    ('accept', 'begins'),
    [
        ('', 'text/plain; version=0.0.4'),
        ('*/*', 'text/plain; version=0.0.4'),
        (OPENMETRICS, 'application/openmetrics-text; version=1.0.0'),
        ('application/openmetrics-text; version=new', 'text/plain; version=0.0.4'),
        ('text/plain; version=é', 'text/plain; version=0.0.4'),
    ],
)
def test_the_format_is_the_one_asked_for(accept: str, begins: str) -> None:
    """The format is one that the client accepts, and the text format 0.0.4 when Accept is missing or nonsense."""
    _, content_type = exposition(
        None, None, COUNTERS, {}, {}, telegram_clients=0, accept=accept, identifiers=False
    )
    assert content_type.startswith(begins)


def test_without_a_reading_there_are_only_the_servers_own_counters() -> None:
    """Without a reading no value and no name of the meter is shown."""
    assert of_the_meter(text(None)) == {}
    assert of_families(text(None), OF_THE_SERVER) == {
        'dsmr_up': 0.0,
        'dsmr_received_bytes_total': 9000.0,
        'dsmr_telegrams_total': 7.0,
        'dsmr_checksum_failures_total': 1.0,
        'dsmr_parity_failures_total': 0.0,
        'dsmr_unconfirmed_telegrams_total': 0.0,
        'dsmr_internal_errors_total': 0.0,
        'dsmr_incomplete_telegrams_total': 2.0,
        'dsmr_decryption_failures_total': 0.0,
        'dsmr_invalid_telegrams_total': 0.0,
        'dsmr_port_openings_total': 3.0,
        'dsmr_port_losses_total': 0.0,
        'dsmr_errors_total{code="meter_silent"}': 4.0,
        'dsmr_http_requests_total{status="200"}': 5.0,
        'dsmr_http_requests_total{status="404"}': 1.0,
        'dsmr_telegram_clients': 3.0,
    }


def test_a_reading_is_up_and_has_an_age() -> None:
    """With a reading dsmr_up is 1 and its age is shown."""
    values = samples(text(read(of_version('5.0'))))
    assert values['dsmr_up'] == 1.0
    assert values['dsmr_reading_age_seconds'] == 0.25


def test_a_meter_without_tariffs_counts_under_all() -> None:
    """Energy is under tariff "all" where the meter sends its total only."""
    assert shown(
        '1-0:1.8.0(00006619.795*kWh)', '1-0:2.8.0(00000001.500*kWh)', specification='SWEDEN'
    ) == {
        'dsmr_electricity_used_kwh_total{tariff="all"}': 6619.795,
        'dsmr_electricity_delivered_kwh_total{tariff="all"}': 1.5,
    }


def test_a_total_beside_tariffs_is_not_counted_again() -> None:
    """The total of a meter that counts by tariff too is a dsmr_object, so that a sum over the tariffs is right."""
    lines = '1-0:1.8.0(000173.640*kWh)', '1-0:1.8.1(000047.719*kWh)', '1-0:1.8.2(000125.921*kWh)'
    assert shown(*lines, specification='EON_HUNGARY') == {
        'dsmr_electricity_used_kwh_total{tariff="1"}': 47.719,
        'dsmr_electricity_used_kwh_total{tariff="2"}': 125.921,
        'dsmr_object{name="electricityImportedTotal",unit="kWh"}': 173.64,
    }


def test_a_register_without_a_name_is_a_tariff() -> None:
    """A tariff that no specification has a name for is one of the tariffs, once, so that their sum is right."""
    lines = (
        '1-0:1.8.1(000047.719*kWh)',
        '1-0:1.8.5(000001500*Wh)',
        '1-1:1.8.5(000002500*Wh)',
        '1-0:2.8.7(-00000.001*kWh)',
    )
    assert shown(*lines) == {
        'dsmr_electricity_used_kwh_total{tariff="1"}': 47.719,
        'dsmr_electricity_used_kwh_total{tariff="5"}': 1.5,
        'dsmr_object{name="1-1:1.8.5",unit="Wh"}': 2500.0,
        'dsmr_object{name="1-0:2.8.7",unit="kWh"}': -0.001,
    }


@pytest.mark.parametrize(
    ('line', 'expected'),
    [
        ('1-0:1.7.0(002124.86*W)', {'dsmr_power_used_watts': 2124.86}),
        ('1-0:1.7.0(02.549*kW)', {'dsmr_power_used_watts': 2549.0}),
        ('1-0:21.7.0(01.001*kW)', {'dsmr_phase_power_used_watts{phase="1"}': 1001.0}),
        ('1-0:1.8.1(0001500*Wh)', {'dsmr_electricity_used_kwh_total{tariff="1"}': 1.5}),
        ('1-0:1.8.2(1.25*MWh)', {'dsmr_electricity_used_kwh_total{tariff="2"}': 1250.0}),
        ('1-0:31.7.0(660*mA)', {'dsmr_current_amperes{phase="1"}': 0.66}),
        ('1-0:31.7.0(0000.005*kA)', {'dsmr_current_amperes{phase="1"}': 5.0}),
        ('1-0:32.7.0(0000.241*kV)', {'dsmr_voltage_volts{phase="1"}': 241.0}),
        ('1-0:1.7.0(0000.001*MW)', {'dsmr_power_used_watts': 1000.0}),
        ('1-0:1.7.0(02.549*hp)', {'dsmr_object{name="currentElectricityUsage",unit="hp"}': 2.549}),
        ('1-0:1.8.1(-01.000*kWh)', {'dsmr_object{name="electricityUsedTariff1",unit="kWh"}': -1.0}),
        ('0-0:96.13.0(313233)', {}),
    ],
)
def test_values_are_converted_from_the_telegrams_units(
    line: str, expected: dict[str, float]
) -> None:
    """A value comes in the base unit whatever unit was sent; with a unit that does not fit it is a dsmr_object."""
    assert shown(line) == expected


@pytest.mark.parametrize(
    ('line', 'expected'),
    [
        ('1-0:15.7.0(03.262*kW)', {'dsmr_object{name="1-0:15.7.0",unit="kW"}': 3.262}),
        ('1-0:1.6.1(240115103000W)(8.5*kW)', {'dsmr_object{name="1-0:1.6.1",unit="kW"}': 8.5}),
        ('1-0:15.7.0*255(1*kW)', {'dsmr_object{name="1-0:15.7.0*255",unit="kW"}': 1.0}),
        ('1-0:15.7.0(1*kW)\r\n1-0:15.7.0(2*kW)', {'dsmr_object{name="1-0:15.7.0",unit="kW"}': 2.0}),
        (
            '0-1:24.1.0(003)\r\n0-1:15.7.0(2*kW)',
            {'dsmr_object{channel="1",name="0-1:15.7.0",unit="kW"}': 2.0},
        ),
        ('1-0:15.7.0(3.262)', {}),
        ('0-0:96.1.9(4531)', {}),
        ('0-0:96.1.9(Jane*1)', {}),
        ('1-1:31.4.0(040*A)(-040*A)', {}),
        ('1-0:15.7.0()', {}),
    ],
)
def test_other_objects_with_a_unit_are_metrics(line: str, expected: dict[str, float]) -> None:
    """A number with a unit has its OBIS code as a name, the last one of several; a text is never shown."""
    assert shown(line) == expected


@pytest.mark.parametrize(
    ('kind', 'word', 'value', 'unit'),
    [
        ('002', 'electricity', '00012.500*kWh', 'kWh'),
        ('003', 'gas', '00012.500*m3', 'm3'),
        ('004', 'heat', '00012.500*GJ', 'GJ'),
        ('006', 'warm_water', '00012.500*m3', 'm3'),
        ('007', 'water', '00012.500*m3', 'm3'),
        ('010', 'cooling', '00012.500*GJ', 'GJ'),
        ('012', 'heat', '00012.500*GJ', 'GJ'),
        ('099', 'type_99', '00012.500*m3', 'm3'),
    ],
)
def test_an_mbus_device_is_called_by_its_kind(kind: str, word: str, value: str, unit: str) -> None:
    """An M-Bus device has the name of its kind, its unit as sent, and the time at which it was read."""
    lines = [line.format(kind=kind, time='240115103000W', value=value) for line in CHANNEL]
    assert shown(*lines) == {
        f'dsmr_mbus_reading{{channel="1",kind="{word}",unit="{unit}"}}': 12.5,
        f'dsmr_mbus_reading_timestamp_seconds{{channel="1",kind="{word}"}}': 1705311000.0,
    }


@pytest.mark.parametrize(
    ('lines', 'kind'),
    [
        (CHANNEL, '700101000000W'),
        (CHANNEL, '632525252525W'),
        (('0-1:24.1.0(003)', '0-1:96.1.0()', '0-1:24.2.1(240115103000W)(00000.000*m3)'), ''),
        (('0-1:24.1.0(003)', '0-1:96.1.0(4730)'), ''),
    ],
    ids=['never read', 'no date', 'exchanged', 'registered only'],
)
def test_an_mbus_device_without_a_reading_shows_none(lines: tuple[str, ...], kind: str) -> None:
    """A channel that was never read, or whose meter was taken away, has no value."""
    assert (
        shown(*(line.format(kind='003', time=kind, value='00000.000*m3') for line in lines)) == {}
    )


def test_a_number_without_a_name_is_an_object_if_it_has_a_unit() -> None:
    """A line that no specification has a name for is shown by its OBIS code; without a unit it may be an identifier."""
    assert shown(
        '0-0:17.0.9(016.1*kW)',
        '0-0:96.50.9(00000123)',
        '0-1:24.1.0(003)',
        '0-1:99.1.0(12.5*kW)',
    ) == {
        'dsmr_object{name="0-0:17.0.9",unit="kW"}': 16.1,
        'dsmr_object{channel="1",name="0-1:99.1.0",unit="kW"}': 12.5,
    }


NOT_NUMBERS = (math.nan, math.inf, -math.inf, 1e308, -1e308, 10**400, None)
STRANGE = (
    '9' * 30,
    '-' + '9' * 30 + '*kWh',
    'NaN*kWh',
    '1E999*W',
    'Infinity',
    '',
    '\xb2',
    '-0*A',
    '1*',
    '1*"\\',
)


def replaced(document: Any, value: Any) -> Any:
    """The document with this value in place of each number."""
    if isinstance(document, dict):
        changed = {key: replaced(item, value) for key, item in document.items()}
        if isinstance(document.get('value'), int | float):
            changed['value'] = value
        return changed
    if isinstance(document, list):
        return [replaced(item, value) for item in document]
    return document


def check_outputs(reading: Reading) -> None:
    """Both formats of /metrics and the HomeWizard-compatible responses can be made, without NaN or infinity."""
    names_and_labels(openmetrics_families(text(reading, OPENMETRICS, identifiers=True)))  # type: ignore[no-untyped-call]
    assert all(map(math.isfinite, samples(text(reading, identifiers=True)).values()))
    json.dumps([homewizard.data(reading), homewizard.device(reading)], allow_nan=False)


@pytest.mark.parametrize('value', NOT_NUMBERS, ids=lambda value: str(value)[:9])
def test_a_number_that_is_not_one_breaks_no_output(value: Any) -> None:
    """NaN, infinity and numbers that overflow in a sum or a conversion are left out."""
    reading = read(of_version('belgium'))
    odd = replace(reading, document=replaced(reading.document, value))
    check_outputs(odd)
    assert 'active_power_w' not in homewizard.data(odd)
    assert not [
        name
        for name in of_the_meter(text(odd))
        if 'dsmr_meter_info' not in name and 'timestamp' not in name
    ]


def with_last_value(version: str, value: str) -> list[str]:
    """The lines of the simulated meter's telegram with this in the last brackets of each."""
    lines = re.findall(r'^(\d.*)\([^()]*\)\r$', of_version(version).decode(), re.MULTILINE)
    return [f'{line}({value})' for line in lines]


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('value', STRANGE)
def test_strange_values_break_no_output(version: str, value: str) -> None:
    """Whatever is in place of the values, a telegram can be shown in every form."""
    check_outputs(read(from_lines(*with_last_value(version, value))))


@pytest.mark.parametrize(
    ('version', 'specification'),
    [('5.0', 'V5'), ('4.2', 'V4'), ('2.2', 'V2_2'), ('belgium', 'BELGIUM_FLUVIUS')],
)
def test_a_number_of_any_length_breaks_no_output(version: str, specification: str) -> None:
    """5,000 digits, more than int() takes, in any one line cost at most that line's value."""
    for line in with_last_value(version, '9' * 5000):
        reading = read_lines(line, '1-0:1.7.0(00.100*kW)', specification=specification)
        check_outputs(reading)
        assert 'dsmr_power_used_watts 100.0\n' in text(reading), line[:20]


def test_the_header_shows_the_manufacturer_alone() -> None:
    """Of a header that ends in a serial number only the three letters of the manufacturer are shown."""
    data = of_version('2.2').replace(b'/SIM5 DEMO0022', b'/KMP5 KA6U001660297912')
    assert 'manufacturer="KMP",specification="V2_2",verified_by="nothing",version=""' in text(
        read(data)
    )
    assert '1660297912' not in text(read(data))
    assert 'identification="KMP5 KA6U001660297912"' in text(read(data), identifiers=True)


def test_a_header_without_a_manufacturer_shows_none() -> None:
    """A header line that begins with no three letters has an empty manufacturer."""
    telegram_without = from_lines('1-0:1.7.0(00.100*kW)', header='/1234')
    assert 'dsmr_meter_info{manufacturer="",' in text(read(telegram_without))


def identifiers_of(version: str) -> set[str]:
    """Whatever in the telegram could tell this meter and its M-Bus devices from others."""
    document = read(of_version(version)).document
    text_of_all = json.dumps(document)
    values = set(re.findall(r'quipmentIdentifier(?:Gas)?": \{"value": "(\w+)"', text_of_all))
    assert len(values) > 1 or version == 'sweden'  # whose telegrams have no number
    return values | {bytes.fromhex(value).decode() for value in values} | {'DEMO'}


def metrics_of_each_version(start_server: StartServer, **settings: object) -> Iterator[str]:
    """What a server with these settings shows of each simulated meter, in the order of VERSIONS."""
    telegrams = {version: of_version(version) for version in VERSIONS}
    sent = telegrams[next(iter(VERSIONS))]
    with new_meter(interval=0.2, source=lambda: sent) as meter:
        server = start_server(meter.port, server=settings)
        for version in VERSIONS:
            sent = telegrams[version]
            # One of the version before may still have been on its way.
            wait_for(lambda sent=sent: server.get('/telegram').body == sent)  # type: ignore[misc]
            shown = server.get('/metrics').body.decode()
            assert samples(shown)['dsmr_up'] == 1.0
            yield shown


def test_no_identifier_is_shown_unless_asked_for(start_server: StartServer) -> None:
    """Identifiers are nowhere in the text by default, and all of them are with metrics_identifiers = yes."""
    for version, shown in zip(VERSIONS, metrics_of_each_version(start_server), strict=True):
        assert not [identifier for identifier in identifiers_of(version) if identifier in shown]
    asked_for = metrics_of_each_version(start_server, metrics_identifiers='yes')
    for version, shown in zip(VERSIONS, asked_for, strict=True):
        in_hex = {
            identifier
            for identifier in identifiers_of(version)
            if re.fullmatch('[0-9A-F]{26,}', identifier)
        }
        assert not [identifier for identifier in in_hex if identifier not in shown]
        assert 'identification="SIM5' in shown
        devices = shown.count('dsmr_mbus_info{')
        assert shown.count('dsmr_mbus_info{channel="1",identifier="') == min(devices, 1)


def test_a_dead_meter_does_not_fail_the_scrape(start_server: StartServer, tmp_path: Path) -> None:
    """Without a port a scrape is 200, dsmr_up is 0, the error is counted and no value is shown."""
    server = start_server(str(tmp_path / 'no-port'))
    server.get('/metrics')
    reply = server.get('/metrics')
    values = samples(reply.body.decode())
    assert (reply.status, values['dsmr_up']) == (200, 0.0)
    assert values['dsmr_errors_total{code="port_missing"}'] == 2.0
    assert values['dsmr_http_requests_total{status="200"}'] == 1.0
    assert of_the_meter(reply.body.decode()) == {}


def test_values_disappear_with_the_meter(start_server: StartServer, meter: FaultyMeter) -> None:
    """Values that were shown are gone at the next scrape after the port is lost."""
    server = start_server(meter.port)
    assert of_the_meter(server.get('/metrics').body.decode())
    meter.unplug()
    reply = wait_for(lambda: (got := server.get('/metrics')) and b'dsmr_up 0.0' in got.body and got)
    assert reply.status == 200
    assert of_the_meter(reply.body.decode()) == {}


def test_a_scrape_ends_within_the_timeout_of_prometheus(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """The scrape of a silent meter ends within the time that Prometheus says it waits."""
    hush(meter)
    server = start_server(meter.port)

    def ends_in_time() -> bool:
        began = time.monotonic()
        reply = server.get('/metrics', {'X-Prometheus-Scrape-Timeout-Seconds': '3.0'})
        duration = time.monotonic() - began
        assert reply.status == 200
        assert samples(reply.body.decode())['dsmr_up'] == 0.0
        return duration < 3.0

    wait_for(ends_in_time)  # a busy machine may need longer for some


def test_a_slow_meter_scraped_often_is_always_up(start_server: StartServer) -> None:
    """After a first reading a meter is up in every scrape, five times as often as it sends and with less patience."""
    with new_meter('4.2', interval=2.5) as meter:
        server = start_server(meter.port)
        ups = [samples(server.get('/metrics').body.decode())['dsmr_up']]
        begin = time.monotonic()
        for due in itertools.takewhile(lambda seconds: seconds < 15, itertools.count(0, 0.5)):
            with suppress(ValueError):
                time.sleep(begin + due - time.monotonic())
            reply = server.get('/metrics', {'X-Prometheus-Scrape-Timeout-Seconds': '2'})
            ups.append(samples(reply.body.decode())['dsmr_up'])
    assert ups == [1.0] * 31


class Prometheus:
    """A real one, on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=20)
        try:
            connection.request('GET', path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def is_ready(self) -> bool:
        with suppress(ConnectionRefusedError):
            return b'is Ready' in self.get('/-/ready')
        return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The vector that an instant query returns."""
        answer = json.loads(self.get(f'/api/v1/query?query={quote(expression)}'))
        assert answer['status'] == 'success', answer
        return list(answer['data']['result'])

    def value(self, expression: str) -> float | None:
        result = self.query(expression)
        return float(result[0]['value'][1]) if result else None


@contextmanager
def prometheus(folder: Path, scrape_configuration: str) -> Iterator[Prometheus]:
    """Prometheus with this configuration, scraping every second."""
    command = program('prometheus', 'prometheus')
    configuration, port = folder / 'prometheus.yml', free_port()
    configuration.write_text(f'global:\n  scrape_interval: 1s\n{scrape_configuration}')
    options = [
        f'--config.file={configuration}',
        f'--storage.tsdb.path={folder / "data"}',
        f'--web.listen-address=127.0.0.1:{port}',
    ]
    with (
        (folder / 'prometheus.log').open('w') as log,
        subprocess.Popen([command, *options], stderr=log) as process,
    ):
        try:
            started = Prometheus(port)
            wait_for(started.is_ready, 60)
            yield started
        finally:
            process.terminate()


def test_prometheus_scrapes_as_the_recipe_says(start_server: StartServer, tmp_path: Path) -> None:
    """With the recipe in docs/integrations.md `up`, `dsmr_up` and the rate of a counter come from Prometheus."""
    scrapes = block(INTEGRATIONS, 'Prometheus', 'yaml')
    minutes = itertools.count()
    night = datetime(2024, 1, 15, 2, tzinfo=DUTCH)
    with new_meter(
        interval=0.2, source=lambda: telegram('5.0', night + next(minutes) * MINUTE)
    ) as meter:
        server = start_server(meter.port)
        configuration, replaced = re.subn(
            r'(targets: \[)[^\]]*\]', rf"\1'127.0.0.1:{server.port}']", scrapes
        )
        assert replaced == 1
        with prometheus(tmp_path, configuration) as started:
            job = '{job="smart-meter"}'
            assert wait_for(lambda: started.value(f'up{job}'), 30) == 1.0
            assert wait_for(lambda: started.value(f'dsmr_up{job}'), 30) == 1.0
            rate = f'sum(rate(dsmr_electricity_used_kwh_total{job}[20s]))'
            # 205 W and more for a minute, five times a second: 0.014 kWh
            wait_for(lambda: 0.003 < (started.value(rate) or 0) < 0.05, 60)
            voltages = started.query('dsmr_voltage_volts')
            assert {voltage['metric']['phase'] for voltage in voltages} == {'1', '2', '3'}
            meter.unplug()
            wait_for(lambda: started.value(f'dsmr_up{job}') == 0.0, 30)
            assert started.value(f'up{job}') == 1.0
            assert started.query(f'dsmr_power_used_watts{job}') == []


# The files to copy


RULES = ROOT / 'docs' / 'prometheus' / 'rules.yml'
DASHBOARD = json.loads((ROOT / 'docs' / 'prometheus' / 'grafana-dashboard.json').read_text())


def check_rules(promtool: str, rules: Path) -> None:
    """Fails when `promtool check rules` has a complaint, however small."""
    checked = subprocess.run(
        [promtool, 'check', 'rules', '--lint=all', '--lint-fatal', str(rules)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (checked.returncode, checked.stderr) == (0, '')
    assert 'rules found' in checked.stdout


def expressions_of(dashboard: Any) -> list[str]:
    """The expressions of all panels, with a server in place of the dashboard's variable."""
    targets = [target for panel in dashboard['panels'] for target in panel['targets']]
    return [target['expr'].replace('$instance', 'pi:8080') for target in targets]


def check_names(expressions: str) -> None:
    """Fails when a metric is named that this server does not have."""
    kinds = OF_THE_METER | OF_THE_SERVER
    names = {name + SUFFIXES[kind] for name, kind in kinds.items()}
    used = set(re.findall(r'(?<![:\w])dsmr_\w+', expressions))
    assert used
    assert used <= names


def test_the_rules_are_rules_for_these_metrics() -> None:
    """promtool accepts docs/prometheus/rules.yml, and its expressions name metrics that exist."""
    check_rules(program('promtool', 'prometheus'), RULES)
    expressions = re.findall(r'^ *expr: (.*)$', RULES.read_text(), re.MULTILINE)
    check_names('\n'.join(expressions))


def test_the_rules_alert_when_they_should(tmp_path: Path) -> None:
    """A lost server, a lost meter, damaged telegrams and a new peak each raise their alert, and net power is right."""
    promtool = program('promtool', 'prometheus')
    cases = tmp_path / 'cases.yml'
    cases.write_text(RULE_CASES.replace('RULES', str(RULES)))
    tested = subprocess.run(
        [promtool, 'test', 'rules', str(cases)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


RULE_CASES = """
rule_files: [RULES]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'up{job="smart-meter",instance="off"}', values: '0x60'}
      - {series: 'dsmr_up{instance="lost"}', values: '0x60'}
      - {series: 'dsmr_up{instance="good"}', values: '1x60'}
      - {series: 'dsmr_telegrams_total{instance="bad"}', values: '0+50x60'}
      - {series: 'dsmr_checksum_failures_total{instance="bad"}', values: '0+10x60'}
      - {series: 'dsmr_telegrams_total{instance="good"}', values: '0+60x60'}
      - {series: 'dsmr_checksum_failures_total{instance="good"}', values: '0+1x60'}
      - {series: 'dsmr_demand_average_watts{instance="peak"}', values: '2600x60'}
      - {series: 'dsmr_demand_month_peak_watts{instance="peak"}', values: '2500x60'}
      - {series: 'dsmr_power_used_watts{instance="both"}', values: '100x60'}
      - {series: 'dsmr_power_delivered_watts{instance="both"}', values: '250x60'}
      - {series: 'dsmr_power_used_watts{instance="one"}', values: '100x60'}
    alert_rule_test:
      - eval_time: 50m
        alertname: SmartMeterServerDown
        exp_alerts:
          - exp_labels: {job: smart-meter, instance: 'off'}
            exp_annotations:
              summary: Nothing responds at off
              description: The machine is off, cannot be reached, or dsmr_rest_server.py is not running.
      - eval_time: 50m
        alertname: SmartMeterLost
        exp_alerts:
          - exp_labels: {instance: lost}
            exp_annotations:
              summary: lost has no reading of its meter
              description: The server is running. Its /health says why there is no reading and what to do about it.
      - eval_time: 50m
        alertname: SmartMeterTelegramsDamaged
        exp_alerts:
          - exp_labels: {instance: bad}
            exp_annotations:
              summary: More than a tenth of the telegrams at bad are damaged
              description: Check that the plugs are fully inserted, or use a shorter cable.
      - eval_time: 50m
        alertname: SmartMeterMonthPeak
        exp_alerts:
          - exp_labels: {instance: peak}
            exp_annotations:
              summary: This quarter-hour at peak becomes the peak of the month
              description: In Belgium a higher peak costs more. Switch something off until the quarter-hour is over.
    promql_expr_test:
      - expr: instance:dsmr_power_net:watts
        eval_time: 50m
        exp_samples:
          - {labels: 'instance:dsmr_power_net:watts{instance="both"}', value: -150}
          - {labels: 'instance:dsmr_power_net:watts{instance="one"}', value: 100}
"""


def test_the_dashboard_asks_for_these_metrics(tmp_path: Path) -> None:
    """Every panel of the Grafana dashboard has expressions that Prometheus can parse, of metrics that exist."""
    expressions = expressions_of(DASHBOARD)
    assert len(expressions) >= len(DASHBOARD['panels'])
    check_names('\n'.join(expressions))
    lines = ['groups:', '- name: panels', '  rules:']
    for number, expression in enumerate(expressions):
        quoted = json.dumps(expression)
        lines += [f'  - record: panel:expression{number}', f'    expr: {quoted}']
    rules = tmp_path / 'panels.yml'
    rules.write_text('\n'.join(lines))
    check_rules(program('promtool', 'prometheus'), rules)
