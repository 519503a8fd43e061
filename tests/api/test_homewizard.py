"""The HomeWizard-compatible responses: the fields, the routes, and the client library of Home Assistant."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from dsmr_rest.api import homewizard
from dsmr_rest.meter.meter import SLOW_INTERVAL
from dsmr_rest.reading.specification import Chooser
from dsmr_rest.simulated.telegrams import VERSIONS
from tests.conftest import MISSING_PORT, StartServer, new_meter, wait_for
from tests.faulty_meter import FaultyMeter
from tests.hostile_telegrams import hostile_telegrams
from tests.telegrams import from_lines, of_version, read, read_lines, usable_readings

ON = {'homewizard_api': 'yes'}
PATHS = ('/api', '/api/v1/data', '/api/v1/telegram')
CLIENT = 'python-homewizard-energy>=10,<11'

PHASES = {'l1': 3, 'l2': 5, 'l3': 7}
# Where each field comes from: its OBIS code, and the factor from the line's unit to the field's.
SOURCES = {
    **{f'active_voltage_{phase}_v': (f'1-0:{code}2.7.0', 1) for phase, code in PHASES.items()},
    **{f'voltage_sag_{phase}_count': (f'1-0:{code}2.32.0', 1) for phase, code in PHASES.items()},
    **{f'voltage_swell_{phase}_count': (f'1-0:{code}2.36.0', 1) for phase, code in PHASES.items()},
    'any_power_fail_count': ('0-0:96.7.21', 1),
    'long_power_fail_count': ('0-0:96.7.9', 1),
    'total_power_import_t1_kwh': ('1-0:1.8.1', 1),
    'total_power_import_t2_kwh': ('1-0:1.8.2', 1),
    'total_power_export_t1_kwh': ('1-0:2.8.1', 1),
    'total_power_export_t2_kwh': ('1-0:2.8.2', 1),
    'active_power_average_w': ('1-0:1.4.0', 1000),
    'active_tariff': ('0-0:96.14.0', 1),
}


def data(*lines: str, specification: str = 'V5') -> dict[str, Any]:
    """The fields for a telegram of these lines."""
    return homewizard.data(read_lines(*lines, specification=specification))


def last_number(telegram: bytes, code: str) -> float | None:
    """The number in the last brackets of the code's line."""
    match = re.search(
        rf'^{re.escape(code)}(?:\([^)]*\))*?\(([\d.]+)[^)]*\)\r$', telegram.decode(), re.MULTILINE
    )
    return float(match[1]) if match else None


@pytest.mark.parametrize('version', VERSIONS)
def test_plain_fields_have_the_values_of_their_lines(version: str) -> None:
    """A field is there exactly when its OBIS code is in the telegram, with the value in the field's unit.

    Without tariffs the field of the first one has the value of the total.
    """
    telegram = of_version(version)
    fields = homewizard.data(read(telegram))
    has_tariffs = last_number(telegram, '1-0:1.8.1') is not None
    for field, (code, factor) in SOURCES.items():
        code_of_total = code.replace('.8.1', '.8.0')
        number = last_number(telegram, code if has_tariffs else code_of_total)
        expected = None if number is None else pytest.approx(number * factor)
        assert fields.get(field) == expected, field


@pytest.mark.parametrize('version', VERSIONS)
def test_no_field_is_null_and_watts_are_whole(version: str) -> None:
    """What is not available is left out, every power is an integer, and the response is plain JSON."""
    fields = homewizard.data(read(of_version(version)))
    assert None not in fields.values()
    assert {type(value) for field, value in fields.items() if field.endswith('_w')} == {int}
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields


@pytest.mark.parametrize('version', VERSIONS)
def test_the_totals_are_there_with_the_tariffs(version: str) -> None:
    """Total import and export are the sums of their tariffs to the Wh: without them clients take tariff 1 for all."""
    fields = homewizard.data(read(of_version(version)))
    for direction in ('import', 'export'):
        tariff = re.compile(rf'total_power_{direction}_t\d_kwh')
        tariffs = [value for field, value in fields.items() if tariff.fullmatch(field)]
        total = fields[f'total_power_{direction}_kwh']
        assert total > 0
        assert not tariffs or total == round(sum(tariffs), 3)


