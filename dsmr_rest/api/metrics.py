"""A reading as Prometheus metrics, newly made for each scrape. No I/O, no clock; it knows nothing of HTTP and ports.

Without a reading there are only the server's own metrics: a value of the meter is never shown after the meter is lost.
A number of the reading is shown once: in base units under the name of what it measures, otherwise as dsmr_object in
the telegram's unit. Histories (power failure log, past peaks) are not metrics.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from dsmr_rest.p1.line import LineCounters
from dsmr_rest.reading import quantities
from dsmr_rest.reading.document import Reading
from dsmr_rest.reading.mbus import MbusDevice
from dsmr_rest.reading.quantities import Document, Item, Quantity, number, time_of

LINE_COUNTER_HELP = {
    'received_bytes': 'Bytes received from the port.',
    'telegrams': 'Good telegrams received since the start.',
    'checksum_failures': 'Telegrams without encryption whose checksum was wrong or missing.',
    'parity_failures': 'Telegrams without a checksum in which a parity bit was wrong.',
    'unconfirmed_telegrams': 'Telegrams that another one had to confirm, because their meter had proved none yet.',
    'incomplete_telegrams': 'Telegrams without an end.',
    'decryption_failures': 'Encrypted telegrams that could not be decrypted.',
    'invalid_telegrams': 'Telegrams that arrived intact, but are not valid.',
    'internal_errors': 'Telegrams that this server failed to read, because of an error of its own.',
    'port_openings': 'Times that the port was opened.',
    'port_losses': 'Times that the open port was lost.',
}
"""The help text of the metric of each field of LineCounters."""

_MANUFACTURER = re.compile('[A-Za-z]{3}')  # IEC 62056-21 6.3.2
_ALL_TARIFFS = 'all'
_SUFFIXES = {'counter': '_total', 'info': '_info'}
"""What a sample's name has after its family's, by the family's type (OpenMetrics 1.0)."""


class _Definition(NamedTuple):
    """The metric family of a quantity: of its parts, which have the label, or, without a label, of its total.

    Total and parts are never in one family: in a sum over it everything would count twice. Only where a meter counts no
    tariffs its total is in the family of the tariffs, as the only sample.
    """

    name: str
    help: str
    quantity: Quantity
    label: str = ''
    type: str = 'gauge'

    @property
    def by_tariff(self) -> bool:
        return self.label == 'tariff'


DEFINITIONS = (
    _Definition(
        'dsmr_electricity_used_kwh',
        'Energy taken from the grid; tariff "all" where the meter counts no tariffs.',
        quantities.ENERGY_USED,
        'tariff',
        'counter',
    ),
    _Definition(
        'dsmr_electricity_delivered_kwh',
        'Energy delivered to the grid; tariff "all" where the meter counts no tariffs.',
        quantities.ENERGY_DELIVERED,
        'tariff',
        'counter',
    ),
    _Definition(
        'dsmr_power_used_watts',
        'Power taken from the grid, all phases together.',
        quantities.POWER_USED,
    ),
    _Definition(
        'dsmr_power_delivered_watts',
        'Power delivered to the grid, all phases together.',
        quantities.POWER_DELIVERED,
    ),
    _Definition(
        'dsmr_phase_power_used_watts',
        'Power taken from the grid on each phase.',
        quantities.POWER_USED,
        'phase',
    ),
    _Definition(
        'dsmr_phase_power_delivered_watts',
        'Power delivered to the grid on each phase.',
        quantities.POWER_DELIVERED,
        'phase',
    ),
    _Definition('dsmr_voltage_volts', 'Voltage.', quantities.VOLTAGE, 'phase'),
    _Definition('dsmr_current_amperes', 'Current.', quantities.CURRENT, 'phase'),
    _Definition(
        'dsmr_power_failures',
        'Power failures that the meter counted, by duration.',
        quantities.POWER_FAILURES,
        'duration',
        'counter',
    ),
    _Definition('dsmr_voltage_sags', 'Voltage sags.', quantities.VOLTAGE_SAGS, 'phase', 'counter'),
    _Definition(
        'dsmr_voltage_swells', 'Voltage swells.', quantities.VOLTAGE_SWELLS, 'phase', 'counter'
    ),
    _Definition(
        'dsmr_demand_average_watts',
        'Average demand of this quarter-hour so far (Belgium).',
        quantities.AVERAGE_DEMAND,
    ),
    _Definition(
        'dsmr_demand_month_peak_watts',
        'Highest quarter-hour demand of this month (Belgium).',
        quantities.MONTHLY_PEAK,
    ),
)


