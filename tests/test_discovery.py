"""The announcement on the network, as a browser of services sees it on loopback."""

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from conftest import ROOT, wait_for
from telegrams import of_version, read
from zeroconf import NonUniqueNameException, ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from dsmr_rest import discovery, homewizard
from dsmr_rest.config import ServerSettings
from dsmr_rest.discovery import HOMEWIZARD_SERVICE, WEB_SERVICE, Announcement, announce

LOOPBACK = ['127.0.0.1']
READING = read(of_version('5.0'))


class Seen(ServiceListener):
    """What is announced, by name, and which names said goodbye."""

    def __init__(self) -> None:
        self.services: dict[str, ServiceInfo] = {}
        self.gone: set[str] = set()

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        info = zc.get_service_info(type_, name)
        assert info
        self.services[name] = info

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None: ...

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:  # noqa: ARG002 the library's signature
        self.gone.add(name)


@pytest.fixture
def seen() -> Iterator[Seen]:
    listener = Seen()
    with closing(Zeroconf(LOOPBACK)) as browsing:
        browser = ServiceBrowser(browsing, [HOMEWIZARD_SERVICE, WEB_SERVICE], listener)
        yield listener
        browser.cancel()


def announced(port: int, *, homewizard_api: bool) -> Announcement:
    announcement = announce(port, READING if homewizard_api else None, LOOPBACK)
    assert announcement
    return announcement


def found(seen: Seen, announcement: Announcement) -> ServiceInfo:
    info: ServiceInfo = wait_for(lambda: seen.services.get(announcement.name))
    return info


def test_the_device_is_found_as_its_clients_look_for_it(seen: Seen) -> None:
    """Type, instance, host, port, address and the five TXT keys are those of the API's description of discovery."""
    serial = homewizard.device(READING)['serial']
    with closing(announced(8123, homewizard_api=True)) as announcement:
        info = found(seen, announcement)
        assert info.name == f'p1meter-{serial[-6:]}._hwenergy._tcp.local.'
        assert info.server == f'p1meter-{serial[-6:]}.local.'
        assert (info.port, info.parsed_addresses()) == (8123, LOOPBACK)
        assert info.decoded_properties == {
            'api_enabled': '1',
            'path': '/api/v1',
            'serial': serial,
            'product_name': 'P1 Meter',
            'product_type': 'HWE-P1',
        }


def test_a_server_without_that_api_is_found_as_a_web_page(seen: Seen) -> None:
    """With no reading given the service is _http._tcp, named after this product and this computer, at path /."""
    with closing(announced(8080, homewizard_api=False)) as announcement:
        info = found(seen, announcement)
        host = socket.gethostname().partition('.')[0]
        assert info.name == f'Smart meter at {host} (dsmr-rest-server)._http._tcp.local.'
        assert info.server == f'dsmr-rest-server-{host}.local.'
        assert (info.port, info.decoded_properties) == (8080, {'path': '/'})


def test_a_second_server_on_the_computer_gets_a_name_of_its_own(seen: Seen) -> None:
    """Two servers without the API are both found, by different names and ports."""
    with closing(announced(8080, homewizard_api=False)) as first:
        found(seen, first)
        with closing(announced(8081, homewizard_api=False)) as second:
            wait_for(lambda: {info.port for info in seen.services.values()} >= {8080, 8081})
            assert first.name != second.name


def test_a_device_that_is_there_already_is_not_announced_again(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """The second server for one meter says in one line of the log that its name is taken."""
    with closing(announced(8080, homewizard_api=True)) as first:
        found(seen, first)
        with closing(announced(8081, homewizard_api=True)):
            wait_for(lambda: caplog.records)
    assert [record.message.count(NonUniqueNameException.__name__) for record in caplog.records] == [1]


@pytest.mark.parametrize('homewizard_api', [True, False])
def test_closing_says_goodbye_and_is_quick(seen: Seen, *, homewizard_api: bool) -> None:
    """A closed announcement is withdrawn, not left to expire; the fixture sees that no thread or socket stays."""
    announcement = announced(8080, homewizard_api=homewizard_api)
    found(seen, announcement)
    began = time.monotonic()
    announcement.close()
    assert time.monotonic() - began < 1
    wait_for(lambda: announcement.name in seen.gone)


def test_closing_at_once_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An announcement that is closed before it was made ends without a word."""
    announced(8080, homewizard_api=True).close()
    assert not caplog.records


@pytest.mark.parametrize('interface', ['192.0.2.1', '::1', 'localhost'])
def test_an_impossible_interface_costs_the_announcement_only(interface: str, caplog: pytest.LogCaptureFixture) -> None:
    """An address that this computer does not have, or that is none, is one line in the log and no failure."""
    announcement = announce(8080, None, [interface])
    if announcement:
        announcement.close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(('reading', 'level'), [('READING', 'WARNING'), ('None', 'INFO')])
def test_without_the_library_there_is_one_line_in_the_log(reading: str, level: str) -> None:
    """The library is optional: its absence is a warning to who switched the API on, and a note to others."""
    program = f"""
import logging, sys
sys.modules['zeroconf'] = None
sys.path.insert(0, {str(ROOT / 'tests')!r})
from dsmr_rest.discovery import announce
from telegrams import of_version, read
READING = read(of_version('5.0'))
logging.basicConfig(level=logging.INFO, format='%(levelname)s %(message)s')
print(announce(8080, {reading}))
"""
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == 'None\n'
    assert done.stderr == f'{level} not announced on the network: the package zeroconf is not installed\n'


@pytest.mark.parametrize(
    ('settings', 'as_web_page', 'as_device'),
    [
        ({}, [(80, None, ())], []),
        ({'host': '192.0.2.1'}, [(80, None, ('192.0.2.1',))], []),
        ({'homewizard_api': True}, [], [(80, READING, ())]),
        ({'homewizard_api': True, 'user': 'a', 'password': 'b'}, [(80, None, ())], []),
        ({'homewizard_api': True, 'certificate': 'c', 'private_key': 'k'}, [(80, None, ())], []),
        ({'host': '127.0.0.1'}, [], []),
        ({'host': '::1', 'homewizard_api': True}, [], []),
        ({'host': 'meter.example'}, [], []),
    ],
)
def test_who_is_announced_and_when(
    settings: dict[str, object],
    as_web_page: list[object],
    as_device: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device is announced from its first reading on, a web page at once, and neither where nobody else can ask."""
    calls: list[object] = []
    monkeypatch.setattr(discovery, 'announce', lambda *arguments: calls.append(arguments))
    announcer = discovery.Announcer()
    announcer.begin(ServerSettings(**settings), 80)  # type: ignore[arg-type]
    assert calls == as_web_page
    assert announcer.needs_reading is bool(as_device)
    announcer.device(READING)
    assert calls == as_web_page + as_device
    announcer.close()
