"""The report of --check: what it says about each setting, and about what is open to the network."""

from pathlib import Path
from typing import Any

import pytest

from dsmr_rest.commands.summary import NAME_WIDTH, summary
from dsmr_rest.config import Config, MeterSettings, ServerSettings

KEY = '0123456789abcdef0123456789abcdef'
PASSWORD = {'user': 'me', 'password': 'geheim'}
TLS = {'certificate': '/etc/p1/cert.pem', 'private_key': '/etc/p1/key.pem'}
URL = 'http://raspberrypi:8080/'


def facts(
    meter: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    warnings: tuple[str, ...] = (),
    *,
    keeps_timeouts: bool = True,
) -> dict[str, str]:
    """What is said about these settings, by the names at the beginning of the lines."""
    config = Config(MeterSettings(**meter or {}), ServerSettings(**server or {}), warnings)
    *lines, _ = summary(
        config,
        file=Path('x.ini'),
        urls=[URL],
        port_exists=True,
        not_a_port='',
        demo_version=None,
        keeps_timeouts=keeps_timeouts,
    )
    assert KEY not in ''.join(lines) and 'geheim' not in ''.join(lines)
    return {line[:NAME_WIDTH].strip(): line[NAME_WIDTH:] for line in lines}


def test_the_defaults() -> None:
    """With the default settings everyone on the network may read the meter over HTTP, and nothing else is on."""
    report = facts()
    assert report['meter'] == '/dev/ttyUSB0, which is there now'
    assert report['line'].startswith('auto: ')
    assert report['specification'].startswith('auto: ')
    assert report['keys'].startswith('none are set')
    assert report['URLs'] == URL
    assert report['TLS'].startswith('no')
    assert report['who may ask'] == 'everyone on the network'
    assert report['telegram_port'] == report['homewizard_api'] == 'off'
    assert report['open to all'].startswith('HTTP: everyone on the network')
    assert 'websites' not in report and 'warning' not in report


@pytest.mark.parametrize(
    ('setting', 'value', 'said'),
    [
        ('port', 'socket://meter.lan:2001', 'socket://meter.lan:2001, over the network; it is not'),
        ('line', '9600 7E1', '9600 7E1'),
        ('specification', 'V4', 'V4'),
        ('time_zone', 'Europe/Vilnius', 'Europe/Vilnius'),
    ],
)
def test_how_the_meter_is_read(setting: str, value: str, said: str) -> None:
    """What is set is reported as it is, and a port on another machine as one that was not contacted."""
    name = setting.replace('port', 'meter')
    assert facts({setting: value})[name].startswith(said)


@pytest.mark.parametrize(
    ('keys', 'said'),
    [
        (['decryption_key'], 'decryption_key is set; authentication_key is the public one'),
        (['authentication_key'], 'authentication_key is set, but'),
        (['decryption_key', 'authentication_key'], 'decryption_key and authentication_key are set'),
    ],
)
def test_which_keys_are_set(keys: list[str], said: str) -> None:
    """Of keys only their names are shown."""
    assert facts(dict.fromkeys(keys, KEY))['keys'].startswith(said)


@pytest.mark.parametrize(
    ('server', 'said'),
    [
        ({}, 'everyone on the network'),
        ({'host': '127.0.0.1'}, 'every program on this machine'),
        (PASSWORD, 'everyone on the network with the user name and the password'),
        ({'host': '::1', **PASSWORD}, 'every program on this machine with the user name'),
    ],
)
def test_who_may_ask(server: dict[str, Any], said: str) -> None:
    """Clients are those on the network or on this machine, with a password or without."""
    assert facts(server=server)['who may ask'].startswith(said)


@pytest.mark.parametrize(
    ('server', 'ways'),
    [
        ({'telegram_port': 2001}, 'HTTP, telegram_port: everyone'),
        ({'homewizard_api': True}, 'HTTP, homewizard_api: everyone'),
        (
            {'homewizard_api': True, 'telegram_port': 2001},
            'HTTP, homewizard_api, telegram_port: everyone',
        ),
        (TLS, 'HTTP: everyone'),
        (PASSWORD, 'nothing: the password'),
        ({'homewizard_api': True, **PASSWORD}, 'nothing: the password'),
        ({'host': 'localhost', 'telegram_port': 2001}, 'nothing: only programs on this machine'),
        (
            {'host': 'localhost', 'telegram_port': 2001, **PASSWORD},
            'nothing: only programs on this machine',
        ),
    ],
)
def test_what_is_open_to_all(server: dict[str, Any], ways: str) -> None:
    """Each way to read the meter from the network without a password is named."""
    assert facts(server=server)['open to all'].startswith(ways)


def test_tls() -> None:
    """With TLS the certificate is named."""
    assert facts(server=TLS)['TLS'] == 'yes, with /etc/p1/cert.pem'


def test_host_names_and_websites() -> None:
    """Further host names, and the websites whose pages may read the meter, are listed."""
    report = facts(server={'hosts': ('a.example.org', 'b.example.org'), 'cors_origin': 'https://c'})
    assert report['host names'].endswith(' and a.example.org b.example.org')
    assert report['websites'] == 'the pages of https://c may read the meter'
    assert 'every website' in facts(server={'cors_origin': '*'})['websites']


@pytest.mark.parametrize(
    ('port', 'said'),
    [(2001, 'on: raw telegrams at TCP port 2001'), (0, 'on: raw telegrams at any free TCP port')],
)
def test_the_telegram_port(port: int, said: str) -> None:
    """The number of the telegram port is shown, unless it is chosen at the start."""
    assert facts(server={'telegram_port': port})['telegram_port'] == said


@pytest.mark.parametrize('protection', [PASSWORD, TLS])
def test_a_homewizard_api_that_its_clients_cannot_use(protection: dict[str, str]) -> None:
    """That programs for HomeWizard's meter support neither a password nor TLS is said where it matters."""
    assert 'support neither' not in facts(server={'homewizard_api': True})['homewizard_api']
    said = facts(server={'homewizard_api': True, **protection})['homewizard_api']
    assert 'support neither a password nor TLS' in said


def test_a_homewizard_meter_is_discovered_at_port_80_only() -> None:
    """At any other port it is said that programs must be given address and port."""
    said = facts(server={'homewizard_api': True, 'port': 8080})['homewizard_api']
    assert 'programs need address:port' in said
    at_80 = facts(server={'homewizard_api': True, 'port': 80})['homewizard_api']
    assert at_80 == "on: responses under /api as HomeWizard's P1 meter gives them"


def test_any_free_port() -> None:
    """Port 0 is explained."""
    assert facts(server={'port': 0})['URLs'].startswith(f'{URL} (0 means any free port')


def test_warnings_are_part_of_it() -> None:
    """What the server would log as a warning at its start is in the report."""
    assert facts(warnings=('unwise',))['warning'] == 'unwise'


def test_whose_timeouts_are_used() -> None:
    """The report says whether the kernel keeps the timeouts of clients, or Python has to."""
    assert facts()['client timeouts'].startswith('by the kernel')
    assert facts(keeps_timeouts=False)['client timeouts'].startswith('by Python')
