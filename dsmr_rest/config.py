"""config.ini to immutable settings.

Every mistake in the file is a ConfigError of one line: file, section, key, value and what is allowed. No secret is
shown in a ConfigError or in the repr of the settings. The module does not know what the settings are used for.
"""

import configparser
import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dsmr_rest.choices import BAUD_RATES, SPECIFICATION_NAMES, TIME_ZONE

SCHEME = 'socket'
"""pyserial's URL scheme for a serial port on another machine."""
MOST_CONNECTIONS = 900
"""pyserial waits with select(), which cannot handle file descriptors above 1023 (FD_SETSIZE)."""
LONGEST_WAIT = 3600.0
"""Seconds: a longer wait for a meter that sends every 10 s or more often is a typing error."""
KEY_LENGTH = 16
"""Bytes: AES-128 in DLMS security suite 0."""

_PLAIN_TEXT = '[server] user and password are sent over the network as plain text: set certificate and private_key'

_HOST = r'[^\s#;]+'
"""What may be a host: no more is asked, because names can have letters of any language."""

_NO_CHECKSUM = '[meter] checksum = ignore: telegrams are served without proof, damaged ones too'

T = TypeVar('T')


class ConfigError(Exception):
    """One line that says what is wrong in the configuration, and what is allowed."""


class NotAllowedError(Exception):
    """What is allowed instead of a value: 'must be …'."""


class Setting(NamedTuple):
    """How the text of a setting in config.ini becomes its value.

    `parse` returns the value of a text that is not empty, or raises NotAllowedError. The text of a file is a path
    relative to the folder of config.ini; its value is that path joined to the folder.
    """

    parse: Callable[[str], Any]
    is_secret: bool = False
    is_file: bool = False
    is_list: bool = False
    """Only a list may continue on further, indented lines."""


def _field(default: T, setting: Setting) -> T:
    made: T = field(
        default=default,
        metadata={'setting': setting},
        repr=not setting.is_secret,
    )
    return made


def _setting(default: T, parse: Callable[[str], T]) -> T:
    setting = Setting(parse)
    return _field(default, setting)


