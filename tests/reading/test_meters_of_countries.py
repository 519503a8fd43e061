"""Telegrams as meters of many countries send them: what comes out under which name, and nothing under a wrong one."""

from typing import Any

import pytest

from dsmr_rest.api import homewizard
from dsmr_rest.reading.document import Reading, make_reading
from dsmr_rest.reading.specification import Chooser
from tests.telegrams import framed, from_lines


def read_from(*lines: str, header: str, time_zone: str = 'Europe/Amsterdam') -> Reading:
    """The reading of a telegram of these lines, whose specification is found."""
    telegram = framed(from_lines(*lines, header=header))
    return make_reading(telegram, Chooser('auto', time_zone), 0.0, 0.0)


def quantity(value: Any, unit: str | None = None) -> dict[str, Any]:
    return {'value': value, 'unit': unit}


LITHUANIA = (
    '0-0:1.0.0(240702091512S)',
    '1-0:1.8.0(00000512.345*kWh)',
    '1-0:1.8.1(00000300.345*kWh)',
    '1-0:1.8.2(00000200.000*kWh)',
    '1-0:1.8.3(00000010.000*kWh)',
    '1-0:1.8.4(00000002.000*kWh)',
    '1-0:2.8.1(00000030.000*kWh)',
    '1-0:2.8.4(00000001.500*kWh)',
    '1-0:3.8.0(00000014.000*kvarh)',
    '1-0:3.8.3(00000000.250*kvarh)',
    '1-0:32.7.0(0000.236*kV)',
    '1-0:32.24.0(0000.235*kV)',
    '1-0:31.7.0(0000.007*kA)',
    '1-0:31.4.0(0000.006*kA)',
    '1-0:51.4.0(0000.002*kA)',
    '1-0:71.4.0(0000.001*kA)',
    '1-0:14.7.0(0000.050*kHz)',
    '1-0:21.7.0(00000001.520*kW)',
    '1-0:22.7.0(00000000.000*kW)',
    '1-0:1.4.0(000000.700*kW)',
    '1-0:0.2.8(1EA433F0)',
    '0-0:96.1.1(30303030)',
)


def test_a_lithuanian_meter() -> None:
    """Phases, tariffs and the frequency have their names, averages do not become thresholds of fuses or Belgian."""
    reading = read_from(*LITHUANIA, header='/ESO5\\TEST', time_zone='Europe/Vilnius')
    document = reading.document
    assert document['p1MessageTimestamp'] == quantity('2024-07-02T09:15:12+03:00')
    assert document['electricityImportedTotal'] == quantity(512.345, 'kWh')
    assert document['electricityUsedTariff4'] == quantity(2.0, 'kWh')
    assert document['instantaneousActivePowerL1Positive'] == quantity(1.52, 'kW')
    assert document['frequency'] == quantity(0.05, 'kHz')
    assert document['otherObjects'] == {
        '1-0:3.8.3': quantity(0.25, 'kvarh'),
        '1-0:32.24.0': quantity(0.235, 'kV'),
        '1-0:31.4.0': quantity(0.006, 'kA'),
        '1-0:51.4.0': quantity(0.002, 'kA'),
        '1-0:71.4.0': quantity(0.001, 'kA'),
        '1-0:1.4.0': quantity(0.7, 'kW'),
        '1-0:0.2.8': quantity('1EA433F0'),
        '0-0:96.1.1': quantity('30303030'),
    }
    assert (reading.version, reading.identifier, reading.not_understood) == (None, '30303030', ())
    fields = homewizard.data(reading)
    assert fields['active_voltage_l1_v'] == 236.0
    assert fields['active_current_l1_a'] == 7.0
    assert fields['active_power_l1_w'] == 1520
    assert fields['active_frequency_hz'] == 50.0
    assert fields['total_power_import_kwh'] == 512.345
    assert fields['total_power_export_kwh'] == 31.5
    assert fields['unique_id'] == '30303030'


HUNGARY = (
    '0-0:1.0.0(240702091512S)',
    '0-0:42.0.0(48554E31)',
    '0-0:96.1.0(48554E32)',
    '0-0:96.14.0(0001)',
    '0-0:96.50.68(ON)',
    '0-0:17.0.0(32.000*kW)',
    '1-0:1.8.0(000173.640*kWh)',
    '1-0:15.8.0(000800.817*kWh)',
    '1-0:31.4.0(032.00*A)',
    '1-0:51.4.0(032.00*A)',
    '1-0:13.7.0(0.956)',
    '0-0:98.1.0(240701000000S)(000040.777*kWh)(03.564*kW)',
)


