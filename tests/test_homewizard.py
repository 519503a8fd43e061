"""The HomeWizard-compatible answers: the mapping, the routes from outside, and the client library of Home Assistant."""

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
from conftest import StartServer, new_meter
from telegrams import from_lines, of_version, read, read_lines

from dsmr_rest import homewizard
from dsmr_rest.meter import SLOW_INTERVAL
from dsmr_rest.simulated_meter import VERSIONS, SimulatedMeter

ON = {'homewizard_api': 'yes'}
PATHS = ('/api', '/api/v1/data', '/api/v1/telegram')
CLIENT = 'python-homewizard-energy>=10,<11'

# Where each field comes from: its OBIS code, and the factor from the line's unit to the field's.
SOURCES = {
    'active_voltage_l1_v': ('1-0:32.7.0', 1),
    'active_voltage_l2_v': ('1-0:52.7.0', 1),
    'active_voltage_l3_v': ('1-0:72.7.0', 1),
    'voltage_sag_l1_count': ('1-0:32.32.0', 1),
    'voltage_sag_l2_count': ('1-0:52.32.0', 1),
    'voltage_sag_l3_count': ('1-0:72.32.0', 1),
    'voltage_swell_l1_count': ('1-0:32.36.0', 1),
    'voltage_swell_l2_count': ('1-0:52.36.0', 1),
    'voltage_swell_l3_count': ('1-0:72.36.0', 1),
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
    """The answer for a telegram of these lines."""
    return homewizard.data(read_lines(*lines, specification=specification))


def last_number(telegram: bytes, code: str) -> float | None:
    """The number in the last brackets of the code's line."""
    match = re.search(rf'^{re.escape(code)}(?:\([^)]*\))*?\(([\d.]+)[^)]*\)\r$', telegram.decode(), re.MULTILINE)
    return float(match[1]) if match else None


@pytest.mark.parametrize('version', VERSIONS)
def test_plain_fields_are_those_of_their_lines(version: str) -> None:
    """A field is there when its OBIS code is in the telegram, with its value in the field's unit, and not otherwise."""
    telegram = of_version(version)
    answer = homewizard.data(read(telegram))
    for field, (code, factor) in SOURCES.items():
        number = last_number(telegram, code)
        assert answer.get(field) == (None if number is None else pytest.approx(number * factor)), field


@pytest.mark.parametrize('version', VERSIONS)
def test_no_field_is_null_and_watts_are_whole(version: str) -> None:
    """What is not available is left out, every power is an integer, and the answer is plain JSON."""
    answer = homewizard.data(read(of_version(version)))
    assert None not in answer.values()
    assert {type(value) for field, value in answer.items() if field.endswith('_w')} == {int}
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


@pytest.mark.parametrize('version', VERSIONS)
def test_the_totals_are_there_with_the_tariffs(version: str) -> None:
    """Import and export in all are the sums of their tariffs to the Wh: without them clients take tariff 1 for all."""
    answer = homewizard.data(read(of_version(version)))
    for way in ('import', 'export'):
        parts = (answer[f'total_power_{way}_t{n}_kwh'] for n in (1, 2))
        assert answer[f'total_power_{way}_kwh'] == round(sum(parts), 3)


def test_a_whole_telegram() -> None:
    """A Dutch telegram with everything a field is made of gives exactly these fields and values."""
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
def test_meters_of_other_countries(specification: str, lines: tuple[str, ...], expected: dict[str, Any]) -> None:
    """Each country's names and units come out as the same fields, W and kWh."""
    answer = data(*lines, specification=specification)
    assert {field: answer.get(field) for field in expected} == expected


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
    """Makers that devices name are named; of any other meter the header line says what there is to say."""
    assert homewizard.data(read(from_lines('1-3:0.2.8(50)', header=header)))['meter_model'] == model


@pytest.mark.parametrize(('text', 'tariff'), [('0001', 1), ('0004', 4), ('0000', None), ('0005', None), ('', None)])
def test_a_tariff_is_one_to_four(text: str, tariff: int | None) -> None:
    """Another tariff than 1 to 4 is left out."""
    assert data(f'0-0:96.14.0({text})').get('active_tariff') == tariff


def test_without_an_unreadable_tariff_there_is_no_energy() -> None:
    """A sum that lacks a tariff, or that tariff 1 would be taken for, is not given; the meter's own total is."""
    broken = ('1-0:1.8.1(001000.000*kWh)', '1-0:1.8.2(00x000.000*kWh)', '1-0:2.8.1(000005.000*kWh)')
    answer = data(*broken)
    assert not [field for field in answer if field.startswith('total_power_import')]
    assert answer['total_power_export_kwh'] == 5.0
    assert data(*broken, '1-0:1.8.0(003000.000*kWh)')['total_power_import_kwh'] == 3000.0


def mbus(channel: int, kind: str, reading: str, identifier: str = '4730') -> list[str]:
    return [f'0-{channel}:24.1.0({kind})', f'0-{channel}:96.1.0({identifier})', f'0-{channel}:24.2.1{reading}']


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
def test_each_kind_of_device_has_its_name(kind: str, name: str, unit: str) -> None:
    """An M-Bus device is listed with type, unit, value and the meter's own local time as a number."""
    (device,) = data(*mbus(2, kind, f'(240715103000S)(00046.720*{unit})'))['external']
    assert device == {'unique_id': '4730', 'type': name, 'timestamp': 240715103000, 'value': 46.72, 'unit': unit}
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
def test_a_device_with_nothing_to_say_is_left_out(lines: list[str]) -> None:
    """One bad device would make clients drop the whole measurement: it is left out and its neighbour stays."""
    neighbour = mbus(4, '007', '(240715103000S)(00001.500*m3)', identifier='3853')
    assert [each['unique_id'] for each in data(*lines, *neighbour)['external']] == ['3853']


def test_a_device_without_identifier_has_an_empty_one() -> None:
    """A device that counts is listed although its identifier is empty: clients need the key."""
    (device,) = data(*mbus(1, '003', '(240715103000S)(00012.000*m3)', identifier=''))['external']
    assert device['unique_id'] == ''


def test_the_device_has_the_five_keys_that_clients_need() -> None:
    """/api says what clients know how to talk to, in the forms they know."""
    device = homewizard.device(read(of_version('5.0')))
    assert {key: device[key] for key in ('product_type', 'product_name', 'api_version')} == {
        'product_type': 'HWE-P1',
        'product_name': 'P1 Meter',
        'api_version': 'v1',
    }
    assert re.fullmatch(r'\d\.\d\d(\d\d)?', device['firmware_version'])
    assert re.fullmatch(r'[0-9a-f]{12}', device['serial'])
    assert len(device) == 5


def serial(identifier: str, header: str = '/ISK5\\2M550T-101', **values: float) -> str:
    lines = [f'0-0:96.1.1({identifier})', *(f'1-0:1.7.0({value:06.3f}*kW)' for value in values.values())]
    number: str = homewizard.device(read(from_lines('1-3:0.2.8(50)', *lines, header=header)))['serial']
    return number


def test_the_serial_is_the_meters_and_hides_it() -> None:
    """It is the same for one meter whatever it measures, another for another, and an address that no maker assigns."""
    first = serial('4530303632')
    assert first == serial('4530303632', power=1.234)
    assert len({first, serial('4530303633'), serial('4530303632', '/ISK5\\2M550T-102')}) == 3
    assert int(first[:2], 16) & 0b11 == 0b10
    homewizard._serial.cache_clear()
    assert serial('4530303632') == first


def test_trying_all_meters_takes_years() -> None:
    """A serial costs a millisecond of processor time at the very least, and only the first time."""
    homewizard._serial.cache_clear()
    began = time.process_time()
    homewizard._serial('a meter')
    assert time.process_time() - began > 0.001
    homewizard._serial('a meter')
    assert homewizard._serial.cache_info().hits == 1


@pytest.fixture
def constant() -> Iterator[SimulatedMeter]:
    """A Belgian meter that says the same thing five times a second."""
    telegram = of_version('belgium')
    with new_meter('belgium', interval=0.2, source=lambda: telegram) as simulated:
        yield simulated


def test_off_means_not_there(start_server: StartServer, constant: SimulatedMeter) -> None:
    """Without the setting all its paths are 404, and the meter is not asked."""
    server = start_server(constant.port)
    assert {server.get(path).status for path in PATHS} == {404}
    assert server.get('/health', {'Cache-Control': 'no-cache'}).json['counters']['portOpenings'] == 1


def test_on_means_these_answers(start_server: StartServer, constant: SimulatedMeter) -> None:
    """The three paths give JSON, JSON and the telegram's own bytes; data says its age."""
    server = start_server(constant.port, server=ON)
    device, answer, telegram = (server.get(path) for path in PATHS)
    assert [each.status for each in (device, answer, telegram)] == [200, 200, 200]
    assert device.headers['Content-Type'] == answer.headers['Content-Type'] == 'application/json'
    assert telegram.headers['Content-Type'].startswith('text/plain')
    reading = read(of_version('belgium'))
    assert device.json == homewizard.device(reading)
    assert answer.json == homewizard.data(reading)
    assert telegram.body == of_version('belgium')
    assert int(answer.headers['Age']) <= 1


@pytest.mark.parametrize('path', ['/api/v1/state', '/api/v1/system', '/api/v1/', '/api/v1', '/api/', '/api/v2'])
def test_what_this_is_not_is_404(start_server: StartServer, constant: SimulatedMeter, path: str) -> None:
    """A P1 meter has no state, and this one no system: any other status than 404 fails the client's whole update."""
    assert start_server(constant.port, server=ON).get(path).status == 404


@pytest.mark.parametrize('path', PATHS)
def test_a_meter_that_is_away_is_503(start_server: StartServer, constant: SimulatedMeter, path: str) -> None:
    """Without the port the answer is 503, upon which clients show the device as unavailable."""
    server = start_server(constant.port, server=ON, meter={'timeout': 2})
    assert server.get(path).status == 200
    constant.unplug()

    def away() -> bool:
        return server.get(path).status == 503

    deadline = time.monotonic() + 10
    while not away():
        assert time.monotonic() < deadline
    assert server.get(path).headers['Retry-After']


def test_a_poller_faster_than_a_slow_meter_never_fails(start_server: StartServer) -> None:
    """Once two telegrams have come, polls with less patience than the meter's interval succeed, aged within it."""
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
    """A Python that the client library runs on: 3.12 or newer."""
    names = [f'python3.{minor}' for minor in range(12, 20)]
    found = [sys.executable, *(path for name in names if (path := shutil.which(name)))]
    found += map(str, sorted(Path.home().glob('.pyenv/versions/3.1[2-9]*/bin/python')))
    check = 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 12))'
    return next(
        (
            each
            for each in found
            if not subprocess.run([each, '-c', check], capture_output=True, check=False).returncode
        ),
        None,
    )