def test_a_whole_telegram() -> None:
    """A whole Dutch telegram has exactly these fields and values."""
    reading = read(
        from_lines(
            '1-3:0.2.8(50)',
            '0-0:1.0.0(240621120000S)',
            '0-0:96.1.1(4530303632303030303133313232393233)',
            '1-0:1.8.1(010830.511*kWh)',
            '1-0:1.8.2(002948.827*kWh)',
            '1-0:2.8.1(001285.951*kWh)',
            '1-0:2.8.2(002876.514*kWh)',
            '0-0:96.14.0(0002)',
            '1-0:1.7.0(00.000*kW)',
            '1-0:2.7.0(00.543*kW)',
            '1-0:31.7.0(004*A)',
            '1-0:51.7.0(002*A)',
            '1-0:71.7.0(000*A)',
            '1-0:21.7.0(00.000*kW)',
            '1-0:41.7.0(00.133*kW)',
            '1-0:61.7.0(00.000*kW)',
            '1-0:22.7.0(00.676*kW)',
            '1-0:42.7.0(00.000*kW)',
            '1-0:62.7.0(00.001*kW)',
            '0-1:24.1.0(003)',
            '0-1:96.1.0(4730303339303031393336393930363139)',
            '0-1:24.2.1(240621115500S)(02569.646*m3)',
            header='/ISK5\\2M550T-101',
        )
    )
    assert homewizard.data(reading) == {
        'wifi_ssid': 'dsmr-rest-server',
        'wifi_strength': 100,
        'smr_version': 50,
        'meter_model': 'ISKRA  2M550T-101',
        'unique_id': '4530303632303030303133313232393233',
        'active_tariff': 2,
        'total_power_import_kwh': 13779.338,
        'total_power_import_t1_kwh': 10830.511,
        'total_power_import_t2_kwh': 2948.827,
        'total_power_export_kwh': 4162.465,
        'total_power_export_t1_kwh': 1285.951,
        'total_power_export_t2_kwh': 2876.514,
        'active_power_w': -543,
        'active_power_l1_w': -676,
        'active_power_l2_w': 133,
        'active_power_l3_w': -1,
        'active_current_a': 6.0,
        'active_current_l1_a': -4.0,
        'active_current_l2_a': 2.0,
        'active_current_l3_a': 0.0,
        'total_gas_m3': 2569.646,
        'gas_timestamp': 240621115500,
        'gas_unique_id': '4730303339303031393336393930363139',
        'external': [
            {
                'unique_id': '4730303339303031393336393930363139',
                'type': 'gas_meter',
                'timestamp': 240621115500,
                'value': 2569.646,
                'unit': 'm3',
            }
        ],
    }
    assert '-0' not in json.dumps(homewizard.data(reading)['active_current_l3_a'])


@pytest.mark.parametrize(
    ('specification', 'lines', 'expected'),
    [
        (
            'V2_2',
            ('1-0:1.7.0(0000.00*kW)', '1-0:2.7.0(0000.62*kW)', '0-1:24.1.0(03)', '0-1:96.1.0(3031)',
             '0-1:24.3.0(190218120000)(00)(60)(1)(0-1:24.2.0)(m3)\r\n(05271.144)'),
            {'active_power_w': -620, 'total_gas_m3': 5271.144, 'gas_timestamp': 190218120000, 'gas_unique_id': '3031'},
        ),
        (
            'BELGIUM_FLUVIUS',
            ('0-0:96.1.4(50217)', '0-0:96.1.1(3153414733)', '1-0:1.8.1(000143.608*kWh)', '1-0:1.8.2(000170.853*kWh)',
             '0-0:96.14.0(0001)', '1-0:1.4.0(02.351*kW)', '1-0:1.6.0(230201020000W)(01.566*kW)'),
            {'smr_version': 50217, 'unique_id': '3153414733', 'total_power_import_kwh': 314.461,
             'total_power_import_t1_kwh': 143.608, 'active_tariff': 1, 'active_power_average_w': 2351,
             'montly_power_peak_w': 1566, 'montly_power_peak_timestamp': 230201020000},
        ),
        (
            'LUXEMBOURG_SMARTY',
            ('1-3:0.2.8(42)', '0-0:42.0.0(53414731)', '1-0:1.8.0(012345.000*kWh)', '1-0:2.8.0(000000.123*kWh)'),
            {'smr_version': 42, 'unique_id': '53414731', 'total_power_import_kwh': 12345.0,
             'total_power_export_kwh': 0.123},
        ),
        (
            'SWEDEN',
            ('1-0:1.8.0(00001605.055*kWh)', '1-0:1.7.0(0006.000*kW)', '1-0:31.7.0(013.6*A)', '1-0:21.7.0(0000.000*kW)',
             '1-0:22.7.0(0003.172*kW)'),
            {'total_power_import_kwh': 1605.055, 'active_power_w': 6000, 'active_power_l1_w': -3172,
             'active_current_l1_a': -13.6},
        ),
        (
            'EON_HUNGARY',
            ('0-0:96.1.0(3839)', '0-0:96.14.0(0003)', '1-0:1.8.1(000047.719*kWh)', '1-0:1.8.2(000125.921*kWh)',
             '1-0:1.8.3(000001.000*kWh)', '1-0:1.8.4(000002.000*kWh)', '1-0:14.7.0(50.01*Hz)', '1-0:31.7.0(003*A)'),
            {'unique_id': '3839', 'active_tariff': 3, 'total_power_import_kwh': 176.64,
             'total_power_import_t3_kwh': 1.0, 'total_power_import_t4_kwh': 2.0, 'active_frequency_hz': 50.01,
             'active_current_l1_a': 3.0},
        ),
        (
            'ISKRA_IE',
            ('0-0:96.1.1(3039)', '1-0:1.8.1(000010.181*kWh)', '1-0:2.8.1(000010.281*kWh)', '1-0:72.7.0(243.3*V)'),
            {'unique_id': '3039', 'total_power_import_kwh': 10.181, 'total_power_export_kwh': 10.281,
             'active_voltage_l3_v': 243.3},
        ),
        (
            'Q3D',
            ('1-0:0.0.0*255(0272031312565)', '1-0:1.8.0*255(00052185.7825309*kWh)', '1-0:21.7.0*255(000747.85*W)',
             '1-0:1.7.0*255(-02124.86*W)'),
            {'unique_id': '0272031312565', 'total_power_import_kwh': 52185.7825309, 'active_power_l1_w': 748,
             'active_power_w': -2125},
        ),
        (
            'SAGEMCOM_T210_D_R',
            ('1-0:1.8.0(000012345*Wh)', '1-0:1.7.0(00000345*W)', '1-0:2.7.0(00000000*W)'),
            {'total_power_import_kwh': 12.345, 'active_power_w': 345},
        ),
    ],
)  # fmt: skip
def test_meters_of_other_countries(
    specification: str, lines: tuple[str, ...], expected: dict[str, Any]
) -> None:
    """The names and units of every country become the same fields, in W and kWh."""
    fields = data(*lines, specification=specification)
    assert {field: fields.get(field) for field in expected} == expected


