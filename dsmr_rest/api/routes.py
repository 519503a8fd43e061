"""What each path returns: a handler, which makes a Response from Service and Request, and a Route in one of the tables.

Every other path is a JSON Pointer into the reading. A handler does not know sockets, credentials or the serial port: it
asks the Meter for a reading, and lets a MeterError pass, of which dispatch.py makes a response.

The tables are also the `paths` of openapi.json: `python -m docs.make_openapi` writes them there.
"""

import logging
import re
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from dsmr_rest.api import homewizard
from dsmr_rest.api.dashboard import files as dashboard_files
from dsmr_rest.api.health import health_document
from dsmr_rest.api.places import STREAMS, TELEGRAM_CLIENTS
from dsmr_rest.api.pointer import NothingThereError, keys_of, path_of, similar_key, value_at
from dsmr_rest.api.service import POLL_TIME, Service, freshness
from dsmr_rest.api.static import Handler, StaticBody, static
from dsmr_rest.api.stream import ReadingStream
from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.http.message import RETRY_AFTER, HttpError, Request, Response, problem
from dsmr_rest.http.negotiation import best_language
from dsmr_rest.process import clock
from dsmr_rest.reading.document import Reading, possible_keys, render

SCRAPE_MARGIN = 0.5
"""Seconds before the end of Prometheus's patience at which a scrape gets its response."""
HEALTH_AGE = 60.0
"""Seconds. /health takes a reading when the last one is older."""

DASHBOARD_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'"
)
"""Content-Security-Policy of the dashboard: it loads nothing from elsewhere, and runs nothing that is not a file."""
_NO_STORE = {'Cache-Control': 'no-store'}
_UNBUFFERED = {'X-Accel-Buffering': 'no'}
"""Makes nginx pass the events on as they come; it would collect some kilobytes of them otherwise."""

log = logging.getLogger(__name__)

_SECONDS = re.compile(r'[0-9]{1,4}(\.[0-9]{1,9})?')


def whole_reading(service: Service, request: Request) -> Response:
    """The document of a reading as indented JSON."""
    reading = service.reading(request)
    return Response(reading.json, headers=freshness(reading))


def part_of_reading(service: Service, request: Request) -> Response:
    """The value at a JSON Pointer into the document of a reading."""
    try:
        keys = keys_of(request.path)
        reading = service.reading(request)
        value = value_at(reading.document, keys)
    except NothingThereError as error:
        raise _not_found(request.path, error.meant) from None
    return Response(render(value), headers=freshness(reading))


def nothing(service: Service, request: Request) -> Response:
    """404, for a pointer whose first key cannot occur in any telegram. It says which path was probably meant."""
    known_paths = set(ROUTES) - {'/'}
    if service.settings.homewizard_api:
        known_paths.update(HOMEWIZARD_ROUTES)
    raise _not_found(request.path, _meant(request.path, known_paths))


def _not_found(path: str, meant: str) -> HttpError:
    hint = ''
    if meant:
        hint = f' did you mean {meant}?'
    detail = (
        f'nothing is at {path}:{hint} see / for all values of the meter,'
        ' and /openapi.json for all other paths'
    )
    return HttpError(Fault.NOT_FOUND, detail)


def _meant(path: str, known_paths: set[str]) -> str:
    """The path that was probably meant by one whose first key is not known; empty when none is similar."""
    without_end = path.rstrip('/')
    try:
        first_key, *other_keys = keys_of(without_end)
    except NothingThereError:
        return ''
    similar = similar_key(first_key, possible_keys())
    if other_keys and similar:
        return path_of([similar, *other_keys])
    paths_of_keys = {path_of([key]) for key in possible_keys()}
    return similar_key(without_end, known_paths | paths_of_keys)


def telegram(service: Service, request: Request) -> Response:
    """The telegram as it came, or the plain text of an encrypted one."""
    return _as_it_came(service.reading(request))


def _as_it_came(reading: Reading) -> Response:
    return Response(reading.telegram, 'text/plain; charset=iso-8859-1', headers=freshness(reading))


def health(service: Service, request: Request) -> Response:
    """200 or 503 with the same document: whether the meter is responding, and what happened since the start."""
    try:
        service.reading(request, max_age=HEALTH_AGE)
    except MeterError as error:
        document = health_document(service, error)
        headers = _NO_STORE | {'Retry-After': str(RETRY_AFTER)}
        return Response(render(document), status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers)
    document = health_document(service, None)
    return Response(render(document), headers=_NO_STORE)


def stream(service: Service, request: Request) -> Response:
    """Server-sent events, one per reading, and `event: problem` when the meter is lost."""
    if not service.places.take(STREAMS):
        detail = (
            'too many clients follow the meter: try again later, or set [server] max_streams higher'
        )
        return problem(Fault.TOO_MANY_CONNECTIONS, detail)
    events = ReadingStream(service, request)
    headers = _NO_STORE | _UNBUFFERED
    return Response(b': readings follow\n\n', 'text/event-stream', headers=headers, events=events)


