"""What each path answers: a function from Service and Request to Response, and one entry in ROUTES.

Every other path is a JSON Pointer (RFC 6901) into the reading. None of them reads the meter in a way of its own.
"""

import hashlib
import re
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dsmr_rest import __version__, homewizard
from dsmr_rest.config import ServerSettings
from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.http_message import RETRY_AFTER, HttpError, Request, Response, problem
from dsmr_rest.meter import Meter, Tally
from dsmr_rest.metrics import exposition
from dsmr_rest.reading import Reading, possible_keys, render

STREAM_BEAT = 15.0
"""Seconds after which a stream says something although there is no reading, so that its client knows it is alive."""
STREAM_RETRY = 1.0
"""Seconds between attempts to open a lost port for a stream, and that the port stays open for its next reading."""
POLL_TIME = 9.5
"""Seconds to answer a poller: Prometheus and Home Assistant give up after 10."""
SCRAPE_MARGIN = 0.5
"""Seconds before the end of Prometheus's patience by which a scrape is answered."""
HEALTH_AGE = 60.0
"""Seconds: /health takes a reading when the last one is older."""

DASHBOARD_POLICY = {
    'Content-Security-Policy': "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    'Referrer-Policy': 'no-referrer',
}

_INDEX = re.compile(r'0|[1-9]\d{0,8}')  # RFC 6901: no leading zeros
_SECONDS = re.compile(r'\d{1,4}(\.\d{1,9})?')
_KEYS = possible_keys()


@dataclass
class Service:
    """What the routes work with. `streams` is changed by single operations of the interpreter: it needs no lock."""

    settings: ServerSettings
    meter: Meter
    answers: Tally = field(default_factory=Tally)
    streams: set[object] = field(default_factory=set)
    stopping: bool = False

    @property
    def timeout(self) -> float:
        """Seconds that a request waits for a telegram."""
        return self.meter.reader.settings.timeout

    def reading(self, request: Request, max_age: float | None = None) -> Reading:
        """The reading that a request asks for. Raises MeterError."""
        return self.meter.read(
            _deadline(request, self.timeout), max_age if request.max_age is None else request.max_age
        )

    def polled(self, request: Request, patience: float) -> Reading:
        """The reading for a client that asks again and again. Raises MeterError."""
        return self.meter.poll(_deadline(request, min(patience, self.timeout)))


Route = Callable[[Service, Request], Response]


def _deadline(request: Request, timeout: float) -> float:
    return time.monotonic() + (timeout if request.wait is None else min(timeout, request.wait))


def meter_problem(error: MeterError) -> Response:
    """The answer when there is no reading."""
    return problem(error.fault, error.detail)


def freshness(reading: Reading) -> dict[str, str]:
    """How old an answer is, in the field's own terms (RFC 9111)."""
    return {
        'Age': str(int(time.monotonic() - reading.arrived)),
        'Last-Modified': formatdate(reading.received, usegmt=True),
        'Cache-Control': 'no-cache',
    }


def whole_reading(service: Service, request: Request) -> Response:
    """GET /."""
    reading = service.reading(request)
    return Response(reading.json, headers=freshness(reading))


def part_of_reading(service: Service, request: Request) -> Response:
    """GET /<JSON Pointer>. A first key that no specification can give is unknown without asking the meter."""
    unknown = HttpError(Fault.NOT_FOUND, f'nothing is at {request.path}')
    try:
        keys = [
            unquote(key, errors='strict').replace('~1', '/').replace('~0', '~') for key in request.path.split('/')[1:]
        ]
    except UnicodeDecodeError:
        raise unknown from None
    if keys[0] not in _KEYS:
        raise unknown
    reading = service.reading(request)
    value: Any = reading.document
    try:
        for key in keys:
            value = value[int(key) if isinstance(value, list) and _INDEX.fullmatch(key) else key]
    except (KeyError, IndexError, TypeError):
        raise unknown from None
    return Response(render(value), headers=freshness(reading))


def telegram(service: Service, request: Request) -> Response:
    """GET /telegram: as it came."""
    return _as_it_came(service.reading(request))


def _as_it_came(reading: Reading) -> Response:
    return Response(reading.telegram, 'text/plain; charset=iso-8859-1', headers=freshness(reading))


def health(service: Service, request: Request) -> Response:
    """GET /health: whether readings can be had, why not, and what happened since the start."""
    error: MeterError | None = None
    try:
        service.reading(request, max_age=HEALTH_AGE)
    except MeterError as caught:
        error = caught
    latest = service.meter.latest
    document = {
        'status': 'unavailable' if error else 'ok',
        'code': error.fault.code if error else 'ok',
        'detail': error.detail if error else 'readings can be had',
        'ageOfLastReading': round(time.monotonic() - latest.arrived, 1) if latest else None,
        'specification': latest and latest.specification,
        'specificationUnsure': latest and latest.unsure,
        'linesNotUnderstood': latest and list(latest.not_understood),
        'counters': service.meter.counters() | {'requestsByStatus': service.answers.counts()},
        'version': __version__,
    }
    status = HTTPStatus.SERVICE_UNAVAILABLE if error else HTTPStatus.OK
    headers = {'Cache-Control': 'no-store'} | ({'Retry-After': str(RETRY_AFTER)} if error else {})
    return Response(render(document), status=status, headers=headers)