def test_a_hungarian_meter() -> None:
    """With the numbers of a Hungarian meter the thresholds of the fuses have their names."""
    document = read_from(*HUNGARY, header='/SAG5TEST').document
    assert document['fuseThresholdL1'] == quantity(32.0, 'A')
    assert document['fuseThresholdL2'] == quantity(32.0, 'A')
    assert document['equipmentSerialNumber'] == quantity('48554E32')
    assert document['otherObjects'] == {
        '0-0:96.50.68': quantity('ON'),
        '0-0:98.1.0': {'groups': ['240701000000S', '000040.777*kWh', '03.564*kW']},
    }


BELGIUM = (
    '0-0:96.1.4(50217)',
    '0-0:96.1.1(3153414731)',
    '0-0:1.0.0(260203081500W)',
    '1-0:1.8.1(000100.500*kWh)',
    '1-0:1.8.2(000200.250*kWh)',
    '1-0:1.4.0(00.720*kW)',
    '1-0:1.6.0(06.125*kW)(260201173000W)',
    '0-0:17.0.0(999.9*kW)',
    '1-0:31.4.0(999*A)',
    '0-1:24.1.0(003)',
    '0-1:96.1.1(37464C4F31)',
    '0-1:24.2.3(00321.750*m3)(260203080000)',
    '0-2:24.1.0(007)',
    '0-2:96.1.1()',
    '0-2:24.2.1(00011.250*m3)(260203080000W)',
)


def test_a_belgian_meter_that_sends_values_before_their_times() -> None:
    """The peak, the gas and the water have their values and times, in the order in which newer meters send them."""
    reading = read_from(*BELGIUM, header='/FLU5\\TEST')
    peak = {'datetime': '2026-02-01T17:30:00+01:00', 'value': 6.125, 'unit': 'kW'}
    gas = {'datetime': '2026-02-03T08:00:00+01:00', 'value': 321.75, 'unit': 'm3'}
    assert reading.document['belgiumMaximumDemandMonth'] == peak
    assert reading.document['hourlyGasMeterReading'] == gas
    assert reading.document['fuseThresholdL1'] == quantity(999.0, 'A')
    assert reading.not_understood == ()
    assert 'otherObjects' not in reading.document
    fields = homewizard.data(reading)
    assert fields['montly_power_peak_w'] == 6125
    assert fields['montly_power_peak_timestamp'] == 260201173000
    assert [device['value'] for device in fields['external']] == [321.75, 11.25]


def test_a_peak_without_its_time_has_no_name() -> None:
    """What is no time and number is under its code, and no number of digits is a power."""
    lines = [
        '1-0:1.6.0(260201173000)' if line.startswith('1-0:1.6.0') else line for line in BELGIUM
    ]
    reading = read_from(*lines, header='/FLU5\\TEST')
    assert 'belgiumMaximumDemandMonth' not in reading.document
    assert reading.document['otherObjects'] == {'1-0:1.6.0': quantity('260201173000')}
    assert 'montly_power_peak_w' not in homewizard.data(reading)


ISKRA = (
    '1-0:0.0.0(00000000)',
    '0-0:96.1.0(91234567)',
    '0-0:1.0.0(240702091512)',
    '1-0:1.8.1(000010.250*kWh)',
    '1-0:1.8.2(000020.500*kWh)',
    '1-0:1.7.0(00.500*kW)',
    '1-0:2.7.0(00.000*kW)',
    '1-0:21.7.0(00.500*kW)',
    '1-0:22.7.0(00.000*kW)',
    '1-0:32.7.0(236.8*V)',
    '0-0:96.3.10(1)',
    '0-0:96.13.0()',
    '0-1:96.1.1()',
)


def test_the_number_of_an_iskra_ie5_is_the_meter_s() -> None:
    """It is under its code and identifies the meter; HomeWizard's clients see it as the meter's and not as gas."""
    reading = read_from(*ISKRA, header='/ISk5\\2MIE5E-200')
    assert reading.specification == 'ISKRA_IE'
    assert (reading.identifier, reading.version) == ('91234567', None)
    assert reading.document['otherObjects']['0-0:96.1.0'] == quantity('91234567')
    assert reading.document['p1MessageTimestamp'] == quantity('2024-07-02T09:15:12+02:00')
    fields = homewizard.data(reading)
    assert fields['unique_id'] == '91234567'
    assert fields['total_power_import_kwh'] == 30.75
    assert 'gas_unique_id' not in fields