def absent(reason: str) -> None:
    """Skips the test; fails it where everything is said to be installed."""
    if os.environ.get('DSMR_REQUIRE_SYSTEM_PACKAGES') == '1':
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope='module')
def client(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has the client library."""
    found = newer_python()
    if not found:
        absent('the client library needs Python 3.12 or newer, and there is none')
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
    """What the client library makes of the server; it must not log a complaint."""
    done = subprocess.run(
        [client, '-c', PROGRAM, f'127.0.0.1:{port}'], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, '')
    return json.loads(done.stdout)


def test_the_real_client_reads_a_constant_meter(
    client: str, start_server: StartServer, constant: SimulatedMeter
) -> None:
    """Home Assistant's library takes the answers for a device of version 1, and every value arrives."""
    seen = seen_by(client, start_server(constant.port, server=ON).port)
    reading = read(of_version('belgium'))
    device, answer = homewizard.device(reading), homewizard.data(reading)
    assert {key: seen['device'][key] for key in device} == device | {'api_version': '1.0.0'}  # its word for v1
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
        assert measurement[theirs] == answer[ours]
    assert measurement['unique_id'] == '1SIM0000000001'
    assert re.fullmatch(r'20\d\d-\d\d-\d\d \d\d:\d\d:\d\d', measurement['monthly_power_peak_timestamp'])
    assert [(each['unique_id'], each['unit'], each['value']) for each in seen['devices'].values()] == [
        ('7SIM0000000001', 'm3', answer['external'][0]['value']),
        ('8SIM0000000001', 'm3', answer['external'][1]['value']),
    ]
    assert [key.partition('_7')[0].partition('_8')[0] for key in seen['devices']] == ['gas_meter', 'water_meter']
    assert (seen['state'], seen['v2']) == (None, False)
    assert seen['system']['wifi_ssid'] == 'dsmr-rest-server'
    assert seen['telegram'].encode() == of_version('belgium')


def test_the_real_client_reads_the_demo(client: str, start_server: StartServer) -> None:
    """The demo is a device with readings to Home Assistant's library: power, energy in all and per tariff, and gas."""
    seen = seen_by(client, start_server('/dev/null', '--demo', server=ON).port)
    measurement = seen['measurement']
    parts = measurement['energy_import_t1_kwh'] + measurement['energy_import_t2_kwh']
    assert measurement['energy_import_kwh'] == pytest.approx(parts)
    assert measurement['power_w'] == round(measurement['power_w'])
    assert measurement['tariff'] in (1, 2)
    assert measurement['protocol_version'] == 50
    assert [each['unique_id'] for each in seen['devices'].values()] == ['G0001000000000001']
