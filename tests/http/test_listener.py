"""A listener: the addresses that it listens on, why it cannot, and that whatever fails costs one client."""

import errno
import http.client
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from socketserver import BaseRequestHandler
from typing import Any
from urllib.parse import quote

import pytest

from dsmr_rest.config import ConfigError
from dsmr_rest.http.listener import Listener, refuse_unusable_address
from tests.conftest import (
    MISSING_PORT,
    UNKNOWN,
    StartServer,
    receive_all,
)

PATIENCE = 60.0
SERVED = b'served'


def status_at(address: str, port: int) -> int:
    """The status with which UNKNOWN is requested from an address."""
    with closing(http.client.HTTPConnection(address, port, timeout=10)) as connection:
        connection.request('GET', quote(UNKNOWN))
        response = connection.getresponse()
        response.read()
        return response.status


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason='this machine has no IPv6')
def test_an_empty_host_is_every_address(start_server: StartServer) -> None:
    """An empty host listens on IPv4 and IPv6; the Host header that a client makes of an address is accepted."""
    server = start_server(MISSING_PORT, server={'host': ''})
    for address in '127.0.0.1', '::1':
        assert status_at(address, server.port) == 404


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason='this machine has no IPv6')
def test_an_ipv6_address_is_the_only_one(start_server: StartServer) -> None:
    """A host that is an IPv6 address is in brackets in the URL, and the server does not listen on IPv4."""
    with socket.socket() as reserved:  # so that no other server has this port on IPv4
        reserved.bind(('127.0.0.1', 0))
        _, port = reserved.getsockname()
        server = start_server(MISSING_PORT, server={'host': '::1', 'port': port})
        assert server.url == f'http://[::1]:{port}/'
        assert status_at('::1', port) == 404
        with pytest.raises(ConnectionRefusedError):
            server.connect()


class Handler(BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(SERVED)


@contextmanager
def listening(kind: type[Listener] = Listener) -> Iterator[Listener]:
    """A listener that serves each client with SERVED."""
    started = kind('127.0.0.1', 0, 'port', Handler)
    started.start()
    try:
        yield started
    finally:
        started.stop_accepting()


def received_from(listener: Listener) -> bytes:
    """Everything that a client gets."""
    with socket.create_connection(('127.0.0.1', listener.port), PATIENCE) as client:
        return receive_all(client)


def test_the_last_descriptors_are_not_for_clients(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client with a reserved file descriptor is disconnected where none can be spared, and the log says so."""
    with listening() as listener:
        assert received_from(listener) == SERVED
        monkeypatch.setattr('dsmr_rest.http.listener.RESERVED_FILES', 10**9)
        assert received_from(listener) == b''
    assert 'no file descriptor is left' in caplog.text


def test_where_the_limit_of_files_is_not_told_all_are_for_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that may not ask for its limits serves its clients all the same."""

    def fail(_: int) -> tuple[int, int]:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(resource, 'getrlimit', fail)
    with listening() as listener:
        assert received_from(listener) == SERVED


class FailsAtFirst(Listener):
    """A listener that has no memory for its first client."""

    failures = 0

    def get_request(self) -> tuple[Any, Any]:
        if FailsAtFirst.failures == 0:
            FailsAtFirst.failures += 1
            raise MemoryError
        return super().get_request()


def test_whatever_fails_in_accepting_is_not_the_end() -> None:
    """After an error that nobody has foreseen, clients are accepted as before."""
    with listening(FailsAtFirst) as listener:
        assert received_from(listener) == SERVED
    assert FailsAtFirst.failures == 1


NO_SCOPE = 'fe80::1'
"""An address that every interface may have, so that it means none of them."""


def test_another_reason_is_the_system_s_own() -> None:
    """An error of binding that has no explanation of its own is shown with the setting."""
    with pytest.raises(ConfigError) as caught:
        Listener(NO_SCOPE, 0, 'port', Handler)
    assert str(caught.value).startswith(f'[server] host = {NO_SCOPE}, port = 0: ')
    assert 'host must be' not in str(caught.value)


def test_without_a_host_the_port_alone_is_named() -> None:
    """An error names the settings that it is about, and host is none of them when it is empty."""
    with socket.create_server(('127.0.0.1', 0)) as other:
        _, port = other.getsockname()
        with pytest.raises(ConfigError) as caught:
            Listener('', port, 'telegram_port', Handler)
    assert str(caught.value).startswith(f'[server] telegram_port = {port}: is in use')


def test_a_number_that_is_taken_for_udp_is_not_taken_for_tcp() -> None:
    """The trial of an address is not disturbed by a program that uses the same number as a UDP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(('127.0.0.1', 0))
        _, port = other.getsockname()
        refuse_unusable_address('127.0.0.1', port, 'port')
