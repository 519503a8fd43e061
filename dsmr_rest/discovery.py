"""The announcement of the server on the local network: DNS-SD (RFC 6763) over mDNS (RFC 6762).

The package zeroconf, an optional extra, does the protocol in a thread of its own; it is imported only when something is
announced. This module decides what is announced, on which addresses. It does not know how the meter is read, nor when
the first reading arrives. A failure costs the announcement and one log line, never the server.
"""

import importlib
import ipaddress
import logging
import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from dsmr_rest.api import homewizard
from dsmr_rest.config import HOMEWIZARD_PORT, ServerSettings
from dsmr_rest.process.address_changes import AddressWatch
from dsmr_rest.process.threads import NoThreadError
from dsmr_rest.reading.document import Reading

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from zeroconf import ServiceInfo, Zeroconf

log = logging.getLogger(__name__)

HOMEWIZARD_SERVICE = '_hwenergy._tcp.local.'
WEB_SERVICE = '_http._tcp.local.'
LABEL_LIMIT = 63
"""Bytes in one label of a domain name (RFC 1035 2.3.4)."""

_EVERY_ADDRESS = ('', '0.0.0.0', '::')  # noqa: S104 compared, not listened on # nosec B104


class Announcement:
    """Announces a server as a HomeWizard-compatible device or as a web page, from start() to close().

    `is_wanted` is whether other machines can reach the server, and its address says where. `describes_meter` is whether
    it is announced as a HomeWizard-compatible device, which takes a reading to say which meter it is. It is not on
    another port than 80: a client that already reads it there by address and port would, when it sees the announcement,
    forget the port. `addresses` are the IPv4 addresses to announce it on; by default those that the server listens on.
    """

    def __init__(
        self, settings: ServerSettings, port: int, *, addresses: Sequence[str] = ()
    ) -> None:
        listens_on_every_address = settings.host in _EVERY_ADDRESS
        has_address = listens_on_every_address or _is_ipv4(settings.host)
        self.is_wanted = has_address and not settings.is_local
        is_homewizard = self.is_wanted and settings.is_open_to_homewizard_clients
        self.describes_meter = is_homewizard and port == HOMEWIZARD_PORT
        self._is_on_wrong_port = is_homewizard and port != HOMEWIZARD_PORT
        self._port = port
        self._addresses = tuple(addresses)
        if not addresses and not listens_on_every_address:
            self._addresses = (settings.host,)
        self._follows_addresses = not self._addresses
        self._reading: Reading | None = None
        self._watch = AddressWatch(self._announce)
        # Held by the thread that compares the addresses and announces them.
        self._turn = threading.Lock()
        self._lock = threading.Lock()  # guards all below
        self._present: _Registration | None = None
        self._last_failure = ''  # as logged; empty after a success
        self._is_closed = False

    @property
    def name(self) -> str:
        """The full name of the service, with a number when the name was taken; empty when nothing is announced."""
        with self._lock:
            if self._present is None:
                return ''
            return self._present.service.name

    @property
    def addresses(self) -> list[str]:
        """The addresses that are announced now."""
        with self._lock:
            if self._present is None:
                return []
            return self._present.addresses

    def start(self, reading: Reading | None) -> None:
        """Announces the server, unless that is not wanted or it would describe the meter and there is no reading.

        A server that listens on every address is announced again whenever they change. Does not wait for the network.
        May be called once.
        """
        if not self.is_wanted:
            return
        if self.describes_meter and reading is None:
            return
        try:
            importlib.import_module('zeroconf')  # an optional extra, and slow to import
        except ImportError:
            self._log_missing_package()
            return
        # It logs, with a traceback, each packet that cannot be sent, for example because an interface has gone.
        logging.getLogger('zeroconf').setLevel(logging.CRITICAL)
        self._reading = reading
        if self._follows_addresses:
            try:
                self._watch.start()
            except (OSError, NoThreadError) as error:
                log.info('changes of the addresses are not followed: %s', error)
        self._announce()
        if self._is_on_wrong_port and self.name:
            _warn_about_port(self._port)

    def close(self) -> None:
        """Withdraws the announcement, so that clients forget the server at once; takes under a second."""
        self._watch.close()
        with self._lock:
            self._is_closed = True
        self._withdraw()

    def _announce(self) -> None:
        """Announces the server on the addresses of now. Called by start(), and after each change by a thread."""
        with self._turn:
            self._announce_present_addresses()

    def _announce_present_addresses(self) -> None:
        """Does nothing if the server is announced there already."""
        from zeroconf import Error  # noqa: PLC0415 an optional extra, and slow to import

        try:
            addresses = _announced_addresses(self._addresses)
        except (OSError, ValueError) as error:
            self._withdraw()
            self._note_failure(str(error))
            return
        if addresses == self.addresses:
            return
        self._withdraw()
        try:
            registration = _Registration(
                self._service_at(addresses), addresses, may_rename=not self.describes_meter
            )
        except (OSError, RuntimeError, ValueError, Error) as error:
            self._note_failure(str(error))
            return
        with self._lock:
            is_too_late = self._is_closed
            if not is_too_late:
                self._present = registration
        if is_too_late:
            registration.withdraw()
        self._note_success()

    def _withdraw(self) -> None:
        with self._lock:
            present = self._present
            self._present = None
        if present is not None:
            present.withdraw()

    def _service_at(self, addresses: list[str]) -> 'ServiceInfo':
        if self.describes_meter and self._reading is not None:
            return _meter_service(self._reading, self._port, addresses)
        return _web_service(self._port, addresses)

    def _note_failure(self, reason: str) -> None:
        """Logs a failure, unless it is the same as before."""
        with self._lock:
            is_news = reason != self._last_failure
            self._last_failure = reason
        if is_news:
            log.warning('not announced on the network: %s', reason)

    def _note_success(self) -> None:
        with self._lock:
            is_news = self._last_failure != ''
            self._last_failure = ''
        if is_news:
            log.warning('announced on the network now')

    def _log_missing_package(self) -> None:
        level = logging.INFO
        if self.describes_meter:  # homewizard_api was switched on so that clients find the meter
            level = logging.WARNING
        log.log(
            level,
            'not announced on the network: the package zeroconf is not installed (pip install zeroconf)',
        )


