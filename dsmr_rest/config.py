"""config.ini to frozen dataclasses. A complaint is one line: file, section, key, value and what is allowed."""

import configparser
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from dsmr_rest.serial_line import BAUD_RATES
from dsmr_rest.specification import NAMES

SCHEMES = ('socket', 'rfc2217')
MOST_CONNECTIONS = 900
"""pyserial waits with select(), which knows no file descriptor above 1023."""
LONGEST_WAIT = 3600.0
KEY_LENGTH = 16
"""Bytes: AES-128 in DLMS security suite 0."""

_KEYS = ('decryption_key', 'authentication_key')

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
    if re.fullmatch(r'/\S{1,254}', text):
        return text
    try:
        url = urlsplit(text)
        if url.scheme in SCHEMES and url.hostname and url.port:
            return text
    except ValueError:  # a port that is no number
        pass
    raise _NotAllowedError('must be a device such as /dev/ttyUSB0, socket://host:port or rfc2217://host:port')


def _key(text: str) -> str:
    if text and not re.fullmatch(rf'[0-9A-Fa-f]{{{KEY_LENGTH * 2}}}', text):
        raise _NotAllowedError(f'must be {KEY_LENGTH * 2} hexadecimal digits')
    return text


def _file(text: str) -> str:
    return text


def _user(text: str) -> str:
    if ':' in text:  # RFC 7617: it ends the name
        raise _NotAllowedError('must be a name without a colon')
    return text


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(',', ' ').lower().split())


def _origin(text: str) -> str:
    if text in ('', '*') or re.fullmatch(r'https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:\d+)?', text):
        return text
    raise _NotAllowedError('must be an origin such as https://example.org, or *')


@dataclass(frozen=True)
class MeterSettings:
    """The section [meter]: where the meter is and how it is read. Times in seconds."""

    port: str = _setting('/dev/ttyUSB0', _serial_port)
    line: str = _setting('auto', _one_of('auto', *BAUD_RATES))
    specification: str = _setting('auto', _one_of('auto', *NAMES))
    timeout: float = _setting(30.0, _seconds(0.1))
    max_age: float = _setting(0.0, _seconds(0))
    keep_open: float = _setting(0.0, _seconds(0))
    decryption_key: str = _setting('', _key, secret=True)
    decryption_key_file: str = _setting('', _file)
    authentication_key: str = _setting('', _key, secret=True)
    authentication_key_file: str = _setting('', _file)