class _Collected(Collector):
    """Metric families as prometheus_client collects them; those without samples are left out."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = [family for family in families if family.samples]

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(
    reading: Reading | None,
    age: float | None,
    counters: LineCounters,
    errors: Mapping[str, int],
    responses: Mapping[str, int],
    *,
    telegram_clients: int,
    accept: str,
    identifiers: bool,
) -> tuple[bytes, str]:
    """The body and content type of a scrape: the text format 0.0.4, or OpenMetrics when `accept` asks for it.

    `age` is the reading's in seconds. `errors` counts the requests without a reading by fault code, `responses` those
    of HTTP by status. `telegram_clients` is how many are connected now. What could tell this meter from all others is
    only shown with `identifiers`.
    """
    families = [*_server(reading, age), *_line(counters)]
    families.append(_counts('dsmr_errors', 'Requests that got no reading.', 'code', errors))
    families.append(_counts('dsmr_http_requests', 'HTTP responses sent.', 'status', responses))
    families.append(
        _single('dsmr_telegram_clients', 'Clients connected to telegram_port.', telegram_clients)
    )
    if reading:
        families.append(_info(reading, identifiers=identifiers))
        families.extend(_meter(reading))
        families.extend(_devices(reading.devices, identifiers=identifiers))
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    try:
        encode, content_type = choose_encoder(accept)
    # From the library, which compares a version in `accept` that is not a number.
    except (
        TypeError,
        ValueError,
    ):
        encode, content_type = choose_encoder('')
    return encode(registry), content_type


def _server(reading: Reading | None, age: float | None) -> Iterator[Metric]:
    yield _single('dsmr_up', 'Whether there is a reading of the meter.', int(reading is not None))
    if age is not None:
        yield _single('dsmr_reading_age_seconds', 'Age of the reading that is shown.', age)


def _line(counters: LineCounters) -> Iterator[Metric]:
    for name, count in counters._asdict().items():
        yield _single(f'dsmr_{name}', LINE_COUNTER_HELP[name], count, 'counter')


def _single(name: str, help_text: str, value: float, family_type: str = 'gauge') -> Metric:
    family = Metric(name, help_text, family_type)
    _add(family, {}, value)
    return family


def _counts(name: str, help_text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = Metric(name, help_text, 'counter')
    for label_value, count in counts.items():
        _add(family, {label: label_value}, count)
    return family


def _add(family: Metric, labels: dict[str, str], value: float) -> None:
    suffix = _SUFFIXES.get(family.type, '')
    family.add_sample(family.name + suffix, labels, value)


def _info(reading: Reading, *, identifiers: bool) -> Metric:
    labels = {
        'manufacturer': '',
        'version': reading.version or '',
        'specification': reading.specification,
        'verified_by': reading.verified_by.value,
    }
    manufacturer = _MANUFACTURER.match(reading.identification)
    if manufacturer:
        labels['manufacturer'] = manufacturer[0]
    if identifiers:  # the header line ends in the serial number of some meters
        labels['identification'] = reading.identification
        labels['equipment_identifier'] = reading.identifier or ''
    family = Metric(
        'dsmr_meter', 'What the meter states about itself, and how its telegrams are read.', 'info'
    )
    _add(family, labels, 1)
    return family


def _meter(reading: Reading) -> Iterator[Metric]:
    document = reading.document
    shown = set(quantities.GAS_COPIES)  # keys, so that no number is shown twice
    for definition in DEFINITIONS:
        yield _measured(definition, document, shown)
    yield _time_of_peak(document)
    yield _objects(reading, shown)


def _measured(definition: _Definition, document: Document, shown: set[str]) -> Metric:
    """The samples of a definition. The keys of their numbers are added to `shown`."""
    family = Metric(definition.name, definition.help, definition.type)
    if definition.label:
        _add_parts(family, definition, document, shown)
    has_no_tariff = definition.by_tariff and not family.samples
    if has_no_tariff:
        _add_total(family, definition, document, shown, {'tariff': _ALL_TARIFFS})
    if not definition.label:
        _add_total(family, definition, document, shown, {})
    return family


def _add_parts(
    family: Metric, definition: _Definition, document: Document, shown: set[str]
) -> None:
    quantity = definition.quantity
    parts = quantity.parts_in(document)
    for part, value in parts.items():
        if _fits(definition, value):
            _add(family, {definition.label: part}, value)
            shown.add(quantity.parts[part])
    # Registers without a name belong to a sum over the tariffs too.
    for code, item in document.get(quantities.OTHER_OBJECTS, {}).items():
        tariff = quantity.tariff_of(code)
        register = quantities.amount(quantities.latest(item), quantity.unit)
        is_new = tariff not in ('', *parts)
        if is_new and register is not None and _fits(definition, register):
            _add(family, {definition.label: tariff}, register)
            parts[tariff] = register
            shown.add(code)


def _add_total(
    family: Metric,
    definition: _Definition,
    document: Document,
    shown: set[str],
    labels: dict[str, str],
) -> None:
    quantity = definition.quantity
    total = quantity.total_in(document)
    if total is not None and _fits(definition, total):
        _add(family, labels, total)
        shown.add(quantity.total)


def _fits(definition: _Definition, value: float) -> bool:
    """Whether a metric of this type can have the value: OpenMetrics has no counters below zero."""
    return definition.type != 'counter' or value >= 0


def _time_of_peak(document: Document) -> Metric:
    help_text = 'When the quarter-hour of that demand ended.'
    family = Metric('dsmr_demand_month_peak_timestamp_seconds', help_text, 'gauge')
    moment = time_of(document.get(quantities.MONTHLY_PEAK.total))
    if moment is not None:
        _add(family, {}, moment.timestamp())
    return family


def _objects(reading: Reading, shown: set[str]) -> Metric:
    help_text = (
        'Every other number of the reading, by its name there or its OBIS code, in its own unit.'
    )
    family = Metric('dsmr_object', help_text, 'gauge')
    for key, item in reading.document.items():
        if key not in shown:
            _add_object(family, key, item, {})
    _add_others(family, reading.document, {}, shown)
    for device in reading.devices:
        labels = {'channel': str(device.channel)}
        for key, item in device.others.items():
            _add_object(family, key, item, labels)
        _add_others(family, device.others, labels, shown)
    return family


def _add_others(
    family: Metric, owner: Mapping[str, Any], labels: dict[str, str], shown: set[str]
) -> None:
    """Adds the numbers of otherObjects that have a unit: one without may be an identifier."""
    for code, item in owner.get(quantities.OTHER_OBJECTS, {}).items():
        latest = quantities.latest(item)
        if latest.get('unit') and code not in shown:
            _add_object(family, code, latest, labels)


def _add_object(family: Metric, key: str, item: Any, labels: dict[str, str]) -> None:
    value = number(item)
    if value is not None:
        _add(family, {'name': key, 'unit': item['unit'] or '', **labels}, value)


def _devices(devices: Iterable[MbusDevice], *, identifiers: bool) -> list[Metric]:
    values = Metric(
        'dsmr_mbus_reading', 'Last reading of an M-Bus device, in its own unit.', 'gauge'
    )
    times = Metric(
        'dsmr_mbus_reading_timestamp_seconds', 'When the M-Bus device was read.', 'gauge'
    )
    infos = Metric('dsmr_mbus', 'The M-Bus devices by their identifiers.', 'info')
    for device in devices:
        labels = {
            'channel': str(device.channel),
            'kind': device.kind_name.replace(' ', '_'),
        }
        _add_reading(device.measured, labels, values, times)
        if identifiers:
            _add(infos, {**labels, 'identifier': device.own_number}, 1)
    return [values, times, infos]


def _add_reading(
    measured: Item | None, labels: dict[str, str], values: Metric, times: Metric
) -> None:
    value = number(measured)
    moment = time_of(measured)
    if measured is None or value is None or moment is None:
        return
    _add(values, {**labels, 'unit': measured['unit'] or ''}, value)
    _add(times, labels, moment.timestamp())
