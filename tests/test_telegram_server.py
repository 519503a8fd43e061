"""Telegrams over plain TCP, from outside: real servers, meters and sockets."""

import ctypes
import http.client
import itertools
import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dsmr_rest.api.places import FollowerPlaces
from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import Fault, IsWanted, MeterError
from dsmr_rest.meter.meter import Meter
from dsmr_rest.p1.reader import P1Reader
from dsmr_rest.reading.document import Reading
from dsmr_rest.telegram_server import RETRY_PAUSE, TelegramServer
from tests.conftest import (
    MISSING_PORT,
    Server,
    StartServer,
    free_port,
    is_free,
    new_meter,
    receive_all,
    wait_for,
)
from tests.faulty_meter import PATIENCE, FaultyMeter
from tests.telegrams import KEY, PUBLIC_KEY, cipher_frame, numbered, of_version, read

INTERVAL = 0.2
"""Seconds between the telegrams of a meter that is not asked for each."""
SEND_TIME = 10.0
"""Seconds after which a client that does not take its telegram is disconnected."""
SECONDS_BETWEEN_CHANGES = 30.0
"""In which Home Assistant's DSMR integration takes over at most one change; a new connection is one."""
SECONDS_TO_STOP = 20.0
"""Ten times what is promised, because a busy machine does not keep that, but less than the meter's timeout."""
REFUSED = 'clients of telegram_port are refused'
LONGER_THAN_ANY = 10_000
"""Bytes, more than those of any telegram here."""
END = re.compile(rb'!(?:[0-9A-F]{4})?\r\n')


