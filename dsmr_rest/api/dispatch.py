"""Api: who may ask, and which route responds. What the HTTP server serves.

It checks the host, the method and the credentials of a request, calls the route of its path, and turns the errors of
routes and of the meter into problem details. It does not know connections, and not what a route returns.
"""

import base64
import importlib
import socket
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import unquote

from dsmr_rest.api import homewizard
from dsmr_rest.api.places import FollowerPlaces
from dsmr_rest.api.routes import (
    HOMEWIZARD_CHANGES,
    HOMEWIZARD_ROUTES,
    ROUTES,
    Route,
    homewizard_refusal,
    pointer_route,
)
from dsmr_rest.api.service import Service, meter_problem
from dsmr_rest.config import ServerSettings
from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.http.message import (
    ALLOWED_METHODS,
    TOO_MANY_CONNECTIONS,
    HttpError,
    Request,
    Response,
    problem,
)
from dsmr_rest.meter.meter import Meter
from dsmr_rest.printable import printable

LOCAL_SUFFIXES = (
    '.local',  # RFC 6762
    '.home.arpa',  # RFC 8375
    '.internal',  # ICANN reserves it for private networks
    '.lan',
    '.home',
    '.localdomain',
    '.fritz.box',  # AVM's routers; the manufacturer owns fritz.box
)
"""The ends of names in local networks: nobody else can make such a name resolve to the address of this server."""
PREFLIGHT_AGE = 86_400
"""Seconds that a browser may remember what a website may send."""


class Api:
    """Responds to requests, from any number of threads at once."""

    def __init__(self, settings: ServerSettings, meter: Meter, places: FollowerPlaces) -> None:
        self._settings = settings
        self._service = Service(settings, meter, places)
        self._homewizard_routes: Mapping[str, Route] = {}
        self._changes: Mapping[str, Route] = {}
        if settings.homewizard_api:
            self._homewizard_routes = HOMEWIZARD_ROUTES
            self._changes = HOMEWIZARD_CHANGES
        self._routes = {**ROUTES, **self._homewizard_routes}
        self._own_names = {socket.gethostname().lower(), *settings.hosts}
        _load_what_is_needed(settings)
        self._credentials = base64.b64encode(f'{settings.user}:{settings.password}'.encode())

    @property
    def header_fields(self) -> Mapping[str, str]:
        """The header fields that every response has."""
        fields = {'X-Content-Type-Options': 'nosniff'}
        if self._settings.cors_origin:
            fields['Access-Control-Allow-Origin'] = self._settings.cors_origin
            fields['Access-Control-Expose-Headers'] = 'Age, Last-Modified, Retry-After'
        return fields

    def respond(self, request: Request) -> Response:
        """The response to a request; it never raises an error that the request or the meter causes."""
        return self._respond(request, may_wait=True)

    def respond_at_once(self, request: Request) -> Response:
        """The response to a request for which there is no place to wait: 503 if it would have to wait for a telegram.

        /health then reports what is known, so that a monitor can always ask why.
        """
        return self._respond(request, may_wait=False)

    def _respond(self, request: Request, *, may_wait: bool) -> Response:
        try:
            return self._dispatch(request, may_wait=may_wait)
        except HttpError as error:
            return error.response
        except MeterError as error:
            return meter_problem(error)

    def count(self, response: Response) -> None:
        """Counts a response, by its status, for /health and /metrics."""
        self._service.responses.add(str(response.status.value))

    def _dispatch(self, request: Request, *, may_wait: bool) -> Response:
        self._check_host(request.host)
        if request.path.startswith('//'):  # of a client whose base address ends in a slash
            without_slashes = request.path.lstrip('/')
            request = request._replace(path=f'/{without_slashes}')
        if request.method == 'OPTIONS':
            headers = {'Allow': self._allowed_methods(request.path), **self._preflight_fields()}
            return Response(b'', '', HTTPStatus.NO_CONTENT, headers)
        self._check_credentials(request.headers.get('authorization', ''))
        allowed = self._allowed_methods(request.path)
        if request.method not in allowed.split(', '):
            return self._refusal(request, allowed)
        route = self._route(request)
        if not may_wait:
            if route.needs_meter:
                return TOO_MANY_CONNECTIONS
            request = request._replace(headers={**request.headers, 'prefer': 'wait=0'})
        return route.handler(self._service, request)

    def _refusal(self, request: Request, allowed: str) -> Response:
        """The response to a method that its path does not allow."""
        path = unquote(request.path)
        if path in self._homewizard_routes:
            return homewizard_refusal(allowed)
        detail = f'{request.method} is not allowed here, because this server only reads: use GET'
        return problem(Fault.METHOD_NOT_ALLOWED, detail, {'Allow': allowed})

    def _route(self, request: Request) -> Route:
        """What a request is for, whose path allows its method."""
        path = unquote(request.path)
        if request.method == 'PUT':
            return self._changes[path]
        if path in self._routes:
            return self._routes[path]
        return pointer_route(request.path)

    def _allowed_methods(self, path: str) -> str:
        """The methods that a path, which is percent-encoded, allows."""
        is_read = unquote(path) not in self._changes
        if is_read:
            return ALLOWED_METHODS
        return 'OPTIONS, PUT'

    def _check_host(self, host: str) -> None:
        """Refuses a host that is a public name (RFC 9110 7.4).

        A website can make its name resolve to the address of this server, and then read the meter through the browser
        of somebody on this network (DNS rebinding). Only the Host field reveals that. So a name must be local or in
        [server] hosts; an address cannot be rebound.
        """
        is_literal = host.startswith('[')
        is_single_label = '.' not in host and not is_literal
        if is_single_label or host in self._own_names or host.endswith(LOCAL_SUFFIXES):
            return
        address, _, _ = host.strip('[]').partition('%')  # a zone (RFC 6874)
        family = socket.AF_INET
        if is_literal:
            family = socket.AF_INET6
        try:
            socket.inet_pton(family, address)
        except OSError:
            detail = (
                f'this server does not respond to the host name {printable(host)}: use its IP address, or add the'
                ' name to [server] hosts'
            )
            raise HttpError(Fault.MISDIRECTED_REQUEST, detail) from None

    def _check_credentials(self, authorization: str) -> None:
        """HTTP Basic (RFC 7617), compared in constant time."""
        if not self._settings.user:
            return
        import hmac  # noqa: PLC0415 takes 0.6 MB, which a server without a password does not need

        scheme, _, credentials = authorization.partition(' ')
        is_basic = scheme.lower() == 'basic'
        are_right = hmac.compare_digest(credentials.strip().encode(), self._credentials)
        if not (is_basic and are_right):
            challenge = {'WWW-Authenticate': 'Basic realm="smart meter", charset="UTF-8"'}
            detail = 'the user name or the password is missing or wrong'
            raise HttpError(Fault.UNAUTHORIZED, detail, challenge)

    def _preflight_fields(self) -> Mapping[str, str]:
        """What a website of [server] cors_origin may send (WHATWG Fetch, CORS preflight)."""
        if not self._settings.cors_origin:
            return {}
        return {
            'Access-Control-Allow-Methods': ALLOWED_METHODS,
            'Access-Control-Allow-Headers': 'Authorization, Cache-Control, Prefer',
            'Access-Control-Max-Age': str(PREFLIGHT_AGE),
        }


def _load_what_is_needed(settings: ServerSettings) -> None:
    """Loads what the first request would otherwise load: a shortage of memory during it would last for ever."""
    if settings.user:
        importlib.import_module('hmac')
    if settings.homewizard_api:
        homewizard.load()
