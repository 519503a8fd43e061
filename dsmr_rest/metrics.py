"""A reading as Prometheus metrics, made anew for each scrape. No I/O, no clock.

Without a reading there are only the server's own metrics: no value of the meter outlives it. A number of the reading is
shown once: in base units under the name of what it measures, else as dsmr_object in the telegram's unit. Histories
(failure log, past peaks) are not metrics.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from dsmr_rest.mbus import NEVER, MbusDevice
from dsmr_rest.quantities import amount, number
from dsmr_rest.reading import Reading

_GAS_AGAIN = {'deviceType', 'equipmentIdentifierGas', 'hourlyGasMeterReading'}
"""Stand at the top of a reading for convenience; they are those of an M-Bus device."""
_MANUFACTURER = re.compile('[A-Za-z]{3}')  # IEC 62056-21 6.3.2


class _Measure(NamedTuple):
    """What the keys that match `parts` measure: one sample each, the match's group as its label.

    `whole` is the key of the value of all parts. Where parts are counted by tariff it would count them twice.
    """

    name: str
    about: str
    unit: str = ''
    label: str = ''
    parts: str = ''
    whole: str = ''
    kind: str = 'gauge'


_MEASURES = (
    _Measure(
        'dsmr_electricity_used_kwh', 'Energy taken from the grid; tariff "all" where the meter counts no tariffs.',
        'kWh', 'tariff', r'electricityUsedTariff(\d+)', 'electricityImportedTotal', 'counter',
    ),
    _Measure(
        'dsmr_electricity_delivered_kwh', 'Energy given to the grid; tariff "all" where the meter counts no tariffs.',
        'kWh', 'tariff', r'electricityDeliveredTariff(\d+)', 'electricityExportedTotal', 'counter',
    ),
    _Measure(
        'dsmr_power_used_watts', 'Power taken from the grid: the whole without label, and each phase.',
        'W', 'phase', r'instantaneousActivePowerL(\d)Positive', 'currentElectricityUsage',
    ),
    _Measure(
        'dsmr_power_delivered_watts', 'Power given to the grid: the whole without label, and each phase.',
        'W', 'phase', r'instantaneousActivePowerL(\d)Negative', 'currentElectricityDelivery',
    ),
    _Measure('dsmr_voltage_volts', 'Voltage.', 'V', 'phase', r'instantaneousVoltageL(\d)'),
    _Measure('dsmr_current_amperes', 'Current.', 'A', 'phase', r'instantaneousCurrentL(\d)'),
    _Measure(
        'dsmr_power_failures', 'Power failures that the meter counted, by duration.',
        '', 'duration', '(short|long)PowerFailureCount', '', 'counter',
    ),
    _Measure('dsmr_voltage_sags', 'Voltage sags.', '', 'phase', r'voltageSagL(\d)Count', '', 'counter'),
    _Measure('dsmr_voltage_swells', 'Voltage swells.', '', 'phase', r'voltageSwellL(\d)Count', '', 'counter'),
    _Measure(
        'dsmr_demand_average_watts', 'Average demand of this quarter-hour so far (Belgium).',
        'W', whole='belgiumCurrentAverageDemand',
    ),
    _Measure(
        'dsmr_demand_month_peak_watts', 'Highest quarter-hour demand of this month (Belgium).',
        'W', whole='belgiumMaximumDemandMonth',
    ),
)  # fmt: skip


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return (family for family in self._families if family.samples)


def exposition(
    reading: Reading | None,
    age: float | None,
    counters: Any,
    errors: Mapping[str, int],
    answers: Mapping[str, int],
    *,
    accept: str,
    identifiers: bool,
) -> tuple[bytes, str]:
    """The body and content type of a scrape: the text format 0.0.4, or the newer one that `accept` asks for.

    `age` is the reading's in seconds, `counters` the meter's own, `answers` those of HTTP by status. What could tell
    one meter from all others is only shown with `identifiers`.
    """
    families = list(_server(reading, age, counters, errors, answers))
    if reading:
        families += [_info(reading, identifiers=identifiers), *_meter(reading.document)]
        families += _devices(reading.devices, identifiers=identifiers)
    registry = CollectorRegistry()
    registry.register(_Families(families))
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none: the library compares it with numbers
        encode, content_type = choose_encoder('')
    return encode(registry), content_type


def _server(
    reading: Reading | None, age: float | None, counters: Any, errors: Mapping[str, int], answers: Mapping[str, int]
) -> Iterator[Metric]:
    yield _single('dsmr_up', 'Whether there is a reading of the meter.', 1 if reading else 0)
    if age is not None:
        yield _single('dsmr_reading_age_seconds', 'Age of the reading that is shown.', age)
    for name, key, about in (
        ('dsmr_telegrams', 'telegrams', 'Good telegrams received since the start.'),
        ('dsmr_checksum_failures', 'checksum_failures', 'Telegrams with a wrong checksum.'),
        ('dsmr_incomplete_telegrams', 'incomplete_telegrams', 'Telegrams without an end.'),
        ('dsmr_decryption_failures', 'decryption_failures', 'Encrypted telegrams that could not be read.'),
        ('dsmr_port_openings', 'port_openings', 'Times that the port was opened.'),
        ('dsmr_port_losses', 'port_losses', 'Times that the open port was lost.'),
    ):
        yield _single(name, about, getattr(counters, key), 'counter')
    yield _by_label('dsmr_errors', 'Readings that were asked for in vain.', 'code', errors)
    yield _by_label('dsmr_http_requests', 'HTTP requests answered.', 'status', answers)


def _single(name: str, about: str, value: float, kind: str = 'gauge') -> Metric:
    family = Metric(name, about, kind)
    _add(family, {}, value)
    return family


def _by_label(name: str, about: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = Metric(name, about, 'counter')
    for value, count in counts.items():
        _add(family, {label: value}, count)
    return family


def _add(family: Metric, labels: Mapping[str, str], value: float) -> None:
    suffix = {'counter': '_total', 'info': '_info'}.get(family.type, '')
    family.add_sample(family.name + suffix, {label: text for label, text in labels.items() if label}, value)


def _info(reading: Reading, *, identifiers: bool) -> Metric:
    manufacturer = _MANUFACTURER.match(reading.identification)
    labels = {
        'manufacturer': manufacturer[0] if manufacturer else '',
        'version': reading.version or '',
        'specification': reading.specification,
    }
    if identifiers:  # the header ends in the serial number of some meters
        labels |= {'identification': reading.identification, 'equipment_identifier': reading.identifier or ''}
    family = Metric('dsmr_meter', 'What the meter says that it is, and how its telegrams are read.', 'info')
    _add(family, labels, 1)
    return family


def _meter(document: Mapping[str, Any]) -> Iterator[Metric]:
    rest = {key: item for key, item in document.items() if key not in _GAS_AGAIN and number(item) is not None}
    for measure in _MEASURES:
        yield _measured(measure, rest)
    peak = Metric('dsmr_demand_month_peak_timestamp_seconds', 'When the quarter-hour of that demand ended.', 'gauge')
    if (moment := _moment(document.get('belgiumMaximumDemandMonth'))) is not None:
        _add(peak, {}, moment)
    yield peak
    objects = Metric('dsmr_object', 'Every other number of the reading, by its name there, in its own unit.', 'gauge')
    for key, item in rest.items():
        _add(objects, {'name': key, 'unit': item['unit'] or ''}, item['value'])
    for device in document.get('mbusDevices', []):
        for key, item in device.items():
            if number(item) is not None and not key.lower().endswith(('meterreading', 'devicetype')):
                labels = {'name': key, 'unit': item['unit'] or '', 'channel': str(device['channelId'])}
                _add(objects, labels, item['value'])
    yield objects


def _measured(measure: _Measure, rest: dict[str, Any]) -> Metric:
    """The samples of a measure, whose keys are taken out of `rest`."""
    family = Metric(measure.name, measure.about, measure.kind)
    found = {key: match[1] for key in rest if (match := re.fullmatch(measure.parts, key))}
    for key, label in found.items():
        if (value := _converted(rest[key], measure)) is not None:
            _add(family, {measure.label: label}, value)
            del rest[key]
    by_tariff = measure.label == 'tariff'
    if not (by_tariff and family.samples) and (value := _converted(rest.get(measure.whole), measure)) is not None:
        _add(family, {'tariff': 'all'} if by_tariff else {}, value)
        del rest[measure.whole]
    return family


def _converted(item: Any, measure: _Measure) -> float | None:
    """The number in the measure's unit; a counter's is not below zero."""
    value = amount(item, measure.unit)
    return None if value is None or (measure.kind == 'counter' and value < 0) else value


def _moment(item: Any) -> float | None:
    """The Unix time of a value; None when it was never taken."""
    taken = item and item['datetime']
    return datetime.fromisoformat(taken).timestamp() if taken and taken >= NEVER else None


def _devices(devices: Iterable[MbusDevice], *, identifiers: bool) -> list[Metric]:
    values = Metric('dsmr_mbus_reading', 'Last reading of an M-Bus device, in its own unit.', 'gauge')
    moments = Metric('dsmr_mbus_reading_timestamp_seconds', 'When the M-Bus device was read.', 'gauge')
    infos = Metric('dsmr_mbus', 'The M-Bus devices by their identifiers.', 'info')
    for each in devices:
        labels = {'channel': str(each.channel), 'kind': each.kind_name.replace(' ', '_')}
        value, moment = number(each.measured), _moment(each.measured)
        if each.measured and value is not None and moment is not None:
            _add(values, labels | {'unit': each.measured['unit'] or ''}, value)
            _add(moments, labels, moment)
        if identifiers:
            _add(infos, labels | {'identifier': each.own_number}, 1)
    return [values, moments, infos]