@dataclass(frozen=True)
class ServerSettings:
    """The section [server]: who may ask, and where."""

    host: str = _setting('', str)
    port: int = _setting(8080, _whole_number(0, 65535))
    user: str = _setting('', _user)
    password: str = _setting('', str, secret=True)
    password_file: str = _setting('', _file)
    certificate: str = _setting('', _file)
    private_key: str = _setting('', _file)
    hosts: tuple[str, ...] = _setting((), _words)
    cors_origin: str = _setting('', _origin)
    max_connections: int = _setting(64, _whole_number(1, MOST_CONNECTIONS))
    max_streams: int = _setting(32, _whole_number(0, MOST_CONNECTIONS))
    metrics_identifiers: bool = _setting(False, _yes_or_no)
    homewizard_api: bool = _setting(False, _yes_or_no)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can ask."""
        return self.host in ('localhost', '::1') or self.host.startswith('127.')


@dataclass(frozen=True)
class Config:
    """The whole of config.ini; `warnings` are sentences about what is allowed but not wise."""

    meter: MeterSettings = field(default_factory=MeterSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    warnings: tuple[str, ...] = ()


def load(path: Path, credentials: Path | None = None) -> Config:
    """The configuration in a file; secrets also from a folder of files named as the settings (systemd credentials).

    Raises ConfigError.
    """
    parser = configparser.ConfigParser(interpolation=None, default_section='', empty_lines_in_values=False)
    try:
        parser.read_string(path.read_text(encoding='utf-8-sig'), source=str(path))
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise ConfigError(f'{path}: is not UTF-8') from error
    except configparser.DuplicateSectionError as error:
        raise ConfigError(f'{path}: [{error.section}] comes twice') from error
    except configparser.DuplicateOptionError as error:
        raise ConfigError(f'{path}: [{error.section}] {error.option} comes twice') from error
    except configparser.Error as error:  # the line itself is not shown: it may hold a secret
        line = getattr(error, 'lineno', None) or getattr(error, 'errors', [(0, '')])[0][0]
        raise ConfigError(f'{path}: line {line} is neither a section, a setting nor a comment') from error
    for name in parser.sections():
        if name not in ('meter', 'server'):
            raise ConfigError(f'{path}: [{name}]: unknown section; there are: meter, server')
    where = _Place(path, credentials)
    meter = where.section(parser, 'meter', MeterSettings)
    server = where.section(parser, 'server', ServerSettings)
    for one, other in (('user', 'password'), ('certificate', 'private_key')):
        if bool(getattr(server, one)) != bool(getattr(server, other)):
            raise ConfigError(f'{path}: [server] {one} and {other}: must be set both or neither')
    return Config(meter, server, tuple(_warnings(path, parser, server)))


def _warnings(path: Path, parser: configparser.ConfigParser, server: ServerSettings) -> Iterator[str]:
    held = [key for name in parser.sections() for key in ('password', *_KEYS) if parser.get(name, key, fallback='')]
    if held and path.stat().st_mode & stat.S_IROTH:
        yield f'{path} holds {" and ".join(held)} and can be read by everybody on this machine: chmod o-r {path}'
    if server.user and not server.certificate and not server.is_local:
        yield '[server] user and password go over the network as plain text: set certificate and private_key'


@dataclass(frozen=True)
class _Place:
    """Where settings come from, and what complaints name."""

    path: Path
    credentials: Path | None

    def section(self, parser: configparser.ConfigParser, name: str, kind: type[Section]) -> Section:
        known = {each.name: each for each in fields(kind)}
        given = dict(parser.items(name)) if parser.has_section(name) else {}
        for key, text in given.items():
            if '\n' in text and key != 'hosts':  # which is a list
                raise ConfigError(f'{self.path}: [{name}] {key}: must stand on one line; the next begins with a blank')
            if key not in known:
                raise ConfigError(f'{self.path}: [{name}] {key}: unknown setting; there are: {", ".join(known)}')
        values: dict[str, Any] = {}
        for key, each in known.items():
            text = given.get(key, '') if each.repr else self._secret(name, key, given)
            try:
                if each.metadata['parse'] is _file and text:
                    text = str(self._existing(text))
                if text:
                    values[key] = each.metadata['parse'](text)
            except _NotAllowedError as error:
                shown = text if each.repr else '…'
                raise ConfigError(f'{self.path}: [{name}] {key} = {shown}: {error}') from error
        return kind(**values)

    def _existing(self, name: str) -> Path:
        file = self.path.parent / name
        if not (file.is_file() and os.access(file, os.R_OK)):
            raise _NotAllowedError('must be a file that can be read')
        return file

    def _secret(self, section: str, key: str, given: Mapping[str, str]) -> str:
        """A secret as it stands in config.ini, in a file named there, or among the credentials."""
        here, file = given.get(key, ''), given.get(f'{key}_file', '')
        if here and file:
            raise ConfigError(f'{self.path}: [{section}] {key} and {key}_file: must be set one or neither')
        if file:
            source = self.path.parent / file
        elif not here and self.credentials and (self.credentials / key).is_file():
            source = self.credentials / key
        else:
            return here
        try:
            return source.read_text(encoding='utf-8').strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, 'strerror', None) or 'is not UTF-8'
            raise ConfigError(f'{self.path}: [{section}] {key}: {source}: {reason}') from error
