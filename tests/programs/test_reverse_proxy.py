"""The server behind real reverse proxies, with the configurations in docs/reverse-proxy.md."""

import json
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from html.parser import HTMLParser
from http.client import HTTPResponse
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin
from urllib.request import urlopen

import pytest

from tests.conftest import Server, StartServer, free_port, wait_for
from tests.faulty_meter import FaultyMeter
from tests.pages import block
from tests.programs.test_integrations import START_TIME, accepts, replaced, running
from tests.system_packages import program

PAGE = 'docs/reverse-proxy.md'
UPSTREAM = '127.0.0.1:8080'


class Proxy(NamedTuple):
    """A running proxy: the URL at which it has the server, and what a client must trust for it."""

    url: str
    trust: ssl.SSLContext

    def get(self, path: str) -> HTTPResponse:
        """The response for a path below that of the proxy."""
        response: HTTPResponse = urlopen(  # noqa: S310 - it is http(s)
            urljoin(self.url, path), timeout=START_TIME, context=self.trust
        )
        return response


@contextmanager
def nginx(server: Server, certificate: Mapping[str, Path], folder: Path) -> Iterator[Proxy]:
    """nginx with the server block of the page, and otherwise its own defaults."""
    port = free_port()
    site = replaced(
        block(PAGE, 'nginx', 'nginx'),
        {
            UPSTREAM: f'127.0.0.1:{server.port}',
            'listen 443': f'listen 127.0.0.1:{port}',
            '/etc/ssl/certs/meter.example.org.pem': certificate['certificate'],
            '/etc/ssl/private/meter.example.org.key': certificate['private_key'],
        },
    )
    places = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    temporary = ' '.join(f'{place}_temp_path {folder / place};' for place in places)
    configuration = folder / 'nginx.conf'
    configuration.write_text(
        f'daemon off; pid {folder / "pid"}; error_log stderr; events {{}}\n'
        f'http {{ access_log off; {temporary}\n{site}}}\n'
    )
    trust = ssl.create_default_context(cafile=certificate['certificate'])
    command = program('nginx', 'nginx')
    with running(command, '-e', 'stderr', '-p', folder, '-c', configuration, folder=folder):
        wait_for(lambda: accepts(port), START_TIME)
        yield Proxy(f'https://127.0.0.1:{port}/meter/', trust)


@contextmanager
def caddy(server: Server, certificate: Mapping[str, Path], folder: Path) -> Iterator[Proxy]:
    """Caddy with the site of the page, but without the certificate that it would fetch."""
    port = free_port()
    site = replaced(
        block(PAGE, 'Caddy', 'caddy'),
        {
            UPSTREAM: f'127.0.0.1:{server.port}',
            'meter.example.org': f'http://127.0.0.1:{port}',
        },
    )
    configuration = folder / 'Caddyfile'
    configuration.write_text(f'{{\n admin off\n}}\n{site}')
    command = program('caddy', 'caddy')
    trust = ssl.create_default_context(cafile=certificate['certificate'])
    with running(command, 'run', '--config', configuration, folder=folder):
        wait_for(lambda: accepts(port), START_TIME)
        yield Proxy(f'http://127.0.0.1:{port}/meter/', trust)


PROXIES = [nginx, caddy]
RunProxy = Callable[[Server, Mapping[str, Path], Path], AbstractContextManager[Proxy]]


class Loads(HTMLParser):
    """The addresses of what a page loads with it."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes a style, a script or an icon."""
        if tag in ('link', 'script'):
            self.addresses += [
                address for name, address in attrs if name in ('href', 'src') and address
            ]


@pytest.mark.parametrize('proxied', PROXIES)
def test_readings_and_the_dashboard_below_a_path(
    proxied: RunProxy,
    start_server: StartServer,
    meter: FaultyMeter,
    certificate: Mapping[str, Path],
    tmp_path: Path,
) -> None:
    """Through a proxy, below a path, come a reading, a part of it, and the dashboard with what it loads."""
    server = start_server(meter.port)
    with proxied(server, certificate, tmp_path) as proxy:
        with proxy.get('') as response:
            assert 'currentElectricityUsage' in json.load(response)
        with proxy.get('currentElectricityUsage/unit') as response:
            assert json.load(response) == 'kW'
        with proxy.get('dashboard') as response:
            page = Loads()
            page.feed(response.read().decode())
            base = response.url
        for address in page.addresses:
            if not address.startswith('data:'):
                assert not address.startswith('/')
                with proxy.get(urljoin(base, address)) as response:
                    assert response.status == 200


@pytest.mark.parametrize('proxied', PROXIES)
def test_an_event_arrives_without_another_one(
    proxied: RunProxy,
    start_server: StartServer,
    meter: FaultyMeter,
    certificate: Mapping[str, Path],
    tmp_path: Path,
) -> None:
    """Through a proxy with its default settings an event arrives, although nothing follows that would fill a buffer."""
    meter.hush()
    server = start_server(meter.port)
    with proxied(server, certificate, tmp_path) as proxy, proxy.get('stream') as stream:
        meter.send()
        lines = [stream.readline() for _ in range(4)]
    assert re.fullmatch(
        rb': readings follow\s+id: \S+\s+data: \{.*currentEl.*', b''.join(lines).strip()
    )
