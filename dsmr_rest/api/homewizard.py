"""A reading in the form of the HomeWizard P1 API, version 1, that home automation and chargers read. Pure.

https://api-documentation.homewizard.com/docs/v1/measurement: one flat object of numbers and texts in fixed units. A
value that is not available is left out, never null. This is not HomeWizard's device, and the response says so where the
format has room for it (wifi_ssid). It knows nothing of HTTP; the document's keys and units are those of quantities.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dsmr_rest.reading import quantities
from dsmr_rest.reading.document import Reading
from dsmr_rest.reading.mbus import MbusDevice
from dsmr_rest.reading.quantities import PHASES, Document, Item, Quantity, time_of

PRODUCT_NAME = 'dsmr-rest-server'
"""In place of a Wi-Fi network's name: without the key wifi_ssid clients take the response for version 2."""
FIRMWARE_VERSION = '4.19'
"""The firmware whose responses these are; its form is x.yy or x.yyzz."""
ONLY_TARIFF = '1'
"""Where the single register of a meter without tariffs is found, beside the total, as on HomeWizard's own kWh meters:
some clients add up the tariffs and do not look at the total."""
EXTERNAL_UNITS = ('m3', 'GJ')
"""The units in which the API has values of M-Bus devices."""
FIRST_TWELVE_DIGIT_YEAR = 2010
"""As a number YYMMDDhhmmss, the time of an earlier year has fewer than its twelve digits."""

LOCALLY_ADMINISTERED = 0b10
MULTICAST = 0b01
"""Bits in the first byte of a MAC address (IEEE 802)."""

_VERSION = re.compile('[0-9]{1,9}')
"""DSMR sends two digits, Belgium five."""
_TARIFF = re.compile('0*([1-4])')
_MAKERS = {
    'ISK5\\': 'ISKRA  ',
    'XMX5LG': 'Landis + Gyr LG',
    'ENE5\\': 'Sagemcom ',
}
"""What HomeWizard's devices show in place of the beginning of the header line."""

Fields = dict[str, Any]
"""Fields of a response by name."""

SYSTEM: Fields = {'cloud_enabled': False}
"""The response to GET /api/v1/system: this server knows no cloud."""
IDENTIFIED: Fields = {'identify': 'ok'}
"""The response to PUT /api/v1/identify."""
NOT_MODIFIABLE = 8
"""The id of an error: the value cannot be changed."""


def error(identifier: int, description: str) -> Fields:
    """An error in the form of the API, which has a number of its own for each kind."""
    return {'error': {'id': identifier, 'description': description}}


def device(reading: Reading) -> Fields:
    """The response to GET /api. Takes some 50 ms for the first reading of a meter: see _serial."""
    return {
        'product_type': 'HWE-P1',
        'product_name': 'P1 Meter',
        'serial': _serial(f'{reading.identification} {reading.identifier}'),
        'firmware_version': FIRMWARE_VERSION,
        'api_version': 'v1',
    }


def data(reading: Reading) -> Fields:
    """The response to GET /api/v1/data: kWh, W, V, A, Hz, m3; times as numbers YYMMDDhhmmss, the meter's local time."""
    document = reading.document
    failures = quantities.POWER_FAILURES.parts_in(document)
    fields = {
        'wifi_ssid': PRODUCT_NAME,
        'wifi_strength': 100,
        'smr_version': _version(reading.version),
        'meter_model': _model(reading.identification),
        'unique_id': reading.identifier,
        'active_tariff': _tariff(document.get(quantities.ACTIVE_TARIFF)),
        **_energy(reading, 'import', quantities.ENERGY_USED),
        **_energy(reading, 'export', quantities.ENERGY_DELIVERED),
        'active_power_w': _net_power(
            quantities.POWER_USED.total_in(document),
            quantities.POWER_DELIVERED.total_in(document),
            delivers=_has_value(reading, quantities.POWER_DELIVERED.total),
        ),
        **_phases(reading),
        'active_frequency_hz': quantities.FREQUENCY.total_in(document),
        'any_power_fail_count': failures.get('short'),
        'long_power_fail_count': failures.get('long'),
        **_demand(document),
        **_gas(document),
        'external': _external_devices(reading),
    }
    return {field: value for field, value in fields.items() if value is not None}


