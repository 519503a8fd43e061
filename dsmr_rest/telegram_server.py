"""Telegrams over plain TCP, for programs that read P1 telegrams themselves.

A client gets every telegram from its connection on, byte for byte as it came (the plain text of an encrypted one). It
is a waiter of the Meter like any request, so one cable serves any number of such programs beside the JSON. What a
client sends is discarded. A client that does not take its telegrams skips to the newest. While the meter is silent the
connection stays open, because these programs have their own timeouts. When its port is lost the connection is closed:
these programs connect again by themselves, and show meanwhile that there is no meter. Home Assistant's DSMR integration
takes over one change in 30 s at most, and a new connection is a change to it: the closing of a connection that was open
for less goes unnoticed, and it would show the last values for ever. So a client that connects while the port is lost
waits for longer than that, before its connection is closed too.

The protocol has neither requests nor credentials. This module does not know HTTP, nor how a telegram is read.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

from dsmr_rest.api.places import TELEGRAM_CLIENTS, FollowerPlaces
from dsmr_rest.faults import Fault, MeterError, NotWantedError
from dsmr_rest.http.connection import connection_of
from dsmr_rest.http.listener import Listener
from dsmr_rest.meter.meter import Meter
from dsmr_rest.reading.document import Reading

log = logging.getLogger(__name__)


SEND_TIME = 10.0
"""Seconds after which a client that does not take its telegram is disconnected."""
BEGINNING_OF_TELEGRAMS = b'/'
LONGEST_WAIT_FOR_PORT = 32.0
"""Seconds after which the connection of a client is closed that has connected while the port was lost."""
RETRY_PAUSE = 1.0
"""Seconds between attempts to read the meter, also of a client that connects again at once while its port is lost, and
that the port is kept open for the next telegram."""


class TelegramServer(Listener, ThreadingTCPServer):
    """Sends telegrams to every client that connects to [server] telegram_port. `places` is shared with the streams."""

    def __init__(self, host: str, port: int, meter: Meter, places: FollowerPlaces) -> None:
        self.meter = meter
        self.places = places
        self.keep_open = max(RETRY_PAUSE, meter.reader.settings.keep_open)
        self._lock = threading.Lock()  # guards _is_full
        self._is_full = False  # whether the last client was refused
        super().__init__(host, port, 'telegram_port', TelegramHandler)

    def note_admission(self, *, is_full: bool) -> None:
        """Logs once when clients begin to be refused, until one is admitted again."""
        with self._lock:
            is_news = is_full and not self._is_full
            self._is_full = is_full
        if is_news:
            log.warning(
                'clients of telegram_port are refused, because too many clients follow the meter:'
                ' set [server] max_streams higher'
            )


class TelegramHandler(BaseRequestHandler):
    """Handles one client, until it disconnects, the port of the meter is lost, or the meter is stopped."""

    server: TelegramServer
    request: socket.socket  # what socketserver calls the connection

    def setup(self) -> None:
        self._connection = connection_of(self.request)
        self._was_probed = False  # whether the client was sent the beginning of a telegram to see whether it is there
        self._begun = 0  # how many bytes of the next telegram that was

    def handle(self) -> None:
        is_admitted = self.server.places.take(TELEGRAM_CLIENTS)
        self.server.note_admission(is_full=not is_admitted)
        if not is_admitted:
            return
        try:
            # OSError: the client has disconnected or does not take its telegrams, which needs no log line.
            with suppress(OSError, NotWantedError):
                self._send_telegrams()
        finally:
            self.server.places.leave(TELEGRAM_CLIENTS)

    def _send_telegrams(self) -> None:
        """Returns when the meter is stopped or its port is lost. Raises OSError and NotWantedError."""
        latest: Reading | None = None
        connected = time.monotonic()
        while True:
            try:
                latest = self._next_reading(latest)
            except MeterError as error:
                if error.fault is Fault.STOPPING:
                    return
                time.sleep(RETRY_PAUSE)
                has_waited = time.monotonic() - connected >= LONGEST_WAIT_FOR_PORT
                may_close = latest is not None or has_waited
                if error.fault.is_of_port and may_close:
                    return
                continue
            self._connection.send(latest.telegram[self._begun :], SEND_TIME)
            self._begun = 0

    def _next_reading(self, latest: Reading | None) -> Reading:
        meter = self.server.meter
        return meter.read(
            max_age=0, after=latest, keep_open=self.server.keep_open, is_wanted=self._is_wanted
        )

    def _is_wanted(self, look_again: Callable[[], None]) -> bool:
        """Whether the client is still there, as far as that is known. Discards what it has sent.

        A client that has closed its sending side, as `nc </dev/null` does, still wants its telegrams; but it may have
        closed both sides, and TCP does not tell. So it is sent, once, what every telegram begins with: a client that is
        gone refuses that with a reset, which is reported; one that is there notices nothing.
        """
        try:
            self._connection.discard_received()
            has_stopped_sending = self._connection.has_stopped_sending()
            if has_stopped_sending and not self._was_probed:
                self._begun = self._connection.send_at_once(BEGINNING_OF_TELEGRAMS)
                self._was_probed = True
        except OSError:
            return False
        if not self._connection.is_connected():
            return False
        self.server.departures.watch(
            self.request, look_again, has_stopped_sending=has_stopped_sending
        )
        return True
