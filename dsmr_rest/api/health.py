"""The document of GET /health: whether the meter is responding, why not, and what happened since the start.

It knows the Service, not requests: who asks for the document has tried to take a reading before.
"""

from typing import Any

from dsmr_rest import __version__
from dsmr_rest.api.places import TELEGRAM_CLIENTS
from dsmr_rest.api.service import Service
from dsmr_rest.faults import MeterError
from dsmr_rest.process import clock
from dsmr_rest.reading.document import Reading, camel_case


def health_document(service: Service, error: MeterError | None) -> dict[str, Any]:
    """What is known now; `error` says why there is no reading, None when there is one."""
    return {
        **_verdict(error),
        **_last_reading(service.meter.latest),
        'checksum': service.meter.reader.settings.checksum,
        'waitingRequests': service.meter.waiters,
        'telegramClients': service.places.taken(TELEGRAM_CLIENTS),
        'counters': _counters(service),
        'version': __version__,
    }


def _verdict(error: MeterError | None) -> dict[str, Any]:
    if error is None:
        return {
            'status': 'ok',
            'code': 'ok',
            'detail': 'the meter is responding',
        }
    return {
        'status': 'unavailable',
        'code': error.fault.code,
        'detail': error.detail,
    }


def _last_reading(reading: Reading | None) -> dict[str, Any]:
    """About the last reading; null before the first one."""
    if reading is None:
        return {
            'ageOfLastReading': None,
            'verifiedBy': None,
            'specification': None,
            'specificationUnsure': None,
            'linesNotUnderstood': None,
        }
    age = clock.now() - reading.arrived
    return {
        'ageOfLastReading': round(age, 1),
        'verifiedBy': reading.verified_by.value,
        'specification': reading.specification,
        'specificationUnsure': reading.unsure,
        'linesNotUnderstood': list(reading.not_understood),
    }


def _counters(service: Service) -> dict[str, Any]:
    of_line = service.meter.counters._asdict()
    return {
        **{camel_case(name): count for name, count in of_line.items()},
        'errorsByCode': service.meter.errors.counts(),
        'requestsByStatus': service.responses.counts(),
    }