def _list(parse: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    setting = Setting(parse, is_list=True)
    return _field((), setting)


def _secret(parse: Callable[[str], str]) -> str:
    setting = Setting(parse, is_secret=True)
    return _field('', setting)


def _file() -> str:
    setting = Setting(str, is_file=True)
    return _field('', setting)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise NotAllowedError(f'must be one of: {", ".join(allowed)}')
        return text

    return parse


def _yes_or_no(text: str) -> bool:
    word = _one_of('yes', 'no')(text)
    return word == 'yes'


def _seconds(least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan  # which is not in any range
        if not least <= seconds <= LONGEST_WAIT:
            raise NotAllowedError(f'must be a number of seconds from {least:g} to {LONGEST_WAIT:g}')
        return seconds

    return parse


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        is_number = re.fullmatch('[0-9]{1,9}', text)
        if not is_number or not least <= int(text) <= most:
            raise NotAllowedError(f'must be a whole number from {least} to {most}')
        return int(text)

    return parse


def serial_port(text: str) -> str:
    """The text of a port, a device or a URL, as it is. Raises NotAllowedError."""
    is_device = re.fullmatch(r'/\S{1,254}', text)
    if not is_device and not _is_network_port(text):
        raise NotAllowedError(
            'must be a device such as /dev/ttyUSB0, or socket://host:port (for rfc2217://, which is not supported any'
            ' more, let ser2net serve the port raw)'
        )
    return text


def _is_network_port(text: str) -> bool:
    try:
        url = urlsplit(text)
        has_host_and_port = url.hostname and url.port
    except ValueError:  # the port is not a number from 0 to 65535, or a bracket is missing
        return False
    return url.scheme == SCHEME and bool(has_host_and_port)


def _key(text: str) -> str:
    digits = KEY_LENGTH * 2
    if not re.fullmatch(rf'[0-9A-Fa-f]{{{digits}}}', text):
        raise NotAllowedError(f'must be {digits} hexadecimal digits (0-9 and a-f)')
    return text


def _time_zone(text: str) -> str:
    """The name of a time zone that this machine knows."""
    try:
        ZoneInfo(text)
    # Not one of its names, not a name at all, or a folder of the database.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise NotAllowedError(
            'must be a time zone of the IANA database, such as Europe/Helsinki'
        ) from None
    return text


def _user(text: str) -> str:
    if ':' in text:  # it ends the name in HTTP Basic (RFC 7617)
        raise NotAllowedError('must be a name without a colon')
    return text


def _host(text: str) -> str:
    if not re.fullmatch(_HOST, text):
        raise NotAllowedError('must be one IP address or name of this machine')
    return text


def _host_names(text: str) -> tuple[str, ...]:
    """Names that commas, blanks or line ends separate."""
    names = text.replace(',', ' ').lower().split()
    for name in names:
        if not re.fullmatch(_HOST, name):
            raise NotAllowedError('must be host names such as meter.example.org')
    return tuple(names)


def _origin(text: str) -> str:
    """An origin as browsers send it (RFC 6454 6.2). A page of any website can have the origin null, in a sandbox."""
    if text == 'null':
        raise NotAllowedError(
            'must be * for a page that is opened from a disk: any page can have the origin null'
        )
    is_origin = re.fullmatch(r'https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:\d+)?', text)
    if text != '*' and not is_origin:
        raise NotAllowedError('must be an origin such as https://example.org, or *')
    return text


@dataclass(frozen=True)
class MeterSettings:
    """The section [meter]: where the meter is and how it is read. Times are in seconds."""

    port: str = _setting('/dev/ttyUSB0', serial_port)
    line: str = _setting('auto', _one_of('auto', *BAUD_RATES))
    specification: str = _setting('auto', _one_of('auto', *SPECIFICATION_NAMES))
    time_zone: str = _setting(TIME_ZONE, _time_zone)
    checksum: str = _setting('auto', _one_of('auto', 'ignore'))
    timeout: float = _setting(30.0, _seconds(0.1))
    max_age: float = _setting(0.0, _seconds(0))
    keep_open: float = _setting(0.0, _seconds(0))
    decryption_key: str = _secret(_key)
    decryption_key_file: str = _file()
    authentication_key: str = _secret(_key)
    authentication_key_file: str = _file()


HOMEWIZARD_PORT = 80
"""The port that programs ask which discover a HomeWizard meter, whatever port is announced."""


@dataclass(frozen=True)
class ServerSettings:
    """The section [server]: where the server listens, and what its clients may do."""

    host: str = _setting('', _host)
    port: int = _setting(8080, _whole_number(0, 65535))
    user: str = _setting('', _user)
    password: str = _secret(str)
    password_file: str = _file()
    certificate: str = _file()
    private_key: str = _file()
    hosts: tuple[str, ...] = _list(_host_names)
    cors_origin: str = _setting('', _origin)
    max_connections: int = _setting(64, _whole_number(1, MOST_CONNECTIONS))
    max_streams: int = _setting(32, _whole_number(0, MOST_CONNECTIONS))
    metrics_identifiers: bool = _setting(False, _yes_or_no)
    homewizard_api: bool = _setting(False, _yes_or_no)
    telegram_port: int | None = _setting(None, _whole_number(0, 65535))

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can connect."""
        return self.host in ('localhost', '::1') or self.host.startswith('127.')

    @property
    def uses_tls(self) -> bool:
        """Whether clients connect with https."""
        return bool(self.certificate and self.private_key)

    @property
    def is_open_to_homewizard_clients(self) -> bool:
        """Whether programs for HomeWizard's meter can read this one: they support neither a password nor TLS."""
        return self.homewizard_api and not self.user and not self.uses_tls


class Config(NamedTuple):
    """The whole of config.ini; `warnings` are sentences about what is allowed but unwise."""

    meter: MeterSettings = MeterSettings()
    server: ServerSettings = ServerSettings()
    warnings: tuple[str, ...] = ()


def load(path: Path, credentials: Path | None = None) -> Config:
    """The configuration in a file. `credentials` is a folder with a file for each further secret (systemd credentials).

    Raises ConfigError.
    """
    parser = _parse(path)
    _refuse_unknown_sections(path, parser)
    meter_section = _section(path, parser, 'meter', MeterSettings, credentials)
    server_section = _section(path, parser, 'server', ServerSettings, credentials)
    meter = MeterSettings(**meter_section.values())
    server = ServerSettings(**server_section.values())
    _refuse_incomplete_pairs(path, server)
    _refuse_telegrams_without_password(path, server)
    _refuse_equal_ports(path, server)
    _refuse_too_many_clients(path, server)
    secrets = meter_section.secrets_in_file() + server_section.secrets_in_file()
    warnings = _warnings(path, secrets, meter, server)
    return Config(meter, server, tuple(warnings))


def _parse(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(
        interpolation=None,
        default_section='',  # no section can have this name
        empty_lines_in_values=False,
    )
    try:
        text = path.read_text(encoding='utf-8-sig')
        parser.read_string(text)
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise ConfigError(f'{path}: must be text in UTF-8') from error
    except configparser.DuplicateSectionError as error:
        raise ConfigError(f'{path}: [{error.section}] is in the file twice') from error
    except configparser.DuplicateOptionError as error:
        raise ConfigError(f'{path}: [{error.section}] {error.option} is set twice') from error
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(
            f'{path}: line {error.lineno} is before the first section: [meter] or [server] must be above it'
        ) from error
    except configparser.ParsingError as error:
        number, _ = error.errors[0]  # the line itself is not shown, because it may contain a secret
        raise ConfigError(
            f'{path}: line {number} must be a [section], a setting (key = value) or a comment'
        ) from error
    return parser


def _refuse_unknown_sections(path: Path, parser: configparser.ConfigParser) -> None:
    for name in parser.sections():
        if name not in ('meter', 'server'):
            raise ConfigError(f'{path}: [{name}]: unknown section; the sections are: meter, server')


def _refuse_incomplete_pairs(path: Path, server: ServerSettings) -> None:
    if bool(server.user) != bool(server.password):
        raise ConfigError(f'{path}: [server] user and password: must be set together')
    if bool(server.certificate) != bool(server.private_key):
        raise ConfigError(f'{path}: [server] certificate and private_key: must be set together')


def _refuse_telegrams_without_password(path: Path, server: ServerSettings) -> None:
    is_open = server.telegram_port is not None and not server.is_local
    if is_open and server.user:
        raise ConfigError(
            f'{path}: [server] telegram_port and user: only one of them may be set, because telegram_port lets everyone'
            ' on the network read the meter without the password (unless host = 127.0.0.1)'
        )


def _refuse_equal_ports(path: Path, server: ServerSettings) -> None:
    means_any_free_port = server.port == 0
    if server.telegram_port == server.port and not means_any_free_port:
        raise ConfigError(
            f'{path}: [server] telegram_port = {server.telegram_port}: must be another number than port'
        )


def _refuse_too_many_clients(path: Path, server: ServerSettings) -> None:
    all_clients = server.max_connections + server.max_streams
    if server.telegram_port is not None and all_clients > MOST_CONNECTIONS:
        raise ConfigError(
            f'{path}: [server] max_connections and max_streams: must be at most {MOST_CONNECTIONS} together when'
            ' telegram_port is set'
        )


def _warnings(
    path: Path, secrets_in_file: list[str], meter: MeterSettings, server: ServerSettings
) -> list[str]:
    warnings = []
    if meter.checksum == 'ignore':
        warnings.append(_NO_CHECKSUM)
    permissions = path.stat().st_mode
    if secrets_in_file and permissions & stat.S_IROTH:
        names = ' and '.join(secrets_in_file)
        warnings.append(
            f'{path} contains {names} and can be read by every user of this machine: run `chmod o-r {path}`'
        )
    if server.user and not server.certificate and not server.is_local:
        warnings.append(_PLAIN_TEXT)
    return warnings


def _section(
    path: Path,
    parser: configparser.ConfigParser,
    name: str,
    settings_type: type[MeterSettings | ServerSettings],
    credentials: Path | None,
) -> '_Section':
    texts = {}
    if parser.has_section(name):
        texts = dict(parser.items(name))
    settings = {}
    for item in fields(settings_type):
        settings[item.name] = item.metadata['setting']
    return _Section(path, name, texts, settings, credentials)


class _Section(NamedTuple):
    """One section of the file at `path`: the texts in it, and the settings that it may have."""

    path: Path
    name: str
    texts: Mapping[str, str]
    settings: Mapping[str, Setting]
    credentials: Path | None

    def values(self) -> dict[str, Any]:
        """The values of the settings that are set; an empty text means the default. Raises ConfigError."""
        self._refuse_unknown_keys()
        self._refuse_continued_lines()
        values = {}
        for key, setting in self.settings.items():
            text = self.texts.get(key, '')
            if setting.is_secret:
                text = self._secret(key)
            if text:
                values[key] = self._value(key, setting, text)
        return values

    def secrets_in_file(self) -> list[str]:
        """The names of the secrets that are in the file itself."""
        names = []
        for key, setting in self.settings.items():
            text = self.texts.get(key)
            if setting.is_secret and text:
                names.append(key)
        return names

    def _refuse_unknown_keys(self) -> None:
        for key in self.texts:
            if key not in self.settings:
                known = ', '.join(self.settings)
                raise self._error(f'{key}: unknown setting; the settings are: {known}')

    def _refuse_continued_lines(self) -> None:
        """An indented line would otherwise be lost in the value of the setting above it."""
        for key, text in self.texts.items():
            if '\n' in text and not self.settings[key].is_list:
                raise self._error(f'{key}: must be on one line (the next line is indented)')

    def _secret(self, key: str) -> str:
        """A secret from config.ini, from the file that is named there, or else from the credentials."""
        text = self.texts.get(key, '')
        file_name = self.texts.get(f'{key}_file', '')
        if text and file_name:
            raise self._error(f'{key} and {key}_file: only one of them may be set')
        if file_name:
            return self._read_secret(key, self.path.parent / file_name)
        if not text and self.credentials:
            credential = self.credentials / key
            if credential.is_file():
                return self._read_secret(key, credential)
        return text

    def _read_secret(self, key: str, file: Path) -> str:
        try:
            text = file.read_text(encoding='utf-8')
        except OSError as error:
            raise self._error(f'{key}: the file {file} cannot be read: {error.strerror}') from error
        except UnicodeDecodeError as error:
            raise self._error(f'{key}: the file {file} must be text in UTF-8') from error
        return text.strip()

    def _value(self, key: str, setting: Setting, text: str) -> Any:
        shown = text
        if setting.is_secret:
            shown = '…'
        try:
            if setting.is_file:
                text = self._readable_file(text)
            return setting.parse(text)
        except NotAllowedError as error:
            advice = ''
            if re.search(r'\s[#;]', text):
                advice = ' (a comment must be on a line of its own)'
            raise self._error(f'{key} = {shown}: {error}{advice}') from error

    def _readable_file(self, name: str) -> str:
        file = self.path.parent / name
        if not file.is_file():
            raise NotAllowedError(f'must be the name of a file, and {file} is not one')
        if not os.access(file, os.R_OK):
            raise NotAllowedError('must be a file that this user can read')
        return str(file)

    def _error(self, complaint: str) -> ConfigError:
        return ConfigError(f'{self.path}: [{self.name}] {complaint}')
