"""Telegrams over plain TCP, for programs that read P1 telegrams themselves.

A client gets every telegram from its connection on, byte for byte as it came (the plain text of an encrypted one). It
is a waiter of the Meter like any request, so one cable serves any number of such programs beside the JSON. What a
client sends is discarded. A client that does not take its telegrams skips to the newest. While the meter is lost the
connection stays open and silent, because these programs have their own timeouts.

The protocol has neither requests nor credentials. This module does not know HTTP, nor how a telegram is read.
"""

import logging
import socket
import threading
import time
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

from dsmr_rest.api.places import TELEGRAM_CLIENTS, Places
from dsmr_rest.faults import Fault, MeterError, NotWantedError
from dsmr_rest.http.connection import connection_of
from dsmr_rest.http.listener import Listener
from dsmr_rest.meter.meter import Meter
from dsmr_rest.reading.document import Reading

log = logging.getLogger(__name__)


SEND_TIME = 10.0
"""Seconds after which a client that does not take its telegram is disconnected."""
RETRY_PAUSE = 1.0
"""Seconds between attempts to open a lost port, and that the port is kept open for the next telegram."""
DISCARD_SIZE = 65_536
"""Bytes that are discarded at a time of what a client sends."""
PROBE_AFTER, PROBE_PAUSE, PROBES = 60, 15, 3
"""Seconds of silence before the first keep-alive probe, seconds between probes, and how many may stay unanswered: so a
peer that vanished frees its place within two minutes."""
UNACKNOWLEDGED_TIME = 100
"""Seconds that sent bytes may stay unacknowledged (RFC 5482): while there are some, no probes are sent."""


class TelegramServer(Listener, ThreadingTCPServer):
    """Sends telegrams to every client that connects to [server] telegram_port. `places` is shared with the streams."""

    def __init__(self, host: str, port: int, meter: Meter, places: Places) -> None:
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
    """Handles one client, until it disconnects or the meter is stopped."""

    server: TelegramServer
    request: socket.socket

    def setup(self) -> None:
        self._connection = connection_of(self.request)

    def handle(self) -> None:
        is_admitted = self.server.places.take(TELEGRAM_CLIENTS)
        self.server.note_admission(is_full=not is_admitted)
        if not is_admitted:
            return
        try:
            # OSError: the client has disconnected or does not take its telegrams, which needs no log line.
            with suppress(OSError, NotWantedError):
                self._set_keep_alive()
                self._send_telegrams()
        finally:
            self.server.places.leave(TELEGRAM_CLIENTS)

    def _send_telegrams(self) -> None:
        latest: Reading | None = None
        while True:
            try:
                latest = self._next_reading(latest)
            except MeterError as error:
                if error.fault is Fault.STOPPING:
                    return
                time.sleep(RETRY_PAUSE)
                continue
            self._connection.send(latest.telegram, SEND_TIME)

    def _next_reading(self, latest: Reading | None) -> Reading:
        meter = self.server.meter
        return meter.read(
            max_age=0, after=latest, keep_open=self.server.keep_open, is_wanted=self._is_connected
        )

    def _is_connected(self) -> bool:
        """Discards what the client has sent. Does not wait."""
        try:
            received = self.request.recv(DISCARD_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(received)

    def _set_keep_alive(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_PAUSE)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        self.request.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_TIME * 1000
        )