@pytest.mark.parametrize(
    ('header', 'model'),
    [
        ('/ISK5\\2M550T-101', 'ISKRA  2M550T-101'),
        ('/ISk5\\2MT382-1000', 'ISKRA  2MT382-1000'),
        ('/Ene5\\XS210 ESMR 5.0', 'Sagemcom XS210 ESMR 5.0'),
        ('/XMX5LGBBLA4415511423', 'Landis + Gyr LGBBLA4415511423'),
        ('/XMX5XMXABCE100103855', 'XMX5XMXABCE100103855'),
        ('/FLU5\\253769484_A', 'FLU5\\253769484_A'),
    ],
)
def test_the_model_is_the_header_line(header: str, model: str) -> None:
    """The makers that HomeWizard's devices name are named; any other model is the header line."""
    assert homewizard.data(read(from_lines('1-3:0.2.8(50)', header=header)))['meter_model'] == model


@pytest.mark.parametrize(
    ('version', 'expected'),
    [('50', 50), ('50217', 50217), ('9' * 10, None), ('5x', None), ('\xb2', None), ('', None)],
)
def test_the_version_is_a_number_of_few_digits(version: str, expected: int | None) -> None:
    """A version that is not a number of at most nine ASCII digits is left out."""
    assert data(f'1-3:0.2.8({version})').get('smr_version') == expected


@pytest.mark.parametrize(
    ('text', 'tariff'), [('0001', 1), ('0004', 4), ('0000', None), ('0005', None), ('', None)]
)
def test_a_tariff_is_one_to_four(text: str, tariff: int | None) -> None:
    """A tariff other than 1 to 4 is left out."""
    assert data(f'0-0:96.14.0({text})').get('active_tariff') == tariff


SECOND_TARIFFS = (
    '00x000.000*kWh',
    '002000.000*kvarh',
    '002000.000',
    '9' * 31 + '*kWh',
    '1)(2',
)


@pytest.mark.parametrize('second', SECOND_TARIFFS)
def test_the_total_is_the_meter_s_or_the_sum_of_what_can_be_read(second: str) -> None:
    """Without a total of the meter's own it is the sum of the registers that can be read; with one it is that one."""
    broken = ('1-0:1.8.1(001000.000*kWh)', f'1-0:1.8.2({second})', '1-0:1.8.5(000020.000*kWh)')
    assert data(*broken)['total_power_import_kwh'] == 1020.0
    assert data(*broken, '1-0:1.8.0(003000.000*kWh)')['total_power_import_kwh'] == 3000.0


def test_without_a_register_that_can_be_read_there_is_no_total() -> None:
    """A total is neither zero nor another value when nothing can be read."""
    fields = data('1-0:1.8.1(00x000.000*kWh)', '1-0:2.8.1(000005.000*kWh)')
    assert not [field for field in fields if field.startswith('total_power_import')]
    assert fields['total_power_export_kwh'] == 5.0


