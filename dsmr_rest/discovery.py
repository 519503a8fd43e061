"""The server's announcement on the local network: DNS-SD (RFC 6763) over mDNS (RFC 6762) by zeroconf, an extra.

With a reading the server is found as the device that homewizard.py answers for, without one as a web page. A failure
costs the announcement and one log line, never the server. zeroconf has a thread of its own while it announces.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, cast

from dsmr_rest import homewizard
from dsmr_rest.config import ServerSettings
from dsmr_rest.reading import Reading

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

log = logging.getLogger(__name__)

HOMEWIZARD_SERVICE = '_hwenergy._tcp.local.'
WEB_SERVICE = '_http._tcp.local.'
LABEL_LIMIT = 63
"""Bytes in one part of a name (RFC 1035 2.3.4)."""


class Announcement:
    """A service that is announced from now until close()."""

    def __init__(self, zeroconf: 'Zeroconf', info: 'ServiceInfo') -> None:
        self._zeroconf = zeroconf
        self._info = info
        loop = cast('asyncio.AbstractEventLoop', zeroconf.loop)  # running since it was made
        # Asking whether the name is free takes a second, for which the caller, perhaps a meter's thread, does not wait.
        self._made = asyncio.run_coroutine_threadsafe(self._make(), loop)
        self._made.add_done_callback(_tell)

    @property
    def name(self) -> str:
        """The service's full name; another than was asked for when that was taken."""
        return self._info.name

    def close(self) -> None:
        """Says goodbye, so that nobody asks here any more; takes under a second."""
        from zeroconf import Error  # noqa: PLC0415 as below

        self._made.cancel()
        try:
            self._zeroconf.close()
        except (OSError, RuntimeError, Error) as error:
            log.warning('the announcement did not end well: %s', error)

    async def _make(self) -> None:
        allow_name_change = self._info.type == WEB_SERVICE  # the other's name has a number that must stay right
        await (await self._zeroconf.async_register_service(self._info, allow_name_change=allow_name_change))


class Announcer:
    """Announces a server: as a HomeWizard-compatible device from its first reading on, or at once as a web page."""

    def __init__(self) -> None:
        self.needs_reading = False
        self._port = 0
        self._interfaces: tuple[str, ...] = ()
        self._announcement: Announcement | None = None

    def begin(self, settings: ServerSettings, port: int) -> None:
        """From now on, where others can reach the server and its address says where."""
        everywhere = settings.host in ('', '0.0.0.0', '::')  # noqa: S104 compared, not listened at # nosec B104
        if settings.is_local or not (everywhere or settings.host.replace('.', '').isdigit()):
            return
        self._port, self._interfaces = port, () if everywhere else (settings.host,)
        # Clients of that API know neither passwords nor TLS.
        self.needs_reading = settings.homewizard_api and not (settings.user or settings.certificate)
        if not self.needs_reading:
            self._announcement = announce(port, None, self._interfaces)

    def device(self, reading: Reading) -> None:
        """The first reading is there."""
        if self.needs_reading:
            self._announcement = announce(self._port, reading, self._interfaces)

    def close(self) -> None:
        """Ends the announcement, if there is one; takes under a second."""
        if self._announcement:
            self._announcement.close()


def announce(port: int, reading: Reading | None, interfaces: Sequence[str] = ()) -> Announcement | None:
    """Announces the server at `port`, on the interfaces with these IPv4 addresses, or on all.

    A reading says which device it is; without one it is a web page. None, and a line in the log, when it cannot be.
    """
    try:
        from zeroconf import Error, IPVersion, Zeroconf  # noqa: PLC0415 an extra, which may be absent
    except ImportError:
        level = logging.WARNING if reading else logging.INFO
        log.log(level, 'not announced on the network: the package zeroconf is not installed')
        return None
    try:
        addresses = _addresses(interfaces)
        info = _service(port, reading, addresses)
        return Announcement(Zeroconf(addresses, ip_version=IPVersion.V4Only), info)
    except (OSError, RuntimeError, ValueError, Error) as error:
        log.warning('not announced on the network: %s', error)
        return None


def _service(port: int, reading: Reading | None, addresses: Sequence[str]) -> 'ServiceInfo':
    from zeroconf import ServiceInfo  # noqa: PLC0415 as above

    host = socket.gethostname().partition('.')[0]
    if reading:
        device = homewizard.device(reading)
        instance = computer = f'p1meter-{device["serial"][-6:]}'
        names = ('serial', 'product_name', 'product_type')
        properties = {'api_enabled': '1', 'path': '/api/v1'} | {name: device[name] for name in names}
    else:
        # A name of its own: the computer's is announced by the system, perhaps with other addresses.
        computer = _label(f'dsmr-rest-server-{host}')
        instance = _label(f'Smart meter at {host} (dsmr-rest-server)')
        properties = {'path': '/'}
    kind = HOMEWIZARD_SERVICE if reading else WEB_SERVICE
    return ServiceInfo(
        kind,
        f'{instance}.{kind}',
        port=port,
        properties=properties,
        server=f'{computer}.local.',
        parsed_addresses=[*addresses],
    )


def _label(name: str) -> str:
    return name.encode()[:LABEL_LIMIT].decode(errors='ignore')


def _addresses(interfaces: Sequence[str]) -> list[str]:
    """Where the server is found: IPv4, because Home Assistant refuses literal IPv6 addresses.

    Raises OSError and ValueError.
    """
    import ifaddr  # noqa: PLC0415 it comes with zeroconf

    if interfaces:
        for each in interfaces:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((str(ipaddress.IPv4Address(each)), 0))  # zeroconf leaves a socket open when this fails
        return [*interfaces]
    found = [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    addresses = [each for each in found if not ipaddress.ip_address(each).is_loopback]
    if not addresses:
        raise ValueError('there is no network')
    return addresses


def _tell(made: 'Future[None]') -> None:
    if not made.cancelled() and (error := made.exception()):
        log.warning('not announced on the network: %s: %s', type(error).__name__, error)