class Recorded:
    """A source of telegrams that keeps those it has made."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self.make = make
        self.telegrams: list[bytes] = []

    def __call__(self) -> bytes:
        self.telegrams.append(self.make())
        return self.telegrams[-1]


class Client:
    """A program at a telegram port. A small one has little room for what it does not take, and so has the server."""

    def __init__(self, port: int, *, is_small: bool = False) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if is_small:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 128)
        self.socket.connect(('127.0.0.1', port))
        self._received = b''

    def __enter__(self) -> 'Client':  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def telegram(self) -> bytes:
        """The next telegram, with all that came before its end."""
        while not END.search(self._received):
            assert len(self._received) < LONGER_THAN_ANY, 'a telegram does not end'
            self._receive()
        telegram, self._received = self._split()
        return telegram

    def telegrams(self, count: int) -> list[bytes]:
        return [self.telegram() for _ in range(count)]

    def rest(self) -> bytes:
        """What has come after the end of the last whole telegram."""
        while select.select([self.socket], [], [], 0)[0]:
            self._receive()
        while END.search(self._received):
            _, self._received = self._split()
        return self._received

    def until_disconnected(self) -> bytes:
        """All that comes until the server closes the connection."""
        while chunk := self.socket.recv(65536):
            self._received += chunk
        return self._received

    def _receive(self) -> None:
        chunk = self.socket.recv(65536)
        assert chunk, 'disconnected'
        self._received += chunk

    def _split(self) -> tuple[bytes, bytes]:
        end = END.search(self._received)
        assert end
        return self._received[: end.end()], self._received[end.end() :]


StartTelegrams = Callable[..., Server]


@pytest.fixture
def start(start_server: StartServer) -> StartTelegrams:
    """Starts servers that have a telegram port, which Server.telegram_port names."""

    def start_telegrams(
        port: str, /, *, meter: dict[str, Any] | None = None, **settings: Any
    ) -> Server:
        return start_server(port, meter=meter, server={'telegram_port': free_port()} | settings)

    return start_telegrams


def clients_of(server: Server) -> int:
    return int(server.health['telegramClients'])


def quiet_line(meter: FaultyMeter, recorded: Recorded, *clients: Client) -> None:
    """Silences a meter that these clients have heard; returns when they have had its last telegram.

    After this each telegram that the meter is asked for can be waited for, so that no client skips one.
    """
    newest = {client: client.telegram() for client in clients}
    meter.hush()
    for client in clients:
        while newest[client] != recorded.telegrams[-1]:
            newest[client] = client.telegram()


def check_it_gets_each(
    client: Client, meter: FaultyMeter, recorded: Recorded, count: int = 3
) -> None:
    """Fails unless the client gets so many telegrams, each once, as the meter is asked for one after the other.

    A server that is slow skips telegrams, so the next one is not sent before the client has the last.
    """
    quiet_line(meter, recorded, client)
    for _ in range(count):
        meter.send()
        assert client.telegram() == recorded.telegrams[-1]
    meter.silent = False


@contextmanager
def stream_of(server: Server) -> Iterator[http.client.HTTPResponse]:
    """An open /stream, or the refusal of one."""
    connection = http.client.HTTPConnection('127.0.0.1', server.port, timeout=PATIENCE)
    connection.request('GET', '/stream')
    response = connection.getresponse()
    try:
        yield response
    finally:
        response.close()
        connection.close()


def of_dsmr_2_2() -> Callable[[], bytes]:
    numbers = itertools.count(1000)
    return lambda: of_version('2.2').replace(b'DEMO0022', b'DEMO%04d' % next(numbers))


@pytest.mark.parametrize('kind', ['DSMR 5', 'DSMR 2.2', 'encrypted'])
def test_clients_get_every_telegram_from_their_connection_on(
    start: StartTelegrams, kind: str
) -> None:
    """Each client gets each telegram whole and byte for byte as it came, or the plain text of an encrypted one."""
    recorded = Recorded(numbered())
    settings = {}
    source: Callable[[], bytes] = recorded
    if kind == 'DSMR 2.2':
        recorded.make = of_dsmr_2_2()
    if kind == 'encrypted':
        counter = itertools.count(1)
        settings = {'decryption_key': KEY.hex(), 'authentication_key': PUBLIC_KEY.hex()}
        source = lambda: cipher_frame(recorded(), counter=next(counter))  # noqa: E731
    with new_meter(interval=INTERVAL, source=source) as meter, ExitStack() as stack:
        server = start(meter.port, meter={'line': '115200 8N1'} | settings)
        early = stack.enter_context(Client(server.telegram_port))
        quiet_line(meter, recorded, early)
        late = [stack.enter_context(Client(server.telegram_port)) for _ in range(3)]
        wait_for(lambda: server.waiters == 1 + len(late))
        for _ in range(4):
            meter.send()
            for client in (early, *late):
                assert client.telegram() == recorded.telegrams[-1]


def test_a_telegram_with_a_wrong_checksum_is_not_sent(start: StartTelegrams) -> None:
    """Clients get the telegrams between damaged ones, and nothing of those."""
    recorded = Recorded(numbered())
    with new_meter(interval=INTERVAL, source=recorded) as meter:
        server = start(meter.port, meter={'line': '115200 8N1'})
        with Client(server.telegram_port) as client:
            quiet_line(meter, recorded, client)
            for _ in range(3):
                meter.corrupt_every = 1
                meter.send()
                meter.corrupt_every = 0
                meter.send()
                assert client.telegram() == recorded.telegrams[-1]
            assert server.health['counters']['checksumFailures'] == 3


@pytest.mark.parametrize('is_silent', [False, True], ids=['talking', 'silent'])
def test_the_port_is_open_while_there_are_clients(
    start: StartTelegrams, meter: FaultyMeter, *, is_silent: bool
) -> None:
    """The first client opens the serial port, which is closed soon after the last one, even if the meter is silent."""
    server = start(meter.port)
    assert is_free(meter.port)
    with Client(server.telegram_port) as last:
        last.telegram()
        with Client(server.telegram_port) as first:
            first.telegram()
            if is_silent:
                meter.hush()
        wait_for(lambda: clients_of(server) == 1)
        assert not is_free(meter.port)
    wait_for(lambda: clients_of(server) == 0)
    wait_for(lambda: is_free(meter.port))
    assert server.openings == 1


def test_what_a_client_sends_is_discarded(start: StartTelegrams) -> None:
    """A client may send hundreds of kilobytes: it gets its telegrams, and so do the others."""
    recorded = Recorded(numbered())
    with new_meter(interval=INTERVAL, source=recorded) as meter:
        server = start(meter.port)
        with Client(server.telegram_port) as talker, Client(server.telegram_port) as other:
            other.telegrams(1)
            # The rest has to be received.
            talker.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            sending = threading.Thread(
                target=talker.socket.sendall, args=(b'/ISK5\r\n\r\n!0000\r\n' * 40_000,)
            )
            sending.start()
            talker.telegrams(2)
            wait_for(lambda: not sending.is_alive())
            sending.join()
            quiet_line(meter, recorded, talker, other)
            for _ in range(3):
                meter.send()
                for client in (talker, other):
                    assert client.telegram() == recorded.telegrams[-1]


def test_a_client_that_stops_sending_gets_its_telegrams(start: StartTelegrams) -> None:
    """A client that closes only its sending side, as `nc HOST PORT </dev/null` does, gets every byte, and no others."""
    recorded = Recorded(numbered())
    with new_meter(interval=INTERVAL, source=recorded) as meter:
        server = start(meter.port)
        with Client(server.telegram_port) as client:
            client.socket.shutdown(socket.SHUT_WR)
            check_it_gets_each(client, meter, recorded, 4)
            client.rest()
            assert clients_of(server) == 1
        wait_for(lambda: clients_of(server) == 0, SEND_TIME)


class AskingMeter(Meter):
    """A meter that asks again and again whether its client is there; it sends two telegrams, and stops."""

    def __init__(self) -> None:
        super().__init__(P1Reader(MeterSettings(port=MISSING_PORT)))
        self.go_on = threading.Event()
        self._readings = iter([read(of_version('5.0')), read(of_version('4.2'))])

    def read(self, *_: Any, is_wanted: IsWanted | None = None, **__: Any) -> Reading:
        assert is_wanted is not None
        while not self.go_on.wait(0.01):
            assert is_wanted(lambda: None)
        for _number in range(3):
            assert is_wanted(lambda: None)
        reading = next(self._readings, None)
        if reading is None:
            raise MeterError(Fault.STOPPING, 'no more telegrams')
        return reading


def test_a_client_that_stops_sending_is_sent_the_beginning_of_a_telegram_once() -> None:
    """However often it is asked whether it is there, the telegrams that it gets are whole."""
    meter = AskingMeter()
    server = TelegramServer('127.0.0.1', 0, meter, FollowerPlaces(1))
    server.start()
    try:
        with socket.create_connection(('127.0.0.1', server.port), PATIENCE) as client:
            client.shutdown(socket.SHUT_WR)
            received = client.recv(1)
            meter.go_on.set()
            received += receive_all(client)
    finally:
        meter.go_on.set()
        server.stop_accepting()
    assert received == of_version('5.0') + of_version('4.2')


def test_a_reading_from_memory_is_not_sent_again(start: StartTelegrams) -> None:
    """With [meter] max_age set, which lets requests have a reading twice, a client gets each telegram once."""
    recorded = Recorded(numbered())
    with new_meter(interval=INTERVAL, source=recorded) as meter:
        server = start(meter.port, meter={'max_age': 3600})
        with Client(server.telegram_port) as client:
            check_it_gets_each(client, meter, recorded, 4)


@pytest.mark.parametrize(('setting', 'seconds'), [(0, 1), (30, 30)])
def test_the_port_is_kept_open_as_the_setting_says(setting: float, seconds: float) -> None:
    """For the next telegram the port is kept open for a second, or for [meter] keep_open if that is more."""
    meter = Meter(P1Reader(MeterSettings(port=MISSING_PORT, keep_open=setting)))
    server = TelegramServer('127.0.0.1', 0, meter, FollowerPlaces(1))
    server.stop_accepting()
    assert server.keep_open == seconds


def test_a_lost_port_is_not_tried_without_a_pause() -> None:
    """While a client waits for a port that is lost, it is tried once a second."""
    meter = Meter(P1Reader(MeterSettings(port=MISSING_PORT)))
    server = TelegramServer('127.0.0.1', 0, meter, FollowerPlaces(1))
    server.start()
    began = time.monotonic()
    try:
        with socket.create_connection(('127.0.0.1', server.port)):
            wait_for(lambda: meter.errors.counts().get('port_missing', 0) >= 3)
            assert time.monotonic() - began >= 2 * RETRY_PAUSE
    finally:
        server.stop_accepting()
        meter.stop()


def test_clients_and_streams_share_their_places(start: StartTelegrams, meter: FaultyMeter) -> None:
    """One too many is disconnected at once without a byte, with one log line until somebody is admitted again."""
    server = start(meter.port, max_streams=2)

    def refuse(count: int) -> None:
        for _ in range(count):
            with Client(server.telegram_port) as refused:
                assert refused.socket.recv(1) == b''
        with stream_of(server) as response:
            assert response.status == 503

    with stream_of(server) as stream, Client(server.telegram_port) as client:
        client.telegram()
        assert stream.status == 200
        refuse(5)
        wait_for(lambda: server.log.count(REFUSED) == 1)
        client.telegram()
        client.socket.close()
        wait_for(lambda: clients_of(server) == 0)
        with Client(server.telegram_port) as admitted:
            admitted.telegram()
            refuse(5)
        wait_for(lambda: clients_of(server) == 0)
        with stream_of(server) as second:
            assert second.status == 200
    wait_for(lambda: server.log.count(REFUSED) == 2)


def test_a_lost_port_closes_the_connections(start: StartTelegrams) -> None:
    """When the meter is unplugged its clients are disconnected; who connects again gets telegrams once it is back.

    Until then whoever connects is disconnected too, but not before that would be noticed as a change.
    """
    recorded = Recorded(numbered())
    with new_meter(interval=INTERVAL, source=recorded) as meter:
        server = start(meter.port)
        with Client(server.telegram_port) as client, Client(server.telegram_port) as other:
            client.telegram()
            other.telegram()
            meter.unplug()
            for each in client, other:
                assert not END.search(each.until_disconnected()[-3:])
        wait_for(lambda: clients_of(server) == 0)
        connected = time.monotonic()
        with Client(server.telegram_port) as early:
            assert early.until_disconnected() == b''
        assert time.monotonic() - connected > SECONDS_BETWEEN_CHANGES
        meter.plug_in()
        plugged_in = len(recorded.telegrams)
        with Client(server.telegram_port) as late:
            assert recorded.telegrams.index(late.telegram()) >= plugged_in - 1
            check_it_gets_each(late, meter, recorded)
        wait_for(lambda: server.log.count('\n') == 2)  # lost and back


def test_the_connection_outlives_a_silent_meter(start: StartTelegrams) -> None:
    """While the meter is silent for longer than the timeout its clients stay connected, and then get its telegrams."""
    recorded = Recorded(numbered())
    with new_meter(interval=INTERVAL, source=recorded) as meter:
        server = start(meter.port, meter={'timeout': 1})
        with Client(server.telegram_port) as client:
            client.telegram()
            meter.hush()
            wait_for(lambda: 'meter_silent' in server.health['counters']['errorsByCode'])
            assert clients_of(server) == 1
            sent_before = len(recorded.telegrams)
            assert client.rest() == b''
            meter.silent = False
            assert client.telegram() in recorded.telegrams[sent_before:]


def test_a_client_that_does_not_take_its_telegrams(start: StartTelegrams) -> None:
    """A slow one skips to the newest, one that takes nothing is disconnected after 10 s, and nobody else is delayed."""
    recorded = Recorded(numbered(f'0-0:96.13.1({"30" * 800})'))
    with new_meter(interval=INTERVAL, source=recorded) as meter, ExitStack() as stack:
        server = start(meter.port)
        other = stack.enter_context(Client(server.telegram_port))
        quiet_line(meter, recorded, other)
        slow, stuck = (
            stack.enter_context(Client(server.telegram_port, is_small=True)) for _ in range(2)
        )
        connected = time.monotonic()

        def send_to_the_other() -> None:
            meter.send()
            assert other.telegram() == recorded.telegrams[-1]

        for _ in range(24):
            send_to_the_other()
        places = [0]
        while places[-1] < len(recorded.telegrams) - 1:
            places.append(recorded.telegrams.index(slow.telegram()))
        steps = [after - before for before, after in itertools.pairwise(places[1:])]
        assert min(steps) > 0 and max(steps) > 3
        slow.socket.close()
        while clients_of(server) > 1:
            send_to_the_other()
            assert time.monotonic() < connected + PATIENCE
        assert time.monotonic() > connected + SEND_TIME
        assert stuck.until_disconnected()


def test_health_and_metrics_count_the_clients(start: StartTelegrams, meter: FaultyMeter) -> None:
    """/health and /metrics say how many clients are connected to the telegram port; streams are not among them."""
    server = start(meter.port)

    def count() -> int:
        (sample,) = re.findall(
            rb'^dsmr_telegram_clients (\d+)\.0$', server.get('/metrics').body, re.MULTILINE
        )
        assert int(sample) == clients_of(server)
        return int(sample)

    assert count() == 0
    with stream_of(server), Client(server.telegram_port) as first:
        first.telegram()
        assert count() == 1
        with Client(server.telegram_port) as second:
            second.telegram()
            assert count() == 2
        wait_for(lambda: clients_of(server) == 1)
        assert count() == 1


PIDFD_GETFD = 438
"""The number of the system call: Python has no function for it."""


@contextmanager
def socket_of_server(server: Server, client: Client) -> Iterator[socket.socket]:
    """The server's end of the connection to a client."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(server.process.pid)
    try:
        for entry in Path(f'/proc/{server.process.pid}/fd').iterdir():
            if not str(entry.readlink()).startswith('socket:'):
                continue
            descriptor = libc.syscall(PIDFD_GETFD, process, int(entry.name), 0)
            if descriptor < 0:
                pytest.skip(f'pidfd_getfd: {os.strerror(ctypes.get_errno())}')
            with socket.socket(fileno=descriptor) as found, suppress(OSError):
                if found.getpeername()[1] == client.socket.getsockname()[1]:
                    yield found
                    return
    finally:
        os.close(process)
    pytest.fail('the server has no such connection')


