"""The telegram port as the clients of dsmr_parser use it, which Home Assistant and others have."""

import asyncio
import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from dsmr_parser.clients.protocol import create_tcp_dsmr_reader
from dsmr_parser.clients.socket_ import SocketReader
from dsmr_parser.telegram_specifications import V5

from tests.conftest import Server, StartServer, free_port, wait_for
from tests.faulty_meter import FaultyMeter

PAUSE = 0.2
"""Seconds after which the users of the clients connect again."""


class Users:
    """Programs that follow a server with the clients of dsmr_parser, over HTTP too, and connect again when it is lost.

    `readings` counts what each of them has got.
    """

    def __init__(self, server: Server) -> None:
        self.port, self.telegram_port = server.port, server.telegram_port
        self.readings: Counter[str] = Counter()
        self._lock = threading.Lock()  # guards readings
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=('reader 1', self._read)),
            threading.Thread(target=self._run, args=('reader 2', self._read)),
            threading.Thread(target=self._run, args=('stream', self._stream)),
            threading.Thread(target=self._run, args=('poll', self._poll)),
            threading.Thread(target=asyncio.run, args=(self._run_protocols(),)),
        ]
        for thread in self._threads:
            thread.start()

    def await_readings(self) -> None:
        """Waits until each of them has got three more."""
        names = ('reader 1', 'reader 2', 'protocol 1', 'protocol 2', 'stream', 'poll')
        with self._lock:
            before = self.readings.copy()
        wait_for(lambda: all(self.readings[name] >= before[name] + 3 for name in names), 20)

    def end(self) -> None:
        """To be called before the server ends, and with it their connections."""
        self._is_over.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)

    def _count(self, name: str) -> None:
        with self._lock:
            self.readings[name] += 1

    def _run(self, name: str, follow: Callable[[str], None]) -> None:
        while not self._is_over.wait(PAUSE):
            with suppress(OSError, http.client.HTTPException):
                follow(name)

    def _read(self, name: str) -> None:
        for _ in SocketReader('127.0.0.1', self.telegram_port, V5).read():
            self._count(name)

    def _request(self, path: str) -> Iterator[bytes]:
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=20)
        try:
            connection.request('GET', path)
            response = connection.getresponse()
            if response.status == 200:
                yield from response
        finally:
            connection.close()

    def _stream(self, name: str) -> None:
        for line in self._request('/stream'):
            if line.startswith(b'data: {"p1MessageHeader"'):
                self._count(name)

    def _poll(self, name: str) -> None:
        for _ in self._request('/'):
            self._count(name)

    async def _run_protocols(self) -> None:
        await asyncio.gather(self._run_protocol('protocol 1'), self._run_protocol('protocol 2'))

    async def _run_protocol(self, name: str) -> None:
        while not self._is_over.is_set():
            with suppress(OSError):
                _, protocol = await create_tcp_dsmr_reader(
                    '127.0.0.1', self.telegram_port, '5', lambda _: self._count(name)
                )
                await protocol.wait_closed()
            await asyncio.sleep(PAUSE)


def test_the_clients_of_dsmr_parser(start_server: StartServer, meter: FaultyMeter) -> None:
    """Beside a stream and polls they all get readings, also after the meter was unplugged and the server restarted."""
    server = start_server(meter.port, server={'telegram_port': free_port()})
    users = Users(server)
    try:
        users.await_readings()
        assert server.health['telegramClients'] == 4
        assert server.openings == 1
        meter.unplug()
        wait_for(lambda: 'meter lost: port_' in server.log)
        meter.plug_in()
        users.await_readings()
        assert server.health['telegramClients'] == 4
        assert server.stop() == 0
        ports = {'port': server.port, 'telegram_port': server.telegram_port}
        server = start_server(meter.port, server=ports)
        users.await_readings()
    finally:
        users.end()
        server.stop()
        users.join()
    assert not server.log