def _warn_about_port(port: int) -> None:
    log.warning(
        "announced as a web page: as HomeWizard's meter it would have to be at port %d, not %d; add it to programs by"
        ' address:port',
        HOMEWIZARD_PORT,
        port,
    )


class _Registration:
    """One service, announced on given addresses from when it is made to withdraw().

    Does not wait for the network. Raises OSError and zeroconf's errors.
    """

    def __init__(self, service: 'ServiceInfo', addresses: list[str], *, may_rename: bool) -> None:
        import asyncio  # noqa: PLC0415 slow to import

        from zeroconf import IPVersion, Zeroconf  # noqa: PLC0415 an optional extra, and slow to import

        self.service = service
        self.addresses = addresses
        self._zeroconf = Zeroconf(addresses, ip_version=IPVersion.V4Only)
        # To ask the network whether the name is free takes a second, for which the caller must not wait: the blocking
        # register_service() is replaced by its coroutine, which runs in zeroconf's thread.
        coroutine = _register(self._zeroconf, service, may_rename=may_rename)
        # Set by the constructor, which started it.
        loop = cast('asyncio.AbstractEventLoop', self._zeroconf.loop)
        self._future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        self._future.add_done_callback(self._log_failure)

    def withdraw(self) -> None:
        """Says goodbye, as far as the addresses are still there."""
        from zeroconf import Error  # noqa: PLC0415 as above

        self._future.cancel()
        try:
            self._zeroconf.close()
        except (OSError, RuntimeError, Error) as error:
            log.warning('the announcement was not withdrawn: %s', error)

    def _log_failure(self, registration: 'Future[None]') -> None:
        from zeroconf import NonUniqueNameException  # noqa: PLC0415 as above

        if registration.cancelled():
            return
        error = registration.exception()
        if error is None:
            return
        reason = f'{type(error).__name__}: {error}'
        if isinstance(error, NonUniqueNameException):
            reason = f'another server on this network has the name {self.service.name}: does it read the same meter?'
        log.warning('not announced on the network: %s', reason)


async def _register(zeroconf: 'Zeroconf', service: 'ServiceInfo', *, may_rename: bool) -> None:
    """Checks that the name is free and announces the service.

    A meter's service is never renamed: its name ends in the serial number, so a taken name means that another server
    announces the same meter.
    """
    broadcast = await zeroconf.async_register_service(service, allow_name_change=may_rename)
    await broadcast


def _meter_service(reading: Reading, port: int, addresses: list[str]) -> 'ServiceInfo':
    """The service as HomeWizard's API describes its discovery: https://api-documentation.homewizard.com/docs/discovery."""
    from zeroconf import ServiceInfo  # noqa: PLC0415 as in start()

    device = homewizard.device(reading)
    host = f'p1meter-{device["serial"][-6:]}'
    return ServiceInfo(
        HOMEWIZARD_SERVICE,
        f'{host}.{HOMEWIZARD_SERVICE}',
        port=port,
        properties={
            'api_enabled': '1',
            'path': '/api/v1',
            'serial': device['serial'],
            'product_name': device['product_name'],
            'product_type': device['product_type'],
        },
        server=f'{host}.local.',
        parsed_addresses=addresses,
    )


def _web_service(port: int, addresses: list[str]) -> 'ServiceInfo':
    from zeroconf import ServiceInfo  # noqa: PLC0415 as in start()

    computer = socket.gethostname().partition('.')[0]
    instance = _label(f'Smart meter at {computer} (dsmr-rest-server)')
    # Not the computer's own name: the system announces that, perhaps with other addresses.
    host = _label(f'dsmr-rest-server-{computer}')
    return ServiceInfo(
        WEB_SERVICE,
        f'{instance}.{WEB_SERVICE}',
        port=port,
        properties={'path': '/'},
        server=f'{host}.local.',
        parsed_addresses=addresses,
    )


def _label(name: str) -> str:
    """The name cut to a label's length, at the end of a character."""
    label = name.encode()[:LABEL_LIMIT]
    return label.decode(errors='ignore')


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _announced_addresses(addresses: Sequence[str]) -> list[str]:
    """These addresses, or when there are none all addresses of this machine that others can reach.

    IPv4 only, because Home Assistant does not accept literal IPv6 addresses. Raises OSError when this machine does not
    have the address, and ValueError when it is not an IPv4 address or there is no network.
    """
    for address in addresses:
        _refuse_foreign_address(address)
    if addresses:
        return list(addresses)
    import ifaddr  # noqa: PLC0415 comes with zeroconf

    adapters = ifaddr.get_adapters()
    all_addresses = [str(ip.ip) for adapter in adapters for ip in adapter.ips if ip.is_IPv4]
    reachable = [
        address for address in all_addresses if not ipaddress.IPv4Address(address).is_loopback
    ]
    if not reachable:
        raise ValueError('there is no network')
    return reachable


def _refuse_foreign_address(address: str) -> None:
    """Raises before zeroconf would, which leaves a socket open then."""
    checked = str(ipaddress.IPv4Address(address))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((checked, 0))
