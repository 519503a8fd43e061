"""Receiving: the requests of one connection, one after another, each whole before a deadline.

It does not know what a request asks for, nor who else is connected.
"""

import time

from dsmr_rest.faults import Fault
from dsmr_rest.http.connection import Connection
from dsmr_rest.http.message import (
    HttpError,
    after_header_section,
    end_of_header_section,
    skip_empty_lines,
)


class Receiver:
    """Receives header sections from a connection.

    A client may be idle for `idle_time` seconds before a request, which then has `request_time` seconds from its first
    byte to its last.
    """

    def __init__(self, connection: Connection, idle_time: float, request_time: float) -> None:
        self._connection = connection
        self._idle_time = idle_time
        self._request_time = request_time
        self._received = b''  # what the client has sent of its next requests

    @property
    def received(self) -> bytes:
        """What has arrived of the requests that were not received whole."""
        return self._received

    def header_section(self) -> bytes | None:
        """The next request, without the empty line that ends it; None when there is none. Raises HttpError and OSError.

        The deadline is for the request as a whole: a client that sends it byte by byte gains nothing.
        """
        began = time.monotonic()
        deadline = began + self._idle_time
        seconds_left = self._idle_time
        self._received, skipped = skip_empty_lines(self._received, 0)
        if self._received:  # pipelined
            deadline = began + self._request_time
            seconds_left = self._request_time
        while True:
            end = end_of_header_section(self._received)
            if end is not None:
                break
            data = self._receive(seconds_left)
            if not data:
                return None
            now = time.monotonic()
            deadline = min(deadline, now + self._request_time)
            seconds_left = deadline - now
            self._received, skipped = skip_empty_lines(self._received + data, skipped)
        header_section = self._received[:end]
        self._received = after_header_section(self._received, end)
        return header_section

    def _receive(self, seconds: float) -> bytes:
        """What the client sends; nothing when it has disconnected or is idle. Raises HttpError for a slow request."""
        try:
            return self._connection.receive(seconds)
        except TimeoutError:
            if not self._received:
                return b''
            detail = f'a request must arrive completely within {self._request_time:g} s'
            raise HttpError(Fault.REQUEST_TIMEOUT, detail) from None
