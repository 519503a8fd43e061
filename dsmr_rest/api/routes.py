"""What each path returns: a function from Service and Request to Response, and one entry in ROUTES.

Every other path is a JSON Pointer (RFC 6901) into the reading. A route does not know sockets, credentials or the serial
port: it asks the Meter for a reading, and lets a MeterError pass, of which api.py makes a response.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dsmr_rest import __version__, clock
from dsmr_rest.api import homewizard
from dsmr_rest.api.dashboard import dashboard_page
from dsmr_rest.api.places import STREAMS, TELEGRAM_CLIENTS
from dsmr_rest.api.service import POLL_TIME, Service, freshness
from dsmr_rest.api.stream import ReadingStream
from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.http.message import RETRY_AFTER, HttpError, Request, Response, problem
from dsmr_rest.reading.document import Reading, camel_case, possible_keys, render

SCRAPE_MARGIN = 0.5
"""Seconds before the end of Prometheus's patience at which a scrape gets its response."""
HEALTH_AGE = 60.0
"""Seconds. /health takes a reading when the last one is older."""

DASHBOARD_POLICY = {
    'Content-Security-Policy': "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    'Referrer-Policy': 'no-referrer',
}
_NO_STORE = {'Cache-Control': 'no-store'}

_LIST_INDEX = re.compile(r'0|[1-9][0-9]{0,8}')  # RFC 6901 4: no leading zeros
_SECONDS = re.compile(r'[0-9]{1,4}(\.[0-9]{1,9})?')


Route = Callable[[Service, Request], Response]


def whole_reading(service: Service, request: Request) -> Response:
    """GET / returns the document of a reading as indented JSON."""
    reading = service.reading(request)
    return Response(reading.json, headers=freshness(reading))


def part_of_reading(service: Service, request: Request) -> Response:
    """GET /<JSON Pointer> returns a part of the document of a reading.

    A pointer whose first key cannot occur in any telegram specification is 404 without reading the meter.
    """
    detail = (
        f'nothing is at {request.path}: see / for all values of the meter,'
        ' and /openapi.json for all other paths'
    )
    not_found = HttpError(Fault.NOT_FOUND, detail)
    try:
        keys = _pointer_keys(request.path)
    except UnicodeDecodeError:
        raise not_found from None
    if keys[0] not in possible_keys():
        raise not_found
    reading = service.reading(request)
    try:
        value = _value_at(reading.document, keys)
    except LookupError:
        raise not_found from None
    return Response(render(value), headers=freshness(reading))


def _pointer_keys(path: str) -> list[str]:
    """The keys of a JSON Pointer, unescaped (RFC 6901 4). Raises UnicodeDecodeError when they are not UTF-8."""
    keys = []
    for part in path.split('/')[1:]:
        key = unquote(part, errors='strict')
        keys.append(key.replace('~1', '/').replace('~0', '~'))
    return keys


def _value_at(value: Any, keys: list[str]) -> Any:
    """The value that a JSON Pointer refers to. Raises LookupError."""
    for key in keys:
        if isinstance(value, dict):
            value = value[key]
        elif isinstance(value, list) and _LIST_INDEX.fullmatch(key):
            value = value[int(key)]
        else:
            raise LookupError(key)
    return value


def telegram(service: Service, request: Request) -> Response:
    """GET /telegram returns the telegram as it came, or the plain text of an encrypted one."""
    return _as_it_came(service.reading(request))


def _as_it_came(reading: Reading) -> Response:
    return Response(reading.telegram, 'text/plain; charset=iso-8859-1', headers=freshness(reading))


def health(service: Service, request: Request) -> Response:
    """GET /health says whether the meter is responding, why not, and what happened since the start."""
    error: MeterError | None = None
    try:
        service.reading(request, max_age=HEALTH_AGE)
    except MeterError as caught:
        error = caught
    document = {
        **_verdict(error),
        **_last_reading(service.meter.latest),
        'waitingRequests': service.meter.waiters,
        'telegramClients': service.places.taken(TELEGRAM_CLIENTS),
        'counters': _counters(service),
        'version': __version__,
    }
    if error is None:
        return Response(render(document), headers=_NO_STORE)
    headers = _NO_STORE | {'Retry-After': str(RETRY_AFTER)}
    return Response(render(document), status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers)


def _verdict(error: MeterError | None) -> dict[str, Any]:
    if error is None:
        return {'status': 'ok', 'code': 'ok', 'detail': 'the meter is responding'}
    return {'status': 'unavailable', 'code': error.fault.code, 'detail': error.detail}


def _last_reading(reading: Reading | None) -> dict[str, Any]:
    """What /health says about the last reading; null before the first one."""
    if reading is None:
        keys = ('ageOfLastReading', 'specification', 'specificationUnsure', 'linesNotUnderstood')
        return dict.fromkeys(keys)
    return {
        'ageOfLastReading': round(clock.now() - reading.arrived, 1),
        'specification': reading.specification,
        'specificationUnsure': reading.unsure,
        'linesNotUnderstood': list(reading.not_understood),
    }