def test_a_client_that_vanished_is_disconnected_within_two_minutes(
    start: StartTelegrams, meter: FaultyMeter
) -> None:
    """The connection has keep-alive probes, and a limit for bytes that are not acknowledged, of at most two minutes."""
    server = start(meter.port)
    with Client(server.telegram_port) as client:
        client.telegram()
        with socket_of_server(server, client) as connection:

            def option(name: str) -> int:
                return connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            probing = option('TCP_KEEPINTVL') * option('TCP_KEEPCNT')
            assert 0 < option('TCP_KEEPIDLE') + probing <= 120
            assert 0 < option('TCP_USER_TIMEOUT') <= 120_000


def test_a_server_reads_another_one(start: StartTelegrams) -> None:
    """A server at the telegram port of another one has the same telegrams, and each survives the other's restart."""
    recorded = Recorded(numbered())
    with new_meter(interval=INTERVAL, source=recorded) as meter:
        first = start(meter.port)
        second = start(f'socket://127.0.0.1:{first.telegram_port}')
        with Client(second.telegram_port) as client:
            check_it_gets_each(client, meter, recorded)
            assert first.stop() == 0
            client.until_disconnected()
        first = start(meter.port, telegram_port=first.telegram_port)
        with Client(second.telegram_port) as client:
            check_it_gets_each(client, meter, recorded)
        with Client(first.telegram_port) as client:
            client.telegram()
            assert second.stop() == 0
            second = start(f'socket://127.0.0.1:{first.telegram_port}')
            assert second.get('/telegram').body in recorded.telegrams
            client.rest()
            check_it_gets_each(client, meter, recorded)


@pytest.mark.parametrize('is_silent', [False, True], ids=['talking', 'silent'])
def test_the_server_stops_while_clients_are_connected(
    start: StartTelegrams, meter: FaultyMeter, *, is_silent: bool
) -> None:
    """It ends soon, with status 0 and nothing in its log, and clients are disconnected after a whole telegram."""
    server = start(meter.port)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server.telegram_port)) for _ in range(5)]
        for client in clients:
            client.telegram()
        if is_silent:
            meter.hush()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() < began + SECONDS_TO_STOP
        assert not server.log
        for client in clients:
            assert END.split(client.until_disconnected())[-1] == b''