def metrics(service: Service, request: Request) -> Response:
    """Always 200; without a reading it says `dsmr_up 0` and has no values of the meter."""
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
    return float(stated) - SCRAPE_MARGIN


def homewizard_device(service: Service, request: Request) -> Response:
    """A description of the device, as a HomeWizard P1 meter has it."""
    device = homewizard.device(service.polled_reading(request))
    return Response(render(device), headers=_NO_STORE)


def homewizard_data(service: Service, request: Request) -> Response:
    """The measurement, as a HomeWizard P1 meter has it."""
    reading = service.polled_reading(request)
    return Response(render(homewizard.data(reading)), headers=freshness(reading))


def homewizard_telegram(service: Service, request: Request) -> Response:
    """The telegram as it came."""
    return _as_it_came(service.polled_reading(request))


def dashboard(service: Service, request: Request) -> Response:
    """The live page, in the reader's language; a page that may read the meter may also have it in a frame."""
    language = best_language(
        request.headers.get('accept-language', ''),
        dashboard_files.LANGUAGES,
        dashboard_files.FALLBACK_LANGUAGE,
    )
    policy = f'{DASHBOARD_POLICY} {service.settings.cors_origin}'.rstrip()
    fields = {'Content-Security-Policy': policy, 'Referrer-Policy': 'no-referrer'}
    return dashboard_files.page(language).response(request, fields)


def homewizard_system(_: Service, __: Request) -> Response:
    """The system settings that a HomeWizard P1 meter has."""
    return Response(render(homewizard.SYSTEM), headers=_NO_STORE)


def homewizard_refusal(allowed_methods: str) -> Response:
    """Refuses a method, such as PUT for a system setting, in the form of the HomeWizard API."""
    refusal = homewizard.error(homewizard.NOT_MODIFIABLE, 'this server only reads: use GET')
    headers = _NO_STORE | {'Allow': allowed_methods}
    return Response(render(refusal), status=HTTPStatus.METHOD_NOT_ALLOWED, headers=headers)


def homewizard_identify(_: Service, __: Request) -> Response:
    """A HomeWizard P1 meter blinks; this server has no light, and writes a line to its log."""
    log.warning('identify: this is the server that a HomeWizard-compatible program asked for')
    return Response(render(homewizard.IDENTIFIED), headers=_NO_STORE)


def openapi_document() -> StaticBody:
    """The description of this HTTP interface (OpenAPI 3.1)."""
    body = Path(__file__).with_name('openapi.json').read_bytes()
    return StaticBody(body, 'application/json')


class Route(NamedTuple):
    """What is at a path: how a request is handled, and how openapi.json describes it.

    `needs_meter` when the response must wait for a telegram: then there is none while the server is too busy to wait.
    A `name` begins the operationIds; it is empty for what only a page of this server loads, which is not described.
    `responses` has the name of a response in openapi.json by status, beside those that every path can have.
    `parameters` are the names of header fields there that matter.
    """

    handler: Handler
    needs_meter: bool
    name: str = ''
    tag: str = ''
    summary: str = ''
    responses: Mapping[str, str] = {}
    parameters: tuple[str, ...] = ()
    description: str = ''


_NO_READING = {'502': 'UnusableTelegram', '503': 'Unavailable', '504': 'NoTelegram'}
"""The responses of a path when there is no reading."""
_FRESHNESS = ('CacheControl', 'Prefer')
_READING = 'reading'
_OTHER_FORMS = 'other forms'
_SERVER = 'server'
_HOMEWIZARD = 'HomeWizard-compatible'
_HOMEWIZARD_SETTING = 'When [server] homewizard_api = yes, else 404.'

_DASHBOARD_FILES = {
    f'/dashboard/{name}': Route(static(partial(dashboard_files.load, name)), needs_meter=False)
    for name in dashboard_files.FILES
}
"""What only the dashboard requests."""