def load() -> None:
    """Loads the hash function of the device number: OpenSSL loads it when it is used first."""
    import hashlib  # noqa: PLC0415 as in _serial()

    hashlib.scrypt(b'', salt=b'', n=2, r=1, p=1)


@lru_cache(maxsize=4)
def _serial(meter: str) -> str:
    """Twelve hexadecimal digits for a meter, always the same.

    They go to everybody on the network (mDNS). Meters have so few possible identifiers that somebody could try them
    all, so the hash function is a deliberately slow one (RFC 7914). Clients take the number for a MAC address: this is
    a locally administered one, which no maker assigns (IEEE 802).
    """
    import hashlib  # noqa: PLC0415 takes 0.6 MB, which only this device number needs

    digest = hashlib.scrypt(
        meter.encode(),
        salt=PRODUCT_NAME.encode(),
        n=2**14,
        r=8,
        p=1,
        dklen=6,
    )
    address = bytearray(digest)
    address[0] &= ~MULTICAST
    address[0] |= LOCALLY_ADMINISTERED
    return address.hex()


def _version(version: str | None) -> int | None:
    if version is None or not _VERSION.fullmatch(version):
        return None
    return int(version)


def _model(identification: str) -> str | None:
    for prefix, maker in _MAKERS.items():
        if identification.upper().startswith(prefix):
            return maker + identification[len(prefix) :]
    return identification or None


def _tariff(item: Item | None) -> int | None:
    if item is None:
        return None
    match = _TARIFF.fullmatch(str(item['value']))
    if match is None:
        return None
    return int(match[1])


def _whole(value: float | None) -> int | None:
    if value is None:
        return None
    return round(value)


def _has_value(reading: Reading, key: str) -> bool:
    """Whether the meter sent a value for this key, perhaps one that cannot be read or has an odd unit."""
    if key in reading.unreadable:
        return True
    item = reading.document.get(key)
    return item is not None and item['value'] is not None


def _are_complete(parts: Mapping[str, float], quantity: Quantity, reading: Reading) -> bool:
    """Whether the parts of a quantity that were found are all that the meter sent."""
    keys_of_others = [key for part, key in quantity.parts.items() if part not in parts]
    return not any(_has_value(reading, key) for key in keys_of_others)


def _energy(reading: Reading, direction: str, quantity: Quantity) -> Fields:
    """The total and the tariffs of one direction.

    The total that the meter states; else the sum of all registers that it sends and that can be read, because clients
    that miss a total take the first tariff for it.
    """
    document = reading.document
    registers = quantity.registers_in(document)
    total = quantity.total_in(document)
    if total is None:
        if not registers:
            return {}
        total = round(sum(registers.values()), 3)
    tariffs = quantity.parts_in(document)
    has_no_tariffs = not registers and _are_complete({}, quantity, reading)
    if has_no_tariffs:
        tariffs = {ONLY_TARIFF: total}
    energy = {f'total_power_{direction}_kwh': total}
    for tariff, kilowatt_hours in tariffs.items():
        energy[f'total_power_{direction}_t{tariff}_kwh'] = kilowatt_hours
    return energy


def _net_power(used: float | None, delivered: float | None, *, delivers: bool) -> int | None:
    """Watts, negative when delivering; `delivers` is whether the meter sends a value for the delivered power at all.

    Some meters have one object only, with a sign: `used`. For others, a `delivered` that is not known is zero as long
    as power is used, and may be anything when none is.
    """
    if used is None:
        return None
    if delivered is not None:
        return round(used - delivered)
    if delivers and not used:
        return None
    return round(used)