@pytest.mark.parametrize(
    ('specification', 'used', 'delivered'),
    [
        ('SWEDEN', '1-0:1.8.0(00006678.394*kWh)', '1-0:2.8.0(00000012.500*kWh)'),
        ('SAGEMCOM_T210_D_R', '1-0:1.8.0(006678394*Wh)', '1-0:2.8.0(000012500*Wh)'),
    ],
)
def test_a_meter_without_tariffs_has_its_total_as_tariff_1(
    specification: str, used: str, delivered: str
) -> None:
    """Clients that add up the tariffs get the total of a meter that has only one, as those do that read the total."""
    fields = data(used, delivered, specification=specification)
    energy = {name: value for name, value in fields.items() if name.startswith('total_power')}
    assert energy == {
        'total_power_import_kwh': 6678.394,
        'total_power_import_t1_kwh': 6678.394,
        'total_power_export_kwh': 12.5,
        'total_power_export_t1_kwh': 12.5,
    }


def test_a_total_is_no_tariff_when_tariffs_cannot_be_read() -> None:
    """A meter that has tariffs, none of which can be read, has its total but no tariff 1."""
    fields = data(
        '1-0:1.8.0(00006678.394*kWh)',
        '1-0:1.8.1(000123.456*XX)',
        specification='LUXEMBOURG_SMARTY',
    )
    assert fields['total_power_import_kwh'] == 6678.394
    assert 'total_power_import_t1_kwh' not in fields


@pytest.mark.parametrize('specification', ['auto', 'V5', 'BELGIUM_FLUVIUS', 'ISKRA_IE'])
def test_all_registers_are_in_the_sum(specification: str) -> None:
    """A register is in the sum whether a table knows it or not, in any multiple of Wh; four of them are tariffs."""
    fields = data(
        '1-0:1.8.1(001000.000*kWh)',
        '1-0:1.8.2(0002.000*MWh)',
        '1-0:1.8.3(000000300.0*Wh)',
        '1-0:1.8.5*255(000040.000*kWh)',
        '1-0:1.8.15(000005.000*kWh)',
        '1-0:2.8.5(000000.500*kWh)',
        specification=specification,
    )
    energy = {name: value for name, value in fields.items() if name.startswith('total_power')}
    assert energy == {
        'total_power_import_kwh': 3045.3,
        'total_power_import_t1_kwh': 1000.0,
        'total_power_import_t2_kwh': 2000.0,
        'total_power_import_t3_kwh': 0.3,
        'total_power_export_kwh': 0.5,
    }


@pytest.mark.parametrize(
    'line',
    [
        '1-0:1.8.2()',
        '1-0:1.8.10(x)',
        '1-0:1.8.13(1*kvarh)',
        '1-0:1.8.2*01(1*kWh)',
        '1-0:1.9.2(1*kWh)',
        '0-1:1.8.1(x)',
        '0-1:1.8.2(1*kWh)',
        '1-0:1.8.1(x)',
        '1-0:1.8.1(1*kWh)',
        '1-0:1.8.22',
    ],
)
def test_a_line_that_is_no_other_register_leaves_the_sum(line: str) -> None:
    """An empty register, one of last month, another quantity, a device's line and a second line add nothing."""
    fields = data(line, '1-0:1.8.1(001000.000*kWh)')
    assert fields['total_power_import_kwh'] == fields['total_power_import_t1_kwh'] == 1000.0


def test_a_register_that_comes_twice_counts_once() -> None:
    """Of an unknown register that is sent twice the last line counts."""
    fields = data('1-0:1.8.5(1*kWh)', '1-0:1.8.5(2*kWh)')
    assert fields['total_power_import_kwh'] == 2.0


def test_every_multiple_of_a_unit_is_converted() -> None:
    """kV, mA, kHz, W and MW become the fields' units."""
    fields = data(
        '1-0:32.7.0(0000.241*kV)',
        '1-0:52.7.0(000228000*mV)',
        '1-0:31.7.0(0000.005*kA)',
        '1-0:51.7.0(004000*mA)',
        '1-0:14.7.0(0000.049*kHz)',
        '1-0:1.7.0(0000.001*MW)',
        '1-0:2.7.0(000250*W)',
    )
    assert fields['active_voltage_l1_v'] == 241.0
    assert fields['active_voltage_l2_v'] == 228.0
    assert fields['active_current_l1_a'] == 5.0
    assert fields['active_current_l2_a'] == 4.0
    assert fields['active_frequency_hz'] == 49.0
    assert fields['active_power_w'] == 750


@pytest.mark.parametrize(
    ('used', 'delivered', 'watts'),
    [
        ('00.000*kW', '0x.500*kW', None),
        ('00.000*kW', '00.500*kvar', None),
        ('00.000*kW', '', 0),
        ('00.250*kW', '0x.500*kW', 250),
        ('0x.250*kW', '00.500*kW', None),
        ('00.000*kW', '00.500*kW', -500),
    ],
)
def test_power_that_may_be_delivered_is_not_zero(
    used: str, delivered: str, watts: int | None
) -> None:
    """Without a usable delivered power there is no net power when none is used: it may be anything below zero."""
    whole = (f'1-0:1.7.0({used})', f'1-0:2.7.0({delivered})')
    phase = (f'1-0:41.7.0({used})', f'1-0:42.7.0({delivered})')
    fields = data('1-0:32.7.0(230.1*V)', *whole, *phase)
    assert (fields.get('active_power_w'), fields.get('active_power_l2_w')) == (watts, watts)


