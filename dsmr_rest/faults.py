"""Every reason why a request gets no reading: its code, its HTTP status and what a person can do about it.

A table of facts, shared by the part that detects a fault and the parts that report it. It does not know how a fault is
detected, nor how it is shown.
"""

from enum import Enum
from http import HTTPStatus


class Fault(Enum):
    """A fault, with the stable `code` that clients may rely on.

    `status` is the status of the HTTP response. `advice` is the next step for the person who sets up the meter; it is
    empty for the faults of a request, where the detail of the response says what to change.
    """

    code: str
    status: HTTPStatus
    advice: str

    def __init__(self, code: str, status: HTTPStatus, advice: str = '') -> None:
        self.code = code
        self.status = status
        self.advice = advice

    @property
    def is_of_port(self) -> bool:
        """Whether the port itself is not there or cannot be used, as opposed to what comes from it."""
        return self.code.startswith('port_')

    # Faults of the port. They pass when the port is available again, hence 503.
    PORT_MISSING = (
        'port_missing',
        HTTPStatus.SERVICE_UNAVAILABLE,
        (
            'Plug in the cable, set [meter] port to the name of its port, and try again. `sudo dmesg | tail` shows'
            ' what Linux detected.'
        ),
    )
    PORT_DENIED = (
        'port_denied',
        HTTPStatus.SERVICE_UNAVAILABLE,
        (
            'Run that command, then log out and log in again, because a new group takes effect at the next login.'
            ' `id -nG` lists your groups.'
        ),
    )
    PORT_BUSY = (
        'port_busy',
        HTTPStatus.SERVICE_UNAVAILABLE,
        (
            'Only one program at a time can read a serial port, so stop the other one. If it needs the meter too, let'
            ' it connect to [server] telegram_port of dsmr_rest_server.py instead. If it is dsmr_rest_server.py itself,'
            ' the cable works: take the reading from it over HTTP.'
        ),
    )
    PORT_LOST = (
        'port_lost',
        HTTPStatus.SERVICE_UNAVAILABLE,
        'Plug the cable in again. If `sudo dmesg | tail` shows that it keeps disconnecting, try another USB port.',
    )

    PORT_UNUSABLE = (
        'port_unusable',
        HTTPStatus.SERVICE_UNAVAILABLE,
        (
            '[meter] port names something that is there, but is no serial port. Set it to the name of the port of the'
            ' cable.'
        ),
    )

    # Faults of the line: nothing usable arrived before the deadline.
    METER_SILENT = (
        'meter_silent',
        HTTPStatus.GATEWAY_TIMEOUT,
        """Check, in this order:
1. Is the cable plugged into the P1 port of the meter, not into another socket of the same shape, and into USB?
2. Is the P1 port switched on? The grid operator does that; in Belgium you do it yourself on its website.
3. Is [meter] port the port of this cable, and not another serial port?
4. Is it a P1 cable? It must hold the data request line (pin 2) high and invert the signal (pin 5): try another one.
5. Is it an old meter (DSMR 2.2, 3)? Set [meter] line = 9600 7E1: auto tries 9600 baud only after 11 s of silence.""",
    )
    LINE_GARBLED = (
        'line_garbled',
        HTTPStatus.GATEWAY_TIMEOUT,
        (
            'Set [meter] line = auto to try both baud rates. If both were tried, the cable is damaged or does not'
            ' invert the signal: use a cable that is made for the P1 port.'
        ),
    )
    TELEGRAM_INCOMPLETE = (
        'telegram_incomplete',
        HTTPStatus.GATEWAY_TIMEOUT,
        (
            'Check that the plugs are fully inserted, that no other program reads the port, that [meter] timeout'
            ' is longer than the time between two telegrams (10 s before DSMR 5), and that [meter] line is auto or'
            ' correct.'
        ),
    )
    CHECKSUM_FAILED = (
        'checksum_failed',
        HTTPStatus.GATEWAY_TIMEOUT,
        'Check that the plugs are fully inserted, use a shorter cable, and stop other programs that read the port.',
    )

    # Faults of what the meter sends: a 502 passes when a setting or the meter changes, not when somebody waits longer.
    DECRYPTION_FAILED = (
        'decryption_failed',
        HTTPStatus.BAD_GATEWAY,
        (
            'Ask the grid operator for the keys of the meter, 32 hexadecimal digits each, and set [meter]'
            ' decryption_key. Set authentication_key too, unless it is the one that all meters in Luxembourg share.'
        ),
    )
    # A frame whose authentication tag is right arrived as the meter sent it. If the telegram inside is not valid (its
    # checksum is wrong, for example), CHECKSUM_FAILED would send the user to the cable, where there is nothing to find.
    # Hence a code of its own, which means the same in an alert, in /health, in the log and on a terminal.
    TELEGRAM_INVALID = (
        'telegram_invalid',
        HTTPStatus.BAD_GATEWAY,
        (
            'The cable and the keys are right: the authentication of the encrypted telegrams shows that they arrive as'
            ' the meter sends them. Set [meter] specification = auto. If it is auto already, please report it, with the'
            ' make and model of the meter.'
        ),
    )

    # Faults of the server. The first two are noticed while a meter is read.
    SERVER_STALLED = (
        'server_stalled',
        HTTPStatus.SERVICE_UNAVAILABLE,
        (
            'This program did not run for some time: it was stopped, or the machine was suspended or far too busy. Try'
            ' again.'
        ),
    )
    SERVER_EXHAUSTED = (
        'server_exhausted',
        HTTPStatus.SERVICE_UNAVAILABLE,
        (
            'This program has no file descriptors, threads or memory left. Close connections, or raise the limits that'
            ' it runs with (`ulimit -a`, or LimitNOFILE and TasksMax of the systemd unit).'
        ),
    )
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


class NotWantedError(Exception):
    """Nobody wants the reading any more: the client that it is for has disconnected."""


class MeterError(Exception):
    """There is no reading. `fault` says why; `detail` is a sentence that names the port and what to do."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
