"""A reading in the form of the HomeWizard P1 API, version 1, that home automation and chargers read. Pure.

https://api-documentation.homewizard.com/docs/v1/measurement: one flat object of numbers and texts in fixed units, in
which a value that is not available is left out and never null. This is not that maker's device, and says so where
the format has room for it (wifi_ssid).
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from dsmr_rest.quantities import amount, number
from dsmr_rest.reading import Reading

PRODUCT_NAME = 'dsmr-rest-server'
"""In place of a Wi-Fi network's name: without the key wifi_ssid clients take the answer for version 2."""
FIRMWARE_VERSION = '4.19'
"""The firmware whose answers these are; its form is x.yy or x.yyzz."""
EXTERNAL_TYPES = {
    3: 'gas_meter',
    4: 'heat_meter',
    6: 'warm_water_meter',
    7: 'water_meter',
    12: 'inlet_heat_meter',
}
"""By M-Bus device type (EN 13757-3)."""
EXTERNAL_UNITS = ('m3', 'GJ')

_PHASES = (1, 2, 3)
_TARIFFS = (1, 2, 3, 4)
_TARIFF = re.compile(r'0*([1-4])')
_STAMP_FROM = 2010  # as a number, the time of an earlier year has fewer than its twelve digits

# As devices name the makers; '\' and a digit say who assigned the rest (IEC 62056-21), and stand as a second space.
_MAKERS = {'ISK5\\': 'ISKRA  ', 'XMX5LG': 'Landis + Gyr LG', 'ENE5\\': 'Sagemcom '}


def device(reading: Reading) -> dict[str, Any]:
    """The answer to GET /api. Takes some 50 ms for the first reading of a meter: see _serial."""
    return {
        'product_type': 'HWE-P1',
        'product_name': 'P1 Meter',
        'serial': _serial(f'{reading.identification} {reading.identifier}'),
        'firmware_version': FIRMWARE_VERSION,
        'api_version': 'v1',
    }


def data(reading: Reading) -> dict[str, Any]:
    """The answer to GET /api/v1/data: kWh, W, V, A, Hz, m3; times as numbers YYMMDDhhmmss in the meter's local time."""
    document, version = reading.document, reading.version or ''
    values = {
        'wifi_ssid': PRODUCT_NAME,
        'wifi_strength': 100,
        'smr_version': int(version) if version.isdecimal() else None,
        'meter_model': _model(reading.identification),
        'unique_id': reading.identifier,
        'active_tariff': _tariff(document.get('electricityActiveTariff')),
        **_energy(reading, 'import', 'electricityUsedTariff', 'electricityImportedTotal', '1.8'),
        **_energy(reading, 'export', 'electricityDeliveredTariff', 'electricityExportedTotal', '2.8'),
        'active_power_w': _net_power(document, 'currentElectricityUsage', 'currentElectricityDelivery'),
        **_phases(document),
        'active_frequency_hz': amount(document.get('frequency'), 'Hz'),
        'any_power_fail_count': _count(document.get('shortPowerFailureCount')),
        'long_power_fail_count': _count(document.get('longPowerFailureCount')),
        **_demand(document),
        **_gas(document),
        'external': list(_external(reading)),
    }
    return {key: value for key, value in values.items() if value is not None}


@lru_cache(maxsize=4)
def _serial(meter: str) -> str:
    """Twelve hexadecimal digits for a meter, always the same.

    They go to everybody on the network (mDNS). Identifiers of meters are few enough to try them all, so the function
    is a slow one (RFC 7914). Clients take the number for a MAC address: it is one that no maker assigns (IEEE 802).
    """
    digest = bytearray(hashlib.scrypt(meter.encode(), salt=PRODUCT_NAME.encode(), n=2**14, r=8, p=1, dklen=6))
    digest[0] = digest[0] & 0xFC | 0x02
    return digest.hex()


def _model(identification: str) -> str | None:
    for prefix, maker in _MAKERS.items():
        if identification.upper().startswith(prefix):
            return maker + identification[len(prefix) :]
    return identification or None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _count(item: Mapping[str, Any] | None) -> int | None:
    return item['value'] if item else None