def _counters(service: Service) -> dict[str, Any]:
    counters: dict[str, Any] = {}
    for name, count in service.meter.counters._asdict().items():
        counters[camel_case(name)] = count
    counters['errorsByCode'] = service.meter.errors.counts()
    counters['requestsByStatus'] = service.responses.counts()
    return counters


def stream(service: Service, request: Request) -> Response:
    """GET /stream returns server-sent events, one per reading, and `event: problem` when the meter is lost."""
    if not service.places.take(STREAMS):
        detail = (
            'too many clients follow the meter: try again later, or set [server] max_streams higher'
        )
        return problem(Fault.TOO_MANY_CONNECTIONS, detail)
    events = ReadingStream(service, request)
    return Response(b': readings follow\n\n', 'text/event-stream', headers=_NO_STORE, events=events)


def metrics(service: Service, request: Request) -> Response:
    """GET /metrics is always 200; without a reading it says `dsmr_up 0` and has no values of the meter."""
    from dsmr_rest.api.metrics import exposition  # noqa: PLC0415 prometheus_client takes 4 MB, which only scrapes need

    reading: Reading | None = None
    age: float | None = None
    try:
        reading = service.polled_reading(request, _scrape_time(request))
        age = clock.now() - reading.arrived
    except MeterError:
        pass  # dsmr_up and dsmr_errors report it
    body, content_type = exposition(
        reading,
        age,
        service.meter.counters,
        service.meter.errors.counts(),
        service.responses.counts(),
        telegram_clients=service.places.taken(TELEGRAM_CLIENTS),
        accept=request.headers.get('accept', ''),
        identifiers=service.settings.metrics_identifiers,
    )
    return Response(body, content_type, headers=_NO_STORE | {'Vary': 'Accept'})


def _scrape_time(request: Request) -> float:
    """Seconds in which a scrape must get its response."""
    stated = request.headers.get('x-prometheus-scrape-timeout-seconds', '')
    if not _SECONDS.fullmatch(stated):
        return POLL_TIME
    return max(0.0, float(stated) - SCRAPE_MARGIN)


def homewizard_device(service: Service, request: Request) -> Response:
    """GET /api describes the device, as a HomeWizard P1 meter does."""
    device = homewizard.device(service.polled_reading(request))
    return Response(render(device), headers=_NO_STORE)


def homewizard_data(service: Service, request: Request) -> Response:
    """GET /api/v1/data returns the measurement, as a HomeWizard P1 meter does."""
    reading = service.polled_reading(request)
    return Response(render(homewizard.data(reading)), headers=freshness(reading))


def homewizard_telegram(service: Service, request: Request) -> Response:
    """GET /api/v1/telegram returns the telegram as it came."""
    return _as_it_came(service.polled_reading(request))


def waits_for_telegram(path: str) -> bool:
    """Whether the response to a path, percent-decoded, has to wait for a telegram. /health need not."""
    if path in _AT_ONCE:
        return False
    _, _, pointer = path.partition('/')
    first_key, _, _ = pointer.partition('/')
    return path in ROUTES or path in HOMEWIZARD_ROUTES or first_key in possible_keys()


def openapi_document() -> bytes:
    """The description of this HTTP interface (OpenAPI 3.1)."""
    return Path(__file__).with_name('openapi.json').read_bytes()


def _static(
    load: Callable[[], bytes], content_type: str, headers: Mapping[str, str] | None = None
) -> Route:
    """A route for a body that never changes, which a client may keep and revalidate (RFC 9110 13.1.2).

    It is loaded with the first request, because most servers are never asked for it.
    """

    @cache
    def loaded() -> tuple[bytes, str]:
        body = load()
        return body, f'"{zlib.crc32(body):08x}"'

    def route(_: Service, request: Request) -> Response:
        body, tag = loaded()
        fields = {'ETag': tag, 'Cache-Control': 'no-cache', **(headers or {})}
        known_tags = request.headers.get('if-none-match', '')
        is_known = known_tags == '*' or tag in known_tags
        if is_known:
            return Response(b'', '', HTTPStatus.NOT_MODIFIED, fields)
        return Response(body, content_type, headers=fields)

    return route


ROUTES: dict[str, Route] = {
    '/': whole_reading,
    '/telegram': telegram,
    '/stream': stream,
    '/metrics': metrics,
    '/health': health,
    '/dashboard': _static(dashboard_page, 'text/html; charset=utf-8', DASHBOARD_POLICY),
    '/openapi.json': _static(openapi_document, 'application/json'),
}
_AT_ONCE = ('/health', '/dashboard', '/openapi.json')
HOMEWIZARD_ROUTES: dict[str, Route] = {
    '/api': homewizard_device,
    '/api/v1/data': homewizard_data,
    '/api/v1/telegram': homewizard_telegram,
}
