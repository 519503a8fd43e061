"""config.ini to frozen dataclasses. A complaint is one line: file, section, key, value and what is allowed."""

import configparser
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from dsmr_rest.specification import NAMES

SPEEDS = {'115200 8N1': 115200, '115200 7E1': 115200, '9600 7E1': 9600}
SCHEMES = ('socket', 'rfc2217')
MOST_CONNECTIONS = 900
"""pyserial waits with select(), which knows no file descriptor above 1023."""
LONGEST_WAIT = 3600.0
KEY_LENGTH = 16
"""Bytes: AES-128 in DLMS security suite 0."""

T = TypeVar('T')
Section = TypeVar('Section', 'MeterSettings', 'ServerSettings')


class ConfigError(Exception):
    """One line that says what in the configuration is wrong, and what is allowed."""


class _NotAllowedError(Exception):
    """The sentence 'must be …' for a value."""


def _setting(default: T, parse: Callable[[str], T], *, secret: bool = False) -> T:
    made: T = field(default=default, metadata={'parse': parse}, repr=not secret)
    return made


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise _NotAllowedError(f'must be one of: {", ".join(allowed)}')
        return text

    return parse


def _yes_or_no(text: str) -> bool:
    return _one_of('yes', 'no')(text) == 'yes'


def _seconds(least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not least <= seconds <= LONGEST_WAIT:
            raise _NotAllowedError(f'must be a number of seconds from {least:g} to {LONGEST_WAIT:g}')
        return seconds

    return parse


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise _NotAllowedError(f'must be a whole number from {least} to {most}')
        return int(text)

    return parse


def _serial_port(text: str) -> str:
    if text.startswith('/'):
        return text
    try:
        url = urlsplit(text)
        if url.scheme in SCHEMES and url.hostname and url.port:
            return text
    except ValueError:  # a port that is no number
        pass
    raise _NotAllowedError('must be a device such as /dev/ttyUSB0, socket://host:port or rfc2217://host:port')


def _key(text: str) -> str:
    try:
        length = len(bytes.fromhex(text)) if text.isalnum() or not text else 0
    except ValueError:
        length = -1
    if length not in (0, KEY_LENGTH) or (text and not length):
        raise _NotAllowedError(f'must be {KEY_LENGTH * 2} hexadecimal digits')
    return text


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(',', ' ').lower().split())


def _origin(text: str) -> str:
    if text in ('', '*') or (urlsplit(text).scheme in ('http', 'https') and text.count('/') == text.count('://') * 2):
        return text
    raise _NotAllowedError('must be an origin such as https://example.org, or *')


@dataclass(frozen=True)
class MeterSettings:
    """The section [meter]: where the meter is and how it is read. Times in seconds."""

    port: str = _setting('/dev/ttyUSB0', _serial_port)
    line: str = _setting('auto', _one_of('auto', *SPEEDS))
    specification: str = _setting('auto', _one_of('auto', *NAMES))
    timeout: float = _setting(30.0, _seconds(0.1))
    max_age: float = _setting(0.0, _seconds(0))
    keep_open: float = _setting(0.0, _seconds(0))
    decryption_key: str = _setting('', _key, secret=True)
    authentication_key: str = _setting('', _key, secret=True)


@dataclass(frozen=True)
class ServerSettings:
    """The section [server]: who may ask, and where."""

    host: str = _setting('', str)
    port: int = _setting(8080, _whole_number(0, 65535))
    user: str = _setting('', str)
    password: str = _setting('', str, secret=True)
    certificate: str = _setting('', str)
    private_key: str = _setting('', str)
    hosts: tuple[str, ...] = _setting((), _words)
    cors_origin: str = _setting('', _origin)
    max_connections: int = _setting(64, _whole_number(1, MOST_CONNECTIONS))
    homewizard_api: bool = _setting(False, _yes_or_no)


@dataclass(frozen=True)
class Config:
    """The whole of config.ini."""

    meter: MeterSettings = field(default_factory=MeterSettings)
    server: ServerSettings = field(default_factory=ServerSettings)


def load(path: Path) -> Config:
    """The configuration in a file. Raises ConfigError."""
    parser = configparser.ConfigParser(interpolation=None, default_section='', empty_lines_in_values=False)
    try:
        parser.read_string(path.read_text(encoding='utf-8'), source=str(path))
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from error
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(' '.join(str(error).split())) from error
    sections = {each.name: each for each in fields(Config)}
    for name in parser.sections():
        if name not in sections:
            raise ConfigError(f'{path}: [{name}]: unknown section; there are: {", ".join(sections)}')
    return Config(
        _section(path, parser, 'meter', MeterSettings),
        _section(path, parser, 'server', ServerSettings),
    )


def _section(path: Path, parser: configparser.ConfigParser, name: str, kind: type[Section]) -> Section:
    known = {each.name: each for each in fields(kind)}
    given: dict[str, Any] = {}
    for key, text in parser.items(name) if parser.has_section(name) else ():
        if key not in known:
            raise ConfigError(f'{path}: [{name}] {key}: unknown setting; there are: {", ".join(known)}')
        try:
            given[key] = known[key].metadata['parse'](text)
        except _NotAllowedError as error:
            shown = text if known[key].repr else '…'
            raise ConfigError(f'{path}: [{name}] {key} = {shown}: {error}') from error
    return kind(**given)