@pytest.mark.parametrize(
    ('second', 'amperes'), [('002*A', 3.0), ('', 1.0), ('0x2*A', None), ('2*V', None)]
)
def test_the_current_of_some_phases_is_not_that_of_all(second: str, amperes: float | None) -> None:
    """When a phase's current is unusable there is no sum; a phase without current adds nothing."""
    fields = data('1-0:31.7.0(001*A)', f'1-0:51.7.0({second})')
    assert (fields['active_current_l1_a'], fields.get('active_current_a')) == (1.0, amperes)


def test_the_sum_of_currents_has_no_direction() -> None:
    """Some meters send the current of a phase that delivers with a sign: it does not diminish the others."""
    fields = data('1-0:31.7.0(-001*A)', '1-0:51.7.0(002*A)')
    assert fields['active_current_a'] == 3.0


def test_a_meter_that_sends_no_current_has_no_sum_of_currents() -> None:
    """A sum of nothing would be a current of zero, which no line of the telegram says."""
    fields = data('1-0:1.7.0(00.500*kW)', '1-0:32.7.0(230.0*V)')
    assert fields['active_power_w'] == 500
    assert 'active_current_a' not in fields


def mbus(channel: int, kind: str, reading: str, identifier: str = '4730') -> list[str]:
    return [
        f'0-{channel}:24.1.0({kind})',
        f'0-{channel}:96.1.0({identifier})',
        f'0-{channel}:24.2.1{reading}',
    ]


@pytest.mark.parametrize(
    ('kind', 'name', 'unit'),
    [
        ('003', 'gas_meter', 'm3'),
        ('004', 'heat_meter', 'GJ'),
        ('006', 'warm_water_meter', 'm3'),
        ('007', 'water_meter', 'm3'),
        ('012', 'inlet_heat_meter', 'GJ'),
    ],
)
def test_every_kind_of_device_has_its_type(kind: str, name: str, unit: str) -> None:
    """An M-Bus device is listed with type, unit, value and the meter's own local time as a number."""
    (device,) = data(*mbus(2, kind, f'(240715103000S)(00046.720*{unit})'))['external']
    assert device == {
        'unique_id': '4730',
        'type': name,
        'timestamp': 240715103000,
        'value': 46.72,
        'unit': unit,
    }
    assert type(device['timestamp']) is int


@pytest.mark.parametrize(
    'lines',
    [
        mbus(1, '003', '(632525252525W)(00012.000*m3)'),
        mbus(1, '003', '(700101010000W)(00000.000*m3)'),
        mbus(1, '003', '(090101010000W)(00012.000*m3)'),  # as a number, eleven digits
        mbus(1, '003', '()(00012.000*m3)'),
        mbus(1, '003', '(240715103000S)()'),
        mbus(1, '003', '(240715103000S)(00012.000)'),
        mbus(1, '003', '(240715103000S)(00012.000*kWh)'),
        mbus(1, '003', '(240715103000S)(00000.000*m3)', identifier=''),
        mbus(1, '002', '(240715103000S)(00012.000*m3)'),
        mbus(1, '', '(240715103000S)(00012.000*m3)'),
        ['0-1:24.1.0(003)', '0-1:96.1.0(4730)'],
        ['0-1:24.2.1(240715103000S)(00012.000*m3)'],
    ],
)
def test_an_incomplete_device_is_left_out(lines: list[str]) -> None:
    """A device without a time, value, unit or kind that clients know is left out; the next device stays."""
    complete = mbus(4, '007', '(240715103000S)(00001.500*m3)', identifier='3853')
    assert [device['unique_id'] for device in data(*lines, *complete)['external']] == ['3853']


def test_the_first_year_of_twelve_digits_is_2010() -> None:
    """The earliest time that has twelve digits is listed."""
    (device,) = data(*mbus(1, '003', '(100101000000W)(00012.000*m3)'))['external']
    assert device['timestamp'] == 100101000000


def test_devices_without_a_number_of_their_own_are_told_apart() -> None:
    """Their unique_id is the meter's number and their channel, also when two send the same number, or only zeros."""
    moment = '(240715103000S)(00012.000*m3)'
    identifiers = ('', '', '4730', '4730', '0000000000')
    lines = [
        line
        for channel, identifier in enumerate(identifiers, 1)
        for line in mbus(channel, '007', moment, identifier=identifier)
    ]
    devices = data('0-0:96.1.1(4531)', *lines)['external']
    assert [device['unique_id'] for device in devices] == [
        '4531-1',
        '4531-2',
        '4730',
        '4531-4',
        '4531-5',
    ]
    (device,) = data(*mbus(3, '003', moment, identifier=''))['external']
    assert device['unique_id'] == 'dsmr-rest-server-3'


