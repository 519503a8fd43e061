"""The announcement on the network, as a browser of services sees it on loopback."""

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import ifaddr
import pytest
from zeroconf import (
    NotRunningException,
    ServiceBrowser,
    ServiceInfo,
    ServiceListener,
    Zeroconf,
)

from dsmr_rest import discovery
from dsmr_rest.api import homewizard
from dsmr_rest.config import ServerSettings
from dsmr_rest.discovery import HOMEWIZARD_SERVICE, WEB_SERVICE, Announcement
from tests.conftest import ROOT, wait_for
from tests.system_packages import program
from tests.telegrams import of_version, read

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


def announced(port: int, *, homewizard_api: bool = False) -> Announcement:
    """A server's announcement on loopback, which has been started."""
    announcement = Announcement(
        ServerSettings(homewizard_api=homewizard_api), port, addresses=LOOPBACK
    )
    announcement.start(READING)
    return announcement


def found(seen: Seen, announcement: Announcement) -> ServiceInfo:
    info: ServiceInfo = wait_for(lambda: seen.services.get(announcement.name))
    return info


def test_the_device_is_found_as_its_clients_look_for_it(seen: Seen) -> None:
    """Type, instance, host, port, address and the five TXT keys are those of the API's description of discovery."""
    serial = homewizard.device(READING)['serial']
    with closing(announced(80, homewizard_api=True)) as announcement:
        info = found(seen, announcement)
        assert info.name == f'p1meter-{serial[-6:]}._hwenergy._tcp.local.'
        assert info.server == f'p1meter-{serial[-6:]}.local.'
        assert (info.port, info.parsed_addresses()) == (80, LOOPBACK)
        assert info.decoded_properties == {
            'api_enabled': '1',
            'path': '/api/v1',
            'serial': serial,
            'product_name': 'P1 Meter',
            'product_type': 'HWE-P1',
        }


def test_a_server_without_that_api_is_found_as_a_web_page(seen: Seen) -> None:
    """The service is _http._tcp, named after this product and this computer, at path /."""
    with closing(announced(8080)) as announcement:
        info = found(seen, announcement)
        host = socket.gethostname().partition('.')[0]
        assert info.name == f'Smart meter at {host} (dsmr-rest-server)._http._tcp.local.'
        assert info.server == f'dsmr-rest-server-{host}.local.'
        assert (info.port, info.decoded_properties) == (8080, {'path': '/'})


def test_a_meter_on_another_port_is_found_as_a_web_page(
    seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """With the API on another port than 80 a server is announced as a web page, and one log line says why."""
    with closing(announced(8080, homewizard_api=True)) as announcement:
        info = found(seen, announcement)
        assert info.name.endswith(WEB_SERVICE)
        assert info.port == 8080
    (said,) = [record.message for record in caplog.records]
    assert 'port 80, not 8080; add it to programs by address:port' in said


def test_a_second_server_on_the_computer_gets_another_name(seen: Seen) -> None:
    """Two servers without the API are both found, by different names and ports."""
    with closing(announced(8080)) as first:
        found(seen, first)
        with closing(announced(8081)) as second:
            wait_for(lambda: {info.port for info in seen.services.values()} >= {8080, 8081})
            assert first.name != second.name


def test_a_meter_is_not_announced_twice(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """The second server of one meter logs one line, that the name is taken."""
    with closing(announced(80, homewizard_api=True)) as first:
        found(seen, first)
        with closing(announced(80, homewizard_api=True)):
            wait_for(lambda: caplog.records)
    (message,) = [record.message for record in caplog.records]
    assert first.name in message
    assert 'does it read the same meter?' in message


@pytest.mark.parametrize('homewizard_api', [True, False])
def test_closing_says_goodbye_and_is_quick(seen: Seen, *, homewizard_api: bool) -> None:
    """A closed announcement is withdrawn, not left to expire; a fixture checks that no thread or socket is left."""
    announcement = announced(80, homewizard_api=homewizard_api)
    found(seen, announcement)
    name = announcement.name
    began = time.monotonic()
    announcement.close()
    assert time.monotonic() - began < 1
    wait_for(lambda: name in seen.gone)


def test_closing_at_once_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """An announcement that is closed while it is being made leaves nothing, not even a log line."""
    announced(80, homewizard_api=True).close()
    assert not caplog.records


def test_an_announcement_that_cannot_be_withdrawn_is_one_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure at the end costs the withdrawal and one log line, not the end itself."""
    close = Zeroconf.close

    def close_and_fail(zeroconf: Zeroconf) -> None:
        close(zeroconf)
        raise OSError('the network is gone')

    monkeypatch.setattr(Zeroconf, 'close', close_and_fail)
    announced(8080).close()
    (record,) = caplog.records
    assert record.message == 'the announcement was not withdrawn: the network is gone'


def test_closing_what_was_never_started_does_nothing() -> None:
    """An announcement that was not started has no name and can be closed."""
    announcement = Announcement(ServerSettings(), 8080, addresses=LOOPBACK)
    announcement.close()
    assert announcement.name == ''


def test_a_meter_is_not_announced_without_a_reading() -> None:
    """Nothing is announced when a reading is needed and there is none."""
    announcement = Announcement(ServerSettings(homewizard_api=True), 80, addresses=LOOPBACK)
    announcement.start(None)
    assert announcement.name == ''


@pytest.mark.parametrize(
    ('settings', 'addresses'),
    [({'host': '192.0.2.1'}, ()), ({}, ['::1']), ({}, ['localhost'])],
    ids=str,
)
def test_an_impossible_address_costs_the_announcement_only(
    settings: dict[str, Any], addresses: Sequence[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An address that this computer does not have, or that is not IPv4, is one log line and no failure."""
    announcement = Announcement(ServerSettings(**settings), 80, addresses=addresses)
    announcement.start(None)
    announcement.close()
    assert announcement.name == ''
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(('homewizard_api', 'level'), [(True, 'WARNING'), (False, 'INFO')])
def test_without_the_library_there_is_one_log_line(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    homewizard_api: bool,
    level: str,
) -> None:
    """The library is optional: its absence is a warning when the API is switched on, otherwise only information."""
    monkeypatch.setitem(sys.modules, 'zeroconf', None)
    caplog.set_level(logging.INFO)
    announced(80, homewizard_api=homewizard_api).close()
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            level,
            'not announced on the network: the package zeroconf is not installed (pip install zeroconf)',
        )
    ]


