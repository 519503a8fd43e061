"""What a server with given settings would do, as lines for the person who wrote them: the report of --check.

Pure: it opens nothing and looks at nothing; what only the machine knows (the URLs, whether the port of the meter is
there) is passed in. Of a secret it says whether it is set, never what it is.
"""

from collections.abc import Sequence
from pathlib import Path

from dsmr_rest.config import HOMEWIZARD_PORT, Config, MeterSettings, ServerSettings

NAME_WIDTH = 16
"""Characters from the beginning of a line to its text."""

_NO_MISTAKE = 'No mistake was found. Whether the TCP ports are free is not checked: the server may be running.'

Fact = tuple[str, str]
"""A name and what is said about it."""


def summary(
    config: Config,
    *,
    file: Path | None,
    urls: Sequence[str],
    port_exists: bool,
    not_a_port: str,
    demo_version: str | None,
    keeps_timeouts: bool,
) -> list[str]:
    """Lines of text about these settings, which come from `file`, or are the defaults when it is None.

    `urls` are those of the server; `port_exists` is whether there is a file with the name of [meter] port, and
    `not_a_port` what it is when it is no serial port, such as 'a folder'. When there is a `demo_version`, the meter is
    a simulated one, and so nothing is said about [meter]. `keeps_timeouts` is whether this system keeps the timeouts of
    sockets itself.
    """
    facts = [('settings', str(file or 'the defaults, because there is no config.ini'))]
    if demo_version is None:
        facts += _meter_facts(config.meter, port_exists, not_a_port)
    else:
        facts.append(('meter', f'a simulated one ({demo_version})'))
    facts += _server_facts(config.server, urls)
    facts.append(('client timeouts', _timeouts(keeps_timeouts)))
    facts += [('warning', warning) for warning in config.warnings]
    lines = [f'{name:{NAME_WIDTH}}{text}' for name, text in facts]
    if not_a_port:
        return [*lines, f'One mistake was found: [meter] port is {not_a_port}, not a serial port.']
    return [*lines, _NO_MISTAKE]


_CHECKSUM = {
    'auto': 'auto: a telegram is served only if its checksum holds, where its meter sends one',
    'ignore': 'ignore: a telegram is served whether its checksum holds or not',
}


def _meter_facts(meter: MeterSettings, port_exists: bool, not_a_port: str) -> list[Fact]:
    line = meter.line
    if line == 'auto':
        line = 'auto: the baud rate is found automatically'
    specification = meter.specification
    if specification == 'auto':
        specification = 'auto: chosen for each telegram'
    return [
        ('meter', _port(meter.port, port_exists, not_a_port)),
        ('line', line),
        ('specification', specification),
        ('checksum', _CHECKSUM[meter.checksum]),
        ('time_zone', meter.time_zone),
        ('keys', _keys(meter)),
    ]


def _timeouts(are_kept: bool) -> str:
    if are_kept:
        return 'by the kernel, as tried now'
    return 'by Python: those of this kernel do not hold, as tried now'


def _port(port: str, exists: bool, not_a_port: str) -> str:
    if '://' in port:
        return f'{port}, over the network; it is not contacted now'
    if not_a_port:
        return f'{port}, which is {not_a_port}, not a serial port'
    if exists:
        return f'{port}, which is there now'
    return f'{port}, which is not there now: plug in the cable, or change [meter] port'


def _keys(meter: MeterSettings) -> str:
    if meter.decryption_key and meter.authentication_key:
        return 'decryption_key and authentication_key are set'
    if meter.decryption_key:
        return 'decryption_key is set; authentication_key is the public one of Luxembourg'
    if meter.authentication_key:
        return 'authentication_key is set, but a meter that encrypts needs decryption_key too'
    return 'none are set; only meters that encrypt need them (Luxembourg, Austria)'


def _server_facts(server: ServerSettings, urls: Sequence[str]) -> list[Fact]:
    tls = 'no: everything is sent as plain text'
    if server.uses_tls:
        tls = f'yes, with {server.certificate}'
    facts = [
        ('URLs', _addresses(server, urls)),
        ('TLS', tls),
        ('who may ask', _clients(server)),
        ('host names', _host_names(server)),
    ]
    if server.cors_origin:
        facts.append(('websites', _websites(server)))
    facts += [
        ('telegram_port', _telegram_port(server)),
        ('homewizard_api', _homewizard_api(server)),
        ('open to all', _open_to_all(server)),
    ]
    return facts


def _addresses(server: ServerSettings, urls: Sequence[str]) -> str:
    listed = ' '.join(urls)
    if server.port == 0:
        return f'{listed} (0 means any free port, which the server prints when it starts)'
    return listed


def _clients(server: ServerSettings) -> str:
    clients = 'everyone on the network'
    if server.is_local:
        clients = 'every program on this machine'
    if server.user:
        return f'{clients} with the user name and the password'
    return clients


def _host_names(server: ServerSettings) -> str:
    local = 'IP addresses and names on the local network'
    if server.hosts:
        return f'{local}, and {" ".join(server.hosts)}'
    return f'{local}; others must be in [server] hosts'


def _websites(server: ServerSettings) -> str:
    if server.cors_origin == '*':
        return 'the pages of every website may read the meter'
    return f'the pages of {server.cors_origin} may read the meter'


def _telegram_port(server: ServerSettings) -> str:
    if server.telegram_port is None:
        return 'off'
    if server.telegram_port == 0:
        return 'on: raw telegrams at any free TCP port'
    return f'on: raw telegrams at TCP port {server.telegram_port}'


def _homewizard_api(server: ServerSettings) -> str:
    if not server.homewizard_api:
        return 'off'
    if not server.is_open_to_homewizard_clients:
        return "on, but programs for HomeWizard's meter support neither a password nor TLS"
    responses = "on: responses under /api as HomeWizard's P1 meter gives them"
    if server.port == HOMEWIZARD_PORT:
        return responses
    return f'{responses}; programs need address:port, because they discover that meter at port {HOMEWIZARD_PORT} only'


def _open_to_all(server: ServerSettings) -> str:
    """Which ways to read the meter are open to the network without a password."""
    if server.is_local:
        return 'nothing: only programs on this machine can connect'
    ways = []
    if not server.user:
        ways.append('HTTP')
    if not server.user and server.homewizard_api:
        ways.append('homewizard_api')
    if server.telegram_port is not None:
        ways.append('telegram_port')
    if not ways:
        return 'nothing: the password is always needed'
    listed = ', '.join(ways)
    return f'{listed}: everyone on the network can read the meter without a password'