@pytest.mark.parametrize(
    ('sent', 'value', 'unit'),
    [('00012000*dm3', 12.0, 'm3'), ('01234.5*MJ', 1.2345, 'GJ'), ('00001*GJ', 1.0, 'GJ')],
)
def test_a_device_has_one_of_two_units(sent: str, value: float, unit: str) -> None:
    """Multiples of m3 and GJ are converted, because clients know only these two."""
    (device,) = data(*mbus(1, '004', f'(240715103000S)({sent})'))['external']
    assert (device['value'], device['unit']) == (value, unit)


def test_a_gas_meter_without_a_number_has_no_id() -> None:
    """The reading of a gas meter that does not state its number is there without the field for it."""
    fields = data('0-1:24.1.0(003)', '0-1:24.2.1(240621120000S)(00012.500*m3)')
    assert fields['total_gas_m3'] == 12.5
    assert 'gas_unique_id' not in fields


def test_the_device_has_the_five_keys_that_clients_need() -> None:
    """/api has the product type, name and version that clients know, and a serial and firmware of the right form."""
    device = homewizard.device(read(of_version('5.0')))
    assert re.fullmatch(r'\d\.\d\d(\d\d)?', device.pop('firmware_version'))
    assert re.fullmatch(r'[0-9a-f]{12}', device.pop('serial'))
    assert device == {'product_type': 'HWE-P1', 'product_name': 'P1 Meter', 'api_version': 'v1'}


def serial(identifier: str, *lines: str, header: str = '/ISK5\\2M550T-101') -> str:
    telegram = from_lines('1-3:0.2.8(50)', f'0-0:96.1.1({identifier})', *lines, header=header)
    return str(homewizard.device(read(telegram))['serial'])


def test_the_serial_is_the_meters_own() -> None:
    """It is the same whatever the meter measures, today and in every later version, and differs between meters."""
    first = serial('4530303632')
    assert first == serial('4530303632', '1-0:1.7.0(01.234*kW)') == '7a3f3f997384'
    assert len({first, serial('4530303633'), serial('4530303632', header='/ISK5\\2M550T-102')}) == 3


def test_the_serial_is_an_address_that_no_maker_assigns() -> None:
    """As a MAC address it is locally administered and not a multicast one (IEEE 802)."""
    assert int(serial('4530303632')[:2], 16) & 0b11 == 0b10


def test_trying_all_meters_takes_years() -> None:
    """A serial costs a millisecond of processor time at the very least, and only the first time."""
    reading = read(from_lines('1-3:0.2.8(50)', '0-0:96.1.1(39393939)'))
    spent = []
    for _ in range(2):
        began = time.process_time()
        homewizard.device(reading)
        spent.append(time.process_time() - began)
    assert spent[0] > 0.001 > spent[1]


@pytest.fixture
def constant() -> Iterator[FaultyMeter]:
    """A Belgian meter that sends the same telegram five times a second."""
    telegram = of_version('belgium')
    with new_meter('belgium', interval=0.2, source=lambda: telegram) as simulated:
        yield simulated


def test_without_the_setting_the_paths_do_not_exist(
    start_server: StartServer, constant: FaultyMeter
) -> None:
    """Without the setting all its paths are 404, and the meter is not read."""
    server = start_server(constant.port)
    assert {server.get(path).status for path in PATHS} == {404}
    assert (
        server.get('/health', {'Cache-Control': 'no-cache'}).json['counters']['portOpenings'] == 1
    )


def test_with_the_setting_they_are_a_device(
    start_server: StartServer, constant: FaultyMeter
) -> None:
    """The three paths return JSON, JSON with its age, and the telegram's own bytes."""
    server = start_server(constant.port, server=ON)
    began = time.monotonic()
    device, fields, telegram = (server.get(path) for path in PATHS)
    assert (device.status, fields.status, telegram.status) == (200, 200, 200)
    assert device.headers['Content-Type'] == fields.headers['Content-Type'] == 'application/json'
    assert telegram.headers['Content-Type'].startswith('text/plain')
    reading = read(of_version('belgium'))
    assert device.json == homewizard.device(reading)
    assert fields.json == homewizard.data(reading)
    assert telegram.body == of_version('belgium')
    assert int(fields.headers['Age']) <= time.monotonic() - began


def test_other_paths_of_the_api_are_404(start_server: StartServer, constant: FaultyMeter) -> None:
    """A P1 meter has no state: a status other than 404 fails the client's whole update."""
    server = start_server(constant.port, server=ON)
    for path in ('/api/v1/state', '/api/v1/', '/api/v1', '/api/', '/api/v2'):
        assert server.get(path).status == 404, path