def test_a_server_on_every_address_is_announced_on_the_network(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a host it is announced on the computer's own addresses; closed at once, so that no packet is sent."""
    if all(
        ip.ip == '127.0.0.1'
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if ip.is_IPv4
    ):
        pytest.skip('this computer has no network')
    with closing(Announcement(ServerSettings(), 8080)) as announcement:
        announcement.start(None)
        assert announcement.name
    assert not caplog.records


def test_a_computer_without_a_network_is_one_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With loopback as the only interface nothing is announced."""
    loopback = ifaddr.Adapter(
        'lo', 'lo', [ifaddr.IP('127.0.0.1', 8, 'lo'), ifaddr.IP(('::1', 0, 0), 128, 'lo')]
    )
    monkeypatch.setattr(ifaddr, 'get_adapters', lambda: [loopback])
    with closing(Announcement(ServerSettings(), 8080)) as announcement:
        announcement.start(None)
    assert [record.message for record in caplog.records] == [
        'not announced on the network: there is no network'
    ]


NO_NETWORK = 'there is no network, on purpose'


class Network:
    """The addresses of a computer, and what happens while they are looked up."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.on_request: Callable[[], None] = lambda: None

    def announced_addresses(self, _: Sequence[str]) -> list[str]:
        self.on_request()
        if not self.addresses:
            raise ValueError(NO_NETWORK)
        return self.addresses


class Changes:
    """Stands for the watch of this computer's addresses: a change is a call of `on_change`."""

    on_change: Callable[[], None]

    def __init__(self, on_change: Callable[[], None]) -> None:
        Changes.on_change = on_change

    def start(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """The addresses of this computer, which the test may change; at first there are none."""
    made = Network()
    monkeypatch.setattr(discovery, 'AddressWatch', Changes)
    monkeypatch.setattr(discovery, '_announced_addresses', made.announced_addresses)
    return made


def test_an_unchanged_failure_is_one_log_line(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """However often the addresses change, that there is still no network is said once."""
    with closing(Announcement(ServerSettings(), 8080)) as announcement:
        announcement.start(None)
        Changes.on_change()
    assert caplog.messages == [f'not announced on the network: {NO_NETWORK}']
    assert network.addresses == []


def test_unchanged_addresses_are_not_announced_again(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change after which the addresses are the same as before withdraws nothing."""
    network.addresses = LOOPBACK
    with closing(Announcement(ServerSettings(), 8080)) as announcement:
        announcement.start(None)
        with monkeypatch.context() as watched:
            closed: list[Zeroconf] = []
            watched.setattr(Zeroconf, 'close', closed.append)
            Changes.on_change()
        assert closed == []
        assert announcement.addresses == LOOPBACK


def test_an_announcement_that_comes_too_late_is_withdrawn(network: Network) -> None:
    """A server that ends while its addresses are looked up leaves no announcement, thread or socket."""
    network.addresses = LOOPBACK
    announcement = Announcement(ServerSettings(), 8080)
    network.on_request = announcement.close
    announcement.start(None)
    assert announcement.name == ''


def test_addresses_that_cannot_be_followed_cost_no_announcement(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a system that does not report changes, the server is announced on the addresses that it has at the start."""
    monkeypatch.delattr(socket, 'AF_NETLINK')
    monkeypatch.setattr(discovery, '_announced_addresses', lambda _: LOOPBACK)
    caplog.set_level(logging.INFO)
    with closing(Announcement(ServerSettings(), 8080)) as announcement:
        announcement.start(None)
        assert announcement.addresses == LOOPBACK
    (said,) = caplog.messages
    assert said == 'changes of the addresses are not followed: this system has no netlink'


def test_an_error_of_the_network_is_one_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An announcement that cannot even begin costs one log line."""

    def fail(*_: object, **__: object) -> None:
        raise OSError('on purpose')

    monkeypatch.setattr(Zeroconf, '__init__', fail)
    announced(8080).close()
    assert caplog.messages == ['not announced on the network: on purpose']


def test_an_error_of_the_library_is_one_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An announcement that fails after it has begun is named by the error in the log."""

    def fail(*_: object, **__: object) -> None:
        raise NotRunningException('on purpose')

    monkeypatch.setattr(Zeroconf, 'async_register_service', fail)
    with closing(announced(8080)):
        wait_for(lambda: caplog.messages)
    assert caplog.messages == ['not announced on the network: NotRunningException: on purpose']


def test_the_library_is_imported_only_for_an_announcement() -> None:
    """A server that is not announced imports neither zeroconf nor asyncio: together they take 6 MB."""
    program = 'import sys, dsmr_rest.discovery; print({"zeroconf", "ifaddr", "asyncio"} & set(sys.modules))'
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == 'set()\n'


@pytest.mark.parametrize(
    ('settings', 'is_wanted', 'describes_meter_at_80'),
    [
        ({}, True, False),
        ({'host': '0.0.0.0'}, True, False),  # noqa: S104 nothing listens there
        ({'host': '192.0.2.1'}, True, False),
        ({'homewizard_api': True}, True, True),
        ({'host': '192.0.2.1', 'homewizard_api': True}, True, True),
        ({'homewizard_api': True, 'user': 'a', 'password': 'b'}, True, False),
        ({'homewizard_api': True, 'certificate': 'c', 'private_key': 'k'}, True, False),
        ({'host': '127.0.0.1'}, False, False),
        ({'host': '::1', 'homewizard_api': True}, False, False),
        ({'host': 'meter.example'}, False, False),
    ],
    ids=str,
)
@pytest.mark.parametrize('port', [80, 8080])
def test_what_is_announced(
    port: int, settings: dict[str, Any], *, is_wanted: bool, describes_meter_at_80: bool
) -> None:
    """A server that others can reach is announced; as a meter when clients of the API can find and use it."""
    describes_meter = describes_meter_at_80 and port == 80
    announcement = Announcement(ServerSettings(**settings), port, addresses=LOOPBACK)
    assert (announcement.is_wanted, announcement.describes_meter) == (is_wanted, describes_meter)
    with closing(announcement):
        announcement.start(READING)
        is_announced = announcement.name.endswith((HOMEWIZARD_SERVICE, WEB_SERVICE))
        assert is_announced == is_wanted
        assert announcement.name.endswith(HOMEWIZARD_SERVICE) == describes_meter


FOLLOWING = """
import logging, subprocess, sys, time
sys.path.insert(0, {root!r})
logging.basicConfig(format='%(message)s', stream=sys.stdout)
from dsmr_rest.config import ServerSettings
from dsmr_rest.discovery import Announcement

def ip(*words):
    subprocess.run(['ip', *words], check=True)

def wait_for(addresses):
    deadline = time.monotonic() + 60
    while announcement.addresses != addresses:
        assert time.monotonic() < deadline, announcement.addresses
        time.sleep(0.05)

ip('link', 'set', 'lo', 'up')
announcement = Announcement(ServerSettings(), 8080)
announcement.start(None)
assert announcement.addresses == []
ip('link', 'add', 'wire', 'type', 'veth', 'peer', 'name', 'other')
ip('link', 'set', 'other', 'up')
ip('link', 'set', 'wire', 'up', 'multicast', 'on')
ip('address', 'add', '192.0.2.1/24', 'dev', 'wire')
wait_for(['192.0.2.1'])
ip('address', 'add', '192.0.2.2/24', 'dev', 'wire')
ip('address', 'del', '192.0.2.1/24', 'dev', 'wire')
ip('address', 'replace', '192.0.2.2/24', 'dev', 'wire')
wait_for(['192.0.2.2'])
{end}
announcement.close()
"""
"""Runs in a network of its own, which has only loopback at first."""
ENDS = {
    'the interface is there': '',
    'the interface has gone': "ip('link', 'del', 'wire')",
    'the interface went long ago': "ip('link', 'del', 'wire')\nwait_for([])",
}


@pytest.mark.parametrize('end', ENDS)
def test_the_announcement_follows_the_addresses(end: str) -> None:
    """Started without a network the server is announced when there is one, on its address of now; it ends silently."""
    own_network = [program('unshare', 'util-linux'), '--map-root-user', '--net']
    if subprocess.run([*own_network, 'ip', 'link'], capture_output=True, check=False).returncode:
        pytest.skip('this user may not have a network of its own (unshare --map-root-user --net)')
    script = FOLLOWING.format(root=str(ROOT), end=ENDS[end])
    done = subprocess.run(
        [*own_network, sys.executable, '-c', script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, '')
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        'not announced on the network: there is no network',
        'announced on the network now',
    ]
    again = ['not announced on the network: there is no network']
    assert lines[2:] in ([], again)