ROUTES: Mapping[str, Route] = {
    '/': Route(
        whole_reading,
        needs_meter=True,
        name='reading',
        tag=_READING,
        summary='The whole reading',
        responses={'200': 'Reading', **_NO_READING},
        parameters=_FRESHNESS,
    ),
    '/telegram': Route(
        telegram,
        needs_meter=True,
        name='telegram',
        tag=_READING,
        summary='The telegram as received',
        responses={'200': 'Telegram', **_NO_READING},
        parameters=_FRESHNESS,
    ),
    '/stream': Route(
        stream,
        needs_meter=True,
        name='stream',
        tag=_READING,
        summary='Readings as server-sent events, one per telegram, until the client disconnects',
        responses={'200': 'Stream'},
        description=(
            'For EventSource and curl -N. An event without a name is a reading: its data is the response to GET /'
            ' on one line, and its id is the Unix time at which the telegram arrived. An event named problem means'
            ' that the meter is lost: its data is a problem detail on one line; readings resume automatically when'
            ' the meter is back. A comment every 15 s shows that the stream is alive. A slow client skips to the'
            ' newest reading.'
        ),
    ),
    '/metrics': Route(
        metrics,
        needs_meter=True,
        name='metrics',
        tag=_OTHER_FORMS,
        summary='The reading for Prometheus',
        responses={'200': 'Metrics'},
        parameters=('ScrapeTimeout', 'Prefer'),
        description=(
            'A valid request gets 200 even if there is no reading: then dsmr_up is 0, and the values of the meter'
            ' are absent. The reading may be as old as the time between two telegrams.'
        ),
    ),
    '/health': Route(
        health,
        needs_meter=False,  # it then reports what is known
        name='health',
        tag=_SERVER,
        summary='Whether the meter is responding',
        responses={'200': 'Healthy', '503': 'Unhealthy'},
        parameters=_FRESHNESS,
        description=f'Takes a reading when the last one is older than {HEALTH_AGE:g} s.',
    ),
    '/dashboard': Route(
        dashboard,
        needs_meter=False,
        name='dashboard',
        tag=_OTHER_FORMS,
        summary='A page that shows the meter live',
        responses={'200': 'Dashboard', '304': 'DashboardNotModified'},
        parameters=('IfNoneMatch',),
    ),
    '/openapi.json': Route(
        static(openapi_document),
        needs_meter=False,
        name='openapi',
        tag=_SERVER,
        summary='This description',
        responses={'200': 'Description', '304': 'NotModified'},
        parameters=('IfNoneMatch',),
    ),
    **_DASHBOARD_FILES,
}
"""By path, percent-decoded: what GET and HEAD get."""

HOMEWIZARD_ROUTES: Mapping[str, Route] = {
    '/api': Route(
        homewizard_device,
        needs_meter=True,
        name='homewizardDevice',
        tag=_HOMEWIZARD,
        summary='HomeWizard-compatible: the device',
        responses={'200': 'HomeWizardDevice', '404': 'NotFound', **_NO_READING},
        parameters=('Prefer',),
        description=_HOMEWIZARD_SETTING,
    ),
    '/api/v1/data': Route(
        homewizard_data,
        needs_meter=True,
        name='homewizardData',
        tag=_HOMEWIZARD,
        summary='HomeWizard-compatible: the reading as one flat object',
        responses={'200': 'HomeWizardData', '404': 'NotFound', **_NO_READING},
        parameters=('Prefer',),
        description=_HOMEWIZARD_SETTING,
    ),
    '/api/v1/telegram': Route(
        homewizard_telegram,
        needs_meter=True,
        name='homewizardTelegram',
        tag=_HOMEWIZARD,
        summary='HomeWizard-compatible: the telegram as received',
        responses={'200': 'Telegram', '404': 'NotFound', **_NO_READING},
        parameters=('Prefer',),
        description=_HOMEWIZARD_SETTING,
    ),
    '/api/v1/system': Route(
        homewizard_system,
        needs_meter=False,
        name='homewizardSystem',
        tag=_HOMEWIZARD,
        summary='HomeWizard-compatible: the system settings',
        responses={'200': 'HomeWizardSystem', '404': 'NotFound'},
        description=_HOMEWIZARD_SETTING,
    ),
}
"""The same, with [server] homewizard_api."""

HOMEWIZARD_CHANGES: Mapping[str, Route] = {
    '/api/v1/identify': Route(
        homewizard_identify,
        needs_meter=False,
        name='homewizardIdentify',
        tag=_HOMEWIZARD,
        summary='HomeWizard-compatible: writes a line to the log',
        responses={'200': 'HomeWizardIdentified', '405': 'MethodNotAllowed'},
        description='When [server] homewizard_api = yes, else 405.',
    ),
}
"""By path: what PUT gets, with [server] homewizard_api. Nothing else can be asked to do something."""

POINTER_ROUTE = Route(
    part_of_reading,
    needs_meter=True,
    name='part',
    tag=_READING,
    summary='A part of the reading',
    responses={'200': 'Part', '404': 'NotFound', **_NO_READING},
    parameters=('Pointer', *_FRESHNESS),
    description=(
        'The path is a JSON Pointer (RFC 6901) into the reading; its slashes are not percent-encoded. A first key'
        ' that no telegram can have gets 404 at once; a key that is only missing from this telegram gets 404 when'
        ' the telegram has arrived.'
    ),
)
"""What is at every path that is in no table, if its first key can occur in a telegram."""
NOTHING = Route(nothing, needs_meter=False)


def pointer_route(path: str) -> Route:
    """The route of a path, percent-encoded, that is in no table. It does not read the meter to find out."""
    try:
        first_key, *_ = keys_of(path)
    except NothingThereError:
        return NOTHING
    if first_key in possible_keys():
        return POINTER_ROUTE
    return NOTHING