@pytest.mark.parametrize('system', ['/api/v1/system', '/api/v1/%73ystem'])
def test_the_system_is_without_a_cloud_and_stays_so(start_server: StartServer, system: str) -> None:
    """GET says that there is no cloud; PUT is refused in the form of the API, as something that cannot change."""
    server = start_server(MISSING_PORT, server=ON)
    response = server.get(system)
    assert (response.status, response.json) == (200, {'cloud_enabled': False})
    refusal = server.get(system, method='PUT')
    assert (refusal.status, refusal.headers['Allow']) == (405, 'GET, HEAD, OPTIONS')
    assert refusal.json['error'].keys() == {'id', 'description'}
    assert refusal.json['error']['id'] == 8
    assert server.get(system).json == {'cloud_enabled': False}


def test_identify_writes_a_line_to_the_log(start_server: StartServer) -> None:
    """PUT /api/v1/identify succeeds as the API describes, with one line in the log; it cannot be read."""
    server = start_server(MISSING_PORT, server=ON)
    response = server.get('/api/v1/identify', method='PUT')
    assert (response.status, response.json) == (200, {'identify': 'ok'})
    refused = server.get('/api/v1/identify')
    assert (refused.status, refused.headers['Allow']) == (405, 'OPTIONS, PUT')
    wait_for(lambda: 'identify: ' in server.log)
    assert server.stop() == 0
    assert server.log.count('identify: ') == 1


def test_without_the_setting_nothing_can_be_put(start_server: StartServer) -> None:
    """Without the setting PUT is 405 for every path, as it is for the paths that can only be read."""
    server = start_server(MISSING_PORT)
    for path in ('/api/v1/system', '/api/v1/identify', '/api', '/'):
        response = server.get(path, method='PUT')
        allowed = response.headers['Allow']
        assert (response.status, allowed) == (405, 'GET, HEAD, OPTIONS'), path


def test_a_lost_meter_is_503(start_server: StartServer, constant: FaultyMeter) -> None:
    """Without the port the response is 503, for which clients show the device as unavailable."""
    server = start_server(constant.port, server=ON, meter={'timeout': 2})
    assert [server.get(path).status for path in PATHS] == [200] * len(PATHS)
    constant.unplug()
    for path in PATHS:
        wait_for(lambda path=path: server.get(path).status == 503)  # type: ignore[misc]
        assert server.get(path).headers['Retry-After']


def test_a_poller_faster_than_a_slow_meter_never_fails(start_server: StartServer) -> None:
    """After two telegrams, polls with a timeout shorter than the meter's interval succeed, and are no older than it."""
    interval, patience, polls = SLOW_INTERVAL + 0.5, 1.5, 10
    with new_meter('4.2', interval=interval) as slow:
        server = start_server(slow.port, server=ON)
        assert [server.get('/api/v1/data').status for _ in range(2)] == [200, 200]
        replies = []
        for _ in range(polls):
            time.sleep(0.5)  # the poller's own pace
            replies.append(server.get('/api/v1/data', timeout=patience))
        assert {reply.status for reply in replies} == {200}
        assert max(int(reply.headers['Age']) for reply in replies) <= interval
        assert len({reply.headers['Last-Modified'] for reply in replies}) > 1
        assert server.get('/health').json['counters']['portOpenings'] == 1


PROGRAM = """
import asyncio, json, logging, sys
from homewizard_energy import HomeWizardEnergyV1, has_v2_api
logging.basicConfig(level=logging.WARNING, stream=sys.stderr)

async def main(host):
    async with HomeWizardEnergyV1(host=host) as api:
        combined = await api.combined()
        telegram = await api.telegram()
        measurement = {key: value for key, value in vars(combined.measurement).items() if value is not None}
        devices = measurement.pop('external_devices') or {}
        print(json.dumps({
            'device': vars(combined.device),
            'measurement': measurement,
            'devices': {key: vars(value) for key, value in devices.items()},
            'state': combined.state,
            'system': vars(combined.system),
            'telegram': telegram,
            'v2': await has_v2_api(host),
        }, default=str))
    await api.close()

asyncio.run(main(sys.argv[1]))
"""


def newer_python() -> str | None:
    """A Python that the client library runs on: 3.12 or newer, with what a virtual environment needs."""
    on_path = [shutil.which(f'python3.{minor}') for minor in range(12, 20)]
    of_pyenv = Path.home().glob('.pyenv/versions/3.1[2-9]*/bin/python')
    check = 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 12))'
    for python in [sys.executable, *on_path, *map(str, of_pyenv)]:
        if (
            python
            and subprocess.run([python, '-c', check], capture_output=True, check=False).returncode
            == 0
        ):
            return python
    return None


