"""Every reason why a request gets no response of the kind that it asks for: its stable code and its HTTP status.

A table of facts, shared by the parts that detect a fault and the parts that report it. It does not know how a fault is
detected, how it is shown, or what a person can do about it: for the faults of the meter p1/diagnosis.py says that.
"""

from enum import Enum
from http import HTTPStatus


class Fault(Enum):
    """A fault, with the `code` that clients may rely on, and the `status` of the HTTP response."""

    code: str
    status: HTTPStatus

    def __init__(self, code: str, status: HTTPStatus) -> None:
        self.code = code
        self.status = status

    @property
    def is_of_port(self) -> bool:
        """Whether the port itself is not there or cannot be used, as opposed to what comes from it."""
        return self.code.startswith('port_')

    # Faults of the port. They pass when the port is available again, hence 503.
    PORT_MISSING = ('port_missing', HTTPStatus.SERVICE_UNAVAILABLE)
    PORT_DENIED = ('port_denied', HTTPStatus.SERVICE_UNAVAILABLE)
    PORT_BUSY = ('port_busy', HTTPStatus.SERVICE_UNAVAILABLE)
    PORT_LOST = ('port_lost', HTTPStatus.SERVICE_UNAVAILABLE)
    PORT_UNUSABLE = ('port_unusable', HTTPStatus.SERVICE_UNAVAILABLE)

    # Faults of the line: nothing usable arrived before the deadline.
    METER_SILENT = ('meter_silent', HTTPStatus.GATEWAY_TIMEOUT)
    LINE_GARBLED = ('line_garbled', HTTPStatus.GATEWAY_TIMEOUT)
    TELEGRAM_INCOMPLETE = ('telegram_incomplete', HTTPStatus.GATEWAY_TIMEOUT)
    CHECKSUM_FAILED = ('checksum_failed', HTTPStatus.GATEWAY_TIMEOUT)

    # Faults of what the meter sends: a 502 passes when a setting or the meter changes, not when somebody waits longer.
    DECRYPTION_FAILED = ('decryption_failed', HTTPStatus.BAD_GATEWAY)
    # A telegram that arrived intact and is not valid all the same (the checksum within an authentic frame is wrong, or
    # no line can be read). CHECKSUM_FAILED or LINE_GARBLED would send the user to the cable, where there is nothing to
    # find. Hence a code of its own, which means the same in an alert, in /health, in the log and on a terminal.
    TELEGRAM_INVALID = ('telegram_invalid', HTTPStatus.BAD_GATEWAY)

    # Faults of the server.
    SERVER_STALLED = ('server_stalled', HTTPStatus.SERVICE_UNAVAILABLE)
    SERVER_EXHAUSTED = ('server_exhausted', HTTPStatus.SERVICE_UNAVAILABLE)
    STOPPING = ('stopping', HTTPStatus.SERVICE_UNAVAILABLE)
    TOO_MANY_CONNECTIONS = ('too_many_connections', HTTPStatus.SERVICE_UNAVAILABLE)
    INTERNAL_ERROR = ('internal_error', HTTPStatus.INTERNAL_SERVER_ERROR)

    # Faults of a request.
    BAD_REQUEST = ('bad_request', HTTPStatus.BAD_REQUEST)
    UNAUTHORIZED = ('unauthorized', HTTPStatus.UNAUTHORIZED)
    NOT_FOUND = ('not_found', HTTPStatus.NOT_FOUND)
    METHOD_NOT_ALLOWED = ('method_not_allowed', HTTPStatus.METHOD_NOT_ALLOWED)
    REQUEST_TIMEOUT = ('request_timeout', HTTPStatus.REQUEST_TIMEOUT)
    URI_TOO_LONG = ('uri_too_long', HTTPStatus.REQUEST_URI_TOO_LONG)
    MISDIRECTED_REQUEST = ('misdirected_request', HTTPStatus.MISDIRECTED_REQUEST)
    NOT_IMPLEMENTED = ('not_implemented', HTTPStatus.NOT_IMPLEMENTED)
    HEADERS_TOO_LARGE = ('headers_too_large', HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


METER_FAULTS = frozenset(
    {
        Fault.PORT_MISSING,
        Fault.PORT_DENIED,
        Fault.PORT_BUSY,
        Fault.PORT_LOST,
        Fault.PORT_UNUSABLE,
        Fault.METER_SILENT,
        Fault.LINE_GARBLED,
        Fault.TELEGRAM_INCOMPLETE,
        Fault.CHECKSUM_FAILED,
        Fault.DECRYPTION_FAILED,
        Fault.TELEGRAM_INVALID,
        Fault.SERVER_STALLED,
        Fault.SERVER_EXHAUSTED,
        Fault.INTERNAL_ERROR,
    }
)
"""Those with which a wait for a reading may end while the server runs."""


class NotWantedError(Exception):
    """Nobody wants the reading any more: the client that it is for has disconnected."""


class MeterError(Exception):
    """There is no reading. `fault` says why; `detail` is a sentence that names the port and what to do.

    `advice` has the next steps for the person who sets up the meter, in one or more lines; empty when there are none.
    """

    def __init__(self, fault: Fault, detail: str, advice: str = '') -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
        self.advice = advice