def _tariff(item: Mapping[str, Any] | None) -> int | None:
    match = _TARIFF.fullmatch(str(item['value'])) if item else None
    return int(match[1]) if match else None


def _energy(reading: Reading, direction: str, tariff: str, total: str, code: str) -> dict[str, float]:
    """The registers of one direction.

    Nothing when a tariff cannot be read and the meter gives no total: clients that miss the total take the first
    tariff for it, and their statistics would jump by thousands.
    """
    document = reading.document
    tariffs = {n: amount(document.get(f'{tariff}{n}'), 'kWh') for n in _TARIFFS}
    known = {n: kwh for n, kwh in tariffs.items() if kwh is not None}
    unreadable = any(f':{code}.{n}' in each for n in _TARIFFS for each in reading.not_understood)
    whole = round(sum(known.values()), 3) if known and not unreadable else amount(document.get(total), 'kWh')
    if whole is None:
        return {}
    prefix = f'total_power_{direction}'
    return {f'{prefix}_kwh': whole} | {f'{prefix}_t{n}_kwh': kwh for n, kwh in known.items()}


def _net_power(document: Mapping[str, Any], used: str, delivered: str) -> int | None:
    """Watts, negative when delivering; some meters only have the one object, with a sign."""
    watts = amount(document.get(used), 'W')
    return None if watts is None else round(watts - (amount(document.get(delivered), 'W') or 0))


def _phases(document: Mapping[str, Any]) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    currents = []
    for n in _PHASES:
        power = f'instantaneousActivePowerL{n}'
        watts = _net_power(document, f'{power}Positive', f'{power}Negative')
        amperes = amount(document.get(f'instantaneousCurrentL{n}'), 'A')
        if amperes is not None:
            currents.append(abs(amperes))
            if watts is not None and amperes:  # meters give the current without its direction
                amperes = -abs(amperes) if watts < 0 else abs(amperes)
        values |= {
            f'active_power_l{n}_w': watts,
            f'active_voltage_l{n}_v': amount(document.get(f'instantaneousVoltageL{n}'), 'V'),
            f'active_current_l{n}_a': amperes,
            f'voltage_sag_l{n}_count': _count(document.get(f'voltageSagL{n}Count')),
            f'voltage_swell_l{n}_count': _count(document.get(f'voltageSwellL{n}Count')),
        }
    return values | {'active_current_a': round(sum(currents), 3) if currents else None}


def _demand(document: Mapping[str, Any]) -> dict[str, int | None]:
    """Belgian peaks. The API spells monthly without its h."""
    peak = document.get('belgiumMaximumDemandMonth')
    return {
        'active_power_average_w': _whole(amount(document.get('belgiumCurrentAverageDemand'), 'W')),
        'montly_power_peak_w': _whole(amount(peak, 'W')),
        'montly_power_peak_timestamp': _stamp(peak),
    }


def _stamp(item: Mapping[str, Any] | None) -> int | None:
    """The item's time as a number YYMMDDhhmmss; None when it has none that such a number can say."""
    moment = datetime.fromisoformat(item['datetime']) if item and item['datetime'] else None
    return int(f'{moment:%y%m%d%H%M%S}') if moment and moment.year >= _STAMP_FROM else None


def _gas(document: Mapping[str, Any]) -> dict[str, Any]:
    reading = document.get('hourlyGasMeterReading')
    value, identifier = amount(reading, 'm3'), document.get('equipmentIdentifierGas')
    if value is None:
        return {}
    return {
        'total_gas_m3': value,
        'gas_timestamp': _stamp(reading),
        'gas_unique_id': identifier and identifier['value'],
    }


def _external(reading: Reading) -> Iterator[dict[str, Any]]:
    """The M-Bus devices that have something to say: for one that is incomplete, clients drop the whole measurement."""
    for each in reading.devices:
        name = EXTERNAL_TYPES.get(each.kind or 0)
        stamp, value = _stamp(each.measured), number(each.measured)
        if name and stamp and each.measured and each.measured['unit'] in EXTERNAL_UNITS and value is not None:
            yield {
                'unique_id': each.own_number,
                'type': name,
                'timestamp': stamp,
                'value': value,
                'unit': each.measured['unit'],
            }
