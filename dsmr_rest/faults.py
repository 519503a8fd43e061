"""Every reason why a request gets no response of the kind that it asks for: its stable code and its HTTP status.

A table of facts, shared by the parts that detect a fault and the parts that report it. It does not know how a fault is
detected, how it is shown, or what a person can do about it: for the faults of the meter p1/diagnosis.py says that.
"""

from collections.abc import Callable
from enum import Enum
from http import HTTPStatus


class Origin(Enum):
    """Where a fault arises."""

    PORT = 'the port itself is not there or cannot be used'
    LINE = 'nothing usable arrived before the deadline'
    TELEGRAM = 'what the meter sends cannot be served'
    READER = 'this program could not read the meter'
    SERVER = 'this program does not serve the request'
    REQUEST = 'the request cannot be served'


_ENDS_OF_A_WAIT = (Origin.PORT, Origin.LINE, Origin.TELEGRAM, Origin.READER)
"""Origins of the faults with which a wait for a reading may end while the server runs."""
_Values = tuple[str, HTTPStatus, Origin]
"""Code, status and origin of a fault."""


def _of_port(code: str) -> _Values:
    """503, because it passes when the port is available again."""
    return code, HTTPStatus.SERVICE_UNAVAILABLE, Origin.PORT


def _of_line(code: str) -> _Values:
    """504, because nothing usable arrived before the deadline."""
    return code, HTTPStatus.GATEWAY_TIMEOUT, Origin.LINE


def _of_telegram(code: str) -> _Values:
    """502, because it passes when a setting or the meter changes, not when somebody waits longer."""
    return code, HTTPStatus.BAD_GATEWAY, Origin.TELEGRAM


def _of_reader(code: str, status: HTTPStatus) -> _Values:
    return code, status, Origin.READER


def _of_server(code: str) -> _Values:
    """503, because another attempt may succeed."""
    return code, HTTPStatus.SERVICE_UNAVAILABLE, Origin.SERVER


def _of_request(code: str, status: HTTPStatus) -> _Values:
    return code, status, Origin.REQUEST


class Fault(Enum):
    """A fault: the `code` that clients may rely on, the `status` of the HTTP response, and where it arises."""

    code: str
    status: HTTPStatus
    origin: Origin

    def __init__(self, code: str, status: HTTPStatus, origin: Origin) -> None:
        self.code = code
        self.status = status
        self.origin = origin

    @property
    def is_of_port(self) -> bool:
        """Whether the port itself is not there or cannot be used, as opposed to what comes from it."""
        return self.origin is Origin.PORT

    PORT_MISSING = _of_port('port_missing')
    PORT_DENIED = _of_port('port_denied')
    PORT_BUSY = _of_port('port_busy')
    PORT_LOST = _of_port('port_lost')
    PORT_UNUSABLE = _of_port('port_unusable')

    METER_SILENT = _of_line('meter_silent')
    LINE_GARBLED = _of_line('line_garbled')
    TELEGRAM_INCOMPLETE = _of_line('telegram_incomplete')
    CHECKSUM_FAILED = _of_line('checksum_failed')

    DECRYPTION_FAILED = _of_telegram('decryption_failed')
    # A telegram that arrived intact and is not valid all the same (the checksum within an authentic frame is wrong, or
    # no line can be read). CHECKSUM_FAILED or LINE_GARBLED would send the user to the cable, where there is nothing to
    # find. Hence a code of its own, which means the same in an alert, in /health, in the log and on a terminal.
    TELEGRAM_INVALID = _of_telegram('telegram_invalid')

    SERVER_STALLED = _of_reader('server_stalled', HTTPStatus.SERVICE_UNAVAILABLE)
    SERVER_EXHAUSTED = _of_reader('server_exhausted', HTTPStatus.SERVICE_UNAVAILABLE)
    INTERNAL_ERROR = _of_reader('internal_error', HTTPStatus.INTERNAL_SERVER_ERROR)

    STOPPING = _of_server('stopping')
    TOO_MANY_CONNECTIONS = _of_server('too_many_connections')

    BAD_REQUEST = _of_request('bad_request', HTTPStatus.BAD_REQUEST)
    UNAUTHORIZED = _of_request('unauthorized', HTTPStatus.UNAUTHORIZED)
    NOT_FOUND = _of_request('not_found', HTTPStatus.NOT_FOUND)
    METHOD_NOT_ALLOWED = _of_request('method_not_allowed', HTTPStatus.METHOD_NOT_ALLOWED)
    REQUEST_TIMEOUT = _of_request('request_timeout', HTTPStatus.REQUEST_TIMEOUT)
    URI_TOO_LONG = _of_request('uri_too_long', HTTPStatus.REQUEST_URI_TOO_LONG)
    MISDIRECTED_REQUEST = _of_request('misdirected_request', HTTPStatus.MISDIRECTED_REQUEST)
    NOT_IMPLEMENTED = _of_request('not_implemented', HTTPStatus.NOT_IMPLEMENTED)
    HEADERS_TOO_LARGE = _of_request('headers_too_large', HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


METER_FAULTS = frozenset(fault for fault in Fault if fault.origin in _ENDS_OF_A_WAIT)
"""Those with which a wait for a reading may end while the server runs."""


class NotWantedError(Exception):
    """Nobody wants the reading any more: the client that it is for has disconnected."""


IsWanted = Callable[[Callable[[], None]], bool]
"""Says, without waiting, whether somebody still wants what is being waited for.

If so, what it is given is called once when it should be asked again: from another thread, and perhaps for nothing.
"""


class MeterError(Exception):
    """There is no reading. `fault` says why; `detail` is a sentence that names the port and what to do.

    `advice` has the next steps for the person who sets up the meter, in one or more lines; empty when there are none.
    """

    def __init__(self, fault: Fault, detail: str, advice: str = '') -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
        self.advice = advice
