"""The addresses that a server listens on."""

import http.client
import socket
from contextlib import closing
from urllib.parse import quote

import pytest

from tests.conftest import (
    MISSING_PORT,
    UNKNOWN,
    StartServer,
)


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