def absent(reason: str) -> None:
    """Skips the test; fails it where everything must be installed."""
    if os.environ.get('DSMR_REQUIRE_SYSTEM_PACKAGES') == '1':
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope='module')
def client(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has the client library."""
    found = newer_python()
    if not found:
        absent('the client library needs Python 3.12 or newer with venv, as Debian 13 has it')
    assert found
    folder = tmp_path_factory.mktemp('client')
    subprocess.run([found, '-m', 'venv', folder], check=True)
    python = str(folder / 'bin' / 'python')
    pip = [python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', CLIENT]
    installed = subprocess.run(pip, capture_output=True, text=True, check=False)
    if installed.returncode:
        absent(f'pip cannot install {CLIENT}: {installed.stderr.strip().splitlines()[-1:]}')
    return python


def seen_by(client: str, port: int) -> Any:
    """What the client library reads from the server; it must not log a warning."""
    command = [client, '-c', PROGRAM, f'127.0.0.1:{port}']
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, '')
    return json.loads(done.stdout)


def test_the_real_client_reads_a_constant_meter(
    client: str, start_server: StartServer, constant: FaultyMeter
) -> None:
    """Home Assistant's library accepts the responses as a device of version 1, and every value arrives."""
    seen = seen_by(client, start_server(constant.port, server=ON).port)
    reading = read(of_version('belgium'))
    device, fields = homewizard.device(reading), homewizard.data(reading)
    # Its word for v1.
    assert {key: seen['device'][key] for key in device} == device | {'api_version': '1.0.0'}
    measurement = seen['measurement']
    for ours, theirs in (
        ('total_power_import_kwh', 'energy_import_kwh'),
        ('total_power_import_t1_kwh', 'energy_import_t1_kwh'),
        ('total_power_import_t2_kwh', 'energy_import_t2_kwh'),
        ('total_power_export_kwh', 'energy_export_kwh'),
        ('active_power_w', 'power_w'),
        ('active_power_l2_w', 'power_l2_w'),
        ('active_voltage_l3_v', 'voltage_l3_v'),
        ('active_current_l2_a', 'current_l2_a'),
        ('active_tariff', 'tariff'),
        ('smr_version', 'protocol_version'),
        ('meter_model', 'meter_model'),
        ('active_power_average_w', 'average_power_15m_w'),
        ('montly_power_peak_w', 'monthly_power_peak_w'),
    ):
        assert measurement[theirs] == fields[ours]
    assert measurement['unique_id'] == '1SIM0000000001'
    assert re.fullmatch(
        r'20\d\d-\d\d-\d\d \d\d:\d\d:\d\d', measurement['monthly_power_peak_timestamp']
    )
    gas, water = fields['external']
    assert [
        (device['unique_id'], device['unit'], device['value'])
        for device in seen['devices'].values()
    ] == [
        ('7SIM0000000001', 'm3', gas['value']),
        ('8SIM0000000001', 'm3', water['value']),
    ]
    assert [key.partition('_7')[0].partition('_8')[0] for key in seen['devices']] == [
        'gas_meter',
        'water_meter',
    ]
    assert (seen['state'], seen['v2']) == (None, False)
    assert seen['system']['wifi_ssid'] == 'dsmr-rest-server'
    assert seen['system']['cloud_enabled'] is False
    assert seen['telegram'].encode() == of_version('belgium')


def test_the_real_client_reads_the_demo(client: str, start_server: StartServer) -> None:
    """Home Assistant's library reads the demo: power, energy in total and by tariff, and gas."""
    seen = seen_by(client, start_server('/dev/null', '--demo', server=ON).port)
    measurement = seen['measurement']
    parts = measurement['energy_import_t1_kwh'] + measurement['energy_import_t2_kwh']
    assert measurement['energy_import_kwh'] == pytest.approx(parts)
    assert measurement['power_w'] == round(measurement['power_w'])
    assert measurement['tariff'] in (1, 2)
    assert measurement['protocol_version'] == 50
    assert [device['unique_id'] for device in seen['devices'].values()] == ['G0001000000000001']


MODELS_PROGRAM = """
import logging, sys
from homewizard_energy.models import Measurement
logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
for line in sys.stdin:
    measurement = Measurement.from_json(line)
    print(measurement.wifi_ssid, len(measurement.external_devices))
"""


def test_the_real_client_takes_what_is_left_of_hostile_telegrams(client: str) -> None:
    """Whatever a telegram contains, the library takes the fields, and each device that has an identifier of its own."""
    lines: list[str] = []
    expected: list[str] = []

    chooser = Chooser()

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(hostile_telegrams())
    def collect(telegram: bytes) -> None:
        for reading in usable_readings(telegram, chooser):
            fields = homewizard.data(reading)
            devices = {(device['type'], device['unique_id']) for device in fields['external']}
            lines.append(json.dumps(fields))
            expected.append(f'dsmr-rest-server {len(devices)}')

    collect()
    command = [client, '-c', MODELS_PROGRAM]
    done = subprocess.run(
        command,
        input='\n'.join(lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.splitlines() == expected
    assert len(lines) > 100