def stream(service: Service, _: Request) -> Response:
    """GET /stream: server-sent events, a reading each; `event: problem` when the meter is lost."""
    events = _events(service)
    first = next(events)  # with which it takes its place, so that no two can take the same
    if len(service.streams) > min(service.settings.max_streams, service.settings.max_connections - 1):
        events.close()
        return problem(
            Fault.TOO_MANY_CONNECTIONS,
            'as many streams as [server] max_streams allows are open: try again, or set it higher',
        )
    return Response(first, 'text/event-stream', headers={'Cache-Control': 'no-store'}, events=events)


def _events(service: Service) -> Generator[bytes, None, None]:
    mark, reading, trouble = object(), None, ''
    keep_open = max(STREAM_RETRY, service.meter.reader.settings.keep_open)
    service.streams.add(mark)
    try:
        yield b': readings follow\n\n'
        spoke = time.monotonic()
        while not service.stopping:
            try:
                until = min(time.monotonic() + service.timeout, spoke + STREAM_BEAT)
                until = max(until, time.monotonic() + STREAM_RETRY)
                reading = service.meter.read(until, 0, after=reading, keep_open=keep_open)
                event, trouble = b'id: %.3f\ndata: %s\n\n' % (reading.received, reading.line), ''
            except MeterError as error:
                event = b': no reading\n\n'
                if error.fault.code != trouble:
                    details = b' '.join(meter_problem(error).body.split())
                    event, trouble = b'event: problem\ndata: %s\n\n' % details, error.fault.code
                elif time.monotonic() - spoke < STREAM_BEAT:
                    time.sleep(STREAM_RETRY)
                    continue
            yield event
            spoke = time.monotonic()
    finally:
        service.streams.discard(mark)


def metrics(service: Service, request: Request) -> Response:
    """GET /metrics: always 200; without a reading it says dsmr_up 0 and shows no values."""
    given = request.headers.get('x-prometheus-scrape-timeout-seconds', '')
    patience = max(0.0, float(given) - SCRAPE_MARGIN) if _SECONDS.fullmatch(given) else POLL_TIME
    reading = None
    with suppress(MeterError):
        reading = service.polled(request, patience)
    body, content_type = exposition(
        reading,
        time.monotonic() - reading.arrived if reading else None,
        service.meter.counters(),
        service.answers.counts(),
        accept=request.headers.get('accept', ''),
        identifiers=service.settings.metrics_identifiers,
    )
    return Response(body, content_type, headers={'Cache-Control': 'no-store', 'Vary': 'Accept'})


def homewizard_device(service: Service, request: Request) -> Response:
    """GET /api."""
    return Response(
        render(homewizard.device(service.polled(request, POLL_TIME))), headers={'Cache-Control': 'no-store'}
    )


def homewizard_data(service: Service, request: Request) -> Response:
    """GET /api/v1/data."""
    reading = service.polled(request, POLL_TIME)
    return Response(render(homewizard.data(reading)), headers=freshness(reading))


def homewizard_telegram(service: Service, request: Request) -> Response:
    """GET /api/v1/telegram."""
    return _as_it_came(service.polled(request, POLL_TIME))


def _file(name: str, content_type: str, headers: Mapping[str, str] | None = None) -> Route:
    """A route for a file of the package, which a client may keep and ask about (RFC 9110 13.1.2)."""
    body = Path(__file__).with_name(name).read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    fields = {'ETag': tag, 'Cache-Control': 'no-cache', **(headers or {})}

    def route(_: Service, request: Request) -> Response:
        known = request.headers.get('if-none-match', '')
        if known == '*' or tag in known:
            return Response(b'', '', HTTPStatus.NOT_MODIFIED, fields)
        return Response(body, content_type, headers=fields)

    return route


ROUTES: dict[str, Route] = {
    '/': whole_reading,
    '/telegram': telegram,
    '/stream': stream,
    '/metrics': metrics,
    '/health': health,
    '/dashboard': _file('dashboard.html', 'text/html; charset=utf-8', DASHBOARD_POLICY),
    '/openapi.json': _file('openapi.json', 'application/json'),
}
HOMEWIZARD_ROUTES: dict[str, Route] = {
    '/api': homewizard_device,
    '/api/v1/data': homewizard_data,
    '/api/v1/telegram': homewizard_telegram,
}