def _phases(reading: Reading) -> Fields:
    document = reading.document
    used = quantities.POWER_USED.parts_in(document)
    delivered = quantities.POWER_DELIVERED.parts_in(document)
    voltages = quantities.VOLTAGE.parts_in(document)
    currents = quantities.CURRENT.parts_in(document)
    sags = quantities.VOLTAGE_SAGS.parts_in(document)
    swells = quantities.VOLTAGE_SWELLS.parts_in(document)
    fields: Fields = {}
    for phase in PHASES:
        delivers = _has_value(reading, quantities.POWER_DELIVERED.parts[phase])
        watts = _net_power(used.get(phase), delivered.get(phase), delivers=delivers)
        fields[f'active_power_l{phase}_w'] = watts
        fields[f'active_voltage_l{phase}_v'] = voltages.get(phase)
        fields[f'active_current_l{phase}_a'] = _signed_current(currents.get(phase), watts)
        fields[f'voltage_sag_l{phase}_count'] = sags.get(phase)
        fields[f'voltage_swell_l{phase}_count'] = swells.get(phase)
    if currents and _are_complete(currents, quantities.CURRENT, reading):
        fields['active_current_a'] = round(sum(map(abs, currents.values())), 3)
    return fields


def _signed_current(amperes: float | None, watts: int | None) -> float | None:
    """The current with the sign of the power: meters send it without its direction."""
    if not amperes or watts is None:  # a zero must not get a sign
        return amperes
    if watts < 0:
        return -abs(amperes)
    return abs(amperes)


def _demand(document: Document) -> Fields:
    """Demand in Belgium. The API spells monthly without its h."""
    return {
        'active_power_average_w': _whole(quantities.AVERAGE_DEMAND.total_in(document)),
        'montly_power_peak_w': _whole(quantities.MONTHLY_PEAK.total_in(document)),
        'montly_power_peak_timestamp': _timestamp(document.get(quantities.MONTHLY_PEAK.total)),
    }


def _timestamp(item: Item | None) -> int | None:
    """The item's time as a number YYMMDDhhmmss; None when it has no time that this form can express."""
    moment = time_of(item)
    if moment is None or moment.year < FIRST_TWELVE_DIGIT_YEAR:
        return None
    return int(moment.strftime('%y%m%d%H%M%S'))


def _gas(document: Document) -> Fields:
    value = quantities.GAS.total_in(document)
    if value is None:
        return {}
    fields = {
        'total_gas_m3': value,
        'gas_timestamp': _timestamp(document.get(quantities.GAS.total)),
    }
    identifier = document.get(quantities.GAS_IDENTIFIER)
    if identifier is not None:
        fields['gas_unique_id'] = identifier['value']
    return fields


def _external_devices(reading: Reading) -> list[Fields]:
    """The M-Bus devices that are complete: for one that is not, clients drop the whole measurement.

    Clients tell them apart by their numbers. A device without one, or with that of another device, has the number of
    the electricity meter and its channel.
    """
    found: list[Fields] = []
    known_numbers = set()
    for mbus_device in reading.devices:
        fields = _external_device(mbus_device)
        if fields is None:
            continue
        number_of_device = mbus_device.own_number
        if not number_of_device.strip('0') or number_of_device in known_numbers:
            number_of_device = f'{reading.identifier or PRODUCT_NAME}-{mbus_device.channel}'
        known_numbers.add(number_of_device)
        found.append({'unique_id': number_of_device, **fields})
    return found


def _external_device(mbus_device: MbusDevice) -> Fields | None:
    """The fields of a device without its number; None when it is not complete."""
    timestamp = _timestamp(mbus_device.measured)
    if timestamp is None or not mbus_device.homewizard_type:
        return None
    for unit in EXTERNAL_UNITS:
        value = quantities.amount(mbus_device.measured, unit)
        if value is not None:
            return {
                'type': mbus_device.homewizard_type,
                'timestamp': timestamp,
                'value': value,
                'unit': unit,
            }
    return None