def test_a_meter_with_two_numbers_has_its_logical_name() -> None:
    """A number for which the chosen table has no name, or that of another country, is under its code."""
    lines = (
        '0-0:42.0.0(ISK1030412345678)',
        '0-0:96.1.0(ER23)',
        *ISKRA[2:],
        '0-0:96.7.21(00008)',
        '0-0:96.7.9(00002)',
        '1-0:32.32.0(00000)',
        '1-0:32.36.0(00000)',
    )
    reading = read_from(*lines, header='/ISk9\\2MIE7T-200')
    assert reading.identifier == 'ISK1030412345678'
    assert 'luxembourgEquipmentIdentifier' not in reading.document
    assert reading.document['otherObjects'].keys() >= {'0-0:42.0.0', '0-0:96.1.0'}


@pytest.mark.parametrize('number', ['', '00000000', '12.5', '1)(2'])
def test_what_is_no_number_of_a_meter_does_not_identify_it(number: str) -> None:
    """Nothing, zeros, a quantity and two groups are no number."""
    lines = (f'0-0:96.1.0({number})', '0-0:42.0.0(1)', '0-0:42.0.0(2)', *ISKRA[2:])
    assert read_from(*lines, header='/ISk5\\2MIE5E-200').identifier is None


SWEDEN = (
    '0-0:1.0.0(240702091512S)',
    '1-0:1.8.0(00002311.500*kWh)',
    '1-0:2.8.0(00000001.250*kWh)',
    '1-0:1.7.0(0000.250*kW)',
    '1-0:3.7.0(0000.125*kVAr)',
    '1-0:23.7.0(0000.050*kVAr)',
    '1-0:63.7.0(0000.075*kVAr)',
    '1-0:31.7.0(000.5*A)',
)


@pytest.mark.parametrize(
    ('time_zone', 'offset'), [('Europe/Stockholm', '+02:00'), ('Europe/Helsinki', '+03:00')]
)
def test_a_meter_of_sweden_or_finland(time_zone: str, offset: str) -> None:
    """Reactive power has its names, and S means the summer time of the zone that is set."""
    document = read_from(*SWEDEN, header='/ADN9 7534', time_zone=time_zone).document
    assert document['p1MessageTimestamp'] == quantity(f'2024-07-02T09:15:12{offset}')
    assert document['currentReactiveImported'] == quantity(0.125, 'kVAr')
    assert document['instantaneousReactivePowerL3Positive'] == quantity(0.075, 'kVAr')
    assert 'otherObjects' not in document


def test_a_swiss_meter_that_states_the_dutch_standard() -> None:
    """A meter that is read with the table of another country has its totals, and HomeWizard's clients have them too."""
    lines = (
        '1-3:0.2.8(42)',
        '1-0:1.8.1(000001.500*kWh)',
        '1-0:2.8.0(000000.500*kWh)',
        '1-0:1.7.0(0.250*kW)',
    )
    reading = read_from(*lines, header='/LGZ4TEST')
    assert reading.document['electricityExportedTotal'] == quantity(0.5, 'kWh')
    fields = homewizard.data(reading)
    assert fields['total_power_import_kwh'] == 1.5
    assert fields['total_power_export_kwh'] == 0.5


LUXEMBOURG = (
    '1-3:0.2.8(42)',
    '0-0:42.0.0(53414731)',
    '1-0:1.8.0(000001.500*kWh)',
    '1-1:31.4.0(040*A)(-040*A)',
    '0-1:96.3.10(0)',
    '0-1:24.1.0(003)',
    '0-2:96.3.10(1)',
)


def test_a_luxembourg_meter() -> None:
    """Both limits are served, and a channel whose switch alone is sent has no device."""
    document = read_from(*LUXEMBOURG, header='/Lux5\\TEST').document
    assert document['luxembourgEquipmentIdentifier'] == quantity('53414731')
    assert document['otherObjects'] == {
        '1-1:31.4.0': {'groups': ['040*A', '-040*A']},
        '0-2:96.3.10': quantity('1'),
    }
    assert document['mbusDevices'] == [
        {
            'channelId': 1,
            'mbusDeviceType': quantity(3),
            'otherObjects': {'0-1:96.3.10': quantity('0')},
        }
    ]


def test_the_gas_meter_of_an_iskra_ie5() -> None:
    """A gas meter for which the table of its electricity meter has no names is known by its codes."""
    gas = {'datetime': '2024-07-02T09:00:00+02:00', 'value': 12.5, 'unit': 'm3'}
    lines = (
        *ISKRA[:-1],
        '0-1:24.1.0(003)',
        '0-1:96.1.1(4731)',
        '0-1:24.2.3(240702090000S)(00012.500*m3)',
    )
    reading = read_from(*lines, header='/ISk5\\2MIE5E-200')
    assert reading.identifier == '91234567'
    assert reading.document['hourlyGasMeterReading'] == gas
    assert reading.document['equipmentIdentifierGas'] == quantity('4731')
    assert homewizard.data(reading)['total_gas_m3'] == 12.5
