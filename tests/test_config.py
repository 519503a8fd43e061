"""config.ini: what is accepted, what is refused, and that a secret is never shown."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dsmr_rest.config import Config, ConfigError, load

KEY = '0123456789abcdef0123456789ABCDEF'
FILE = Path('config.ini')
NOBODY = 65534


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str) -> Config:
    FILE.write_text(text, encoding='utf-8')
    return load(FILE)


def refusal(text: str | bytes) -> str:
    """The error for a file: one line that names the file."""
    FILE.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load(FILE)
    complaint = str(caught.value)
    assert complaint.isprintable(), 'not one line'
    assert FILE.name in complaint
    return complaint


@pytest.mark.parametrize('text', ['', '[meter]\n', '[server]\n[meter]\n', '# nothing\n; at all\n'])
def test_a_file_without_settings_means_the_defaults(text: str) -> None:
    """Without settings, with or without sections, a file is the default configuration."""
    assert loaded(text) == Config()


@pytest.mark.parametrize(
    ('section', 'key', 'text', 'value'),
    [
        ('meter', 'port', '/dev/serial/by-id/usb-FTDI-port0', '/dev/serial/by-id/usb-FTDI-port0'),
        ('meter', 'port', 'socket://meter.lan:2001', 'socket://meter.lan:2001'),
        ('meter', 'port', 'socket://[::1]:2217', 'socket://[::1]:2217'),
        ('meter', 'checksum', 'ignore', 'ignore'),
        ('meter', 'line', '9600 7E1', '9600 7E1'),
        ('meter', 'line', '', 'auto'),
        ('meter', 'specification', 'V2_2', 'V2_2'),
        ('meter', 'specification', 'BELGIUM_FLUVIUS', 'BELGIUM_FLUVIUS'),
        ('meter', 'time_zone', 'Europe/Helsinki', 'Europe/Helsinki'),
        ('meter', 'time_zone', 'UTC', 'UTC'),
        ('meter', 'timeout', '0.1', 0.1),
        ('meter', 'timeout', '3600', 3600.0),
        ('meter', 'max_age', '0', 0.0),
        ('meter', 'keep_open', '2.5', 2.5),
        ('meter', 'decryption_key', KEY, KEY),
        ('meter', 'decryption_key', '', ''),
        ('meter', 'authentication_key', KEY, KEY),
        ('server', 'host', '', ''),
        ('server', 'host', '::1', '::1'),
        ('server', 'port', '0', 0),
        ('server', 'port', '65535', 65535),
        ('server', 'telegram_port', '', None),
        ('server', 'telegram_port', '2001', 2001),
        (
            'server',
            'hosts',
            '\n  a.example.org\n  b.example.org',
            ('a.example.org', 'b.example.org'),
        ),
        (
            'server',
            'hosts',
            'meter.example.org, P1.example.org',
            ('meter.example.org', 'p1.example.org'),
        ),
        ('server', 'cors_origin', '*', '*'),
        ('server', 'cors_origin', 'https://example.org:8443', 'https://example.org:8443'),
        ('server', 'max_connections', '1', 1),
        ('server', 'homewizard_api', 'yes', True),
    ],
)
def test_an_allowed_value_is_accepted(section: str, key: str, text: str, value: Any) -> None:
    """A value that is allowed has its type in the settings."""
    found = getattr(getattr(loaded(f'[{section}]\n{key} = {text}\n'), section), key)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ('section', 'key', 'text'),
    [
        ('meter', 'port', 'ttyUSB0'),
        ('meter', 'port', '/dev/ttyUSB0 ; the cable'),
        ('meter', 'port', '/' + 'x' * 300),
        ('meter', 'port', 'nonsense://host:1'),
        ('meter', 'port', 'socket://host'),
        ('meter', 'port', 'socket://host:0'),
        ('meter', 'port', 'socket://host:x'),
        ('meter', 'port', 'socket://host:65536'),
        ('meter', 'port', 'socket://:2001'),
        ('meter', 'port', 'socket://[::1:2001'),
        ('meter', 'line', '115200'),
        ('meter', 'line', '2400 8N1'),
        ('meter', 'specification', 'V6'),
        ('meter', 'specification', 'v5'),
        ('meter', 'time_zone', 'Europe/Atlantis'),
        ('meter', 'time_zone', 'Europe'),  # a folder of the database
        ('meter', 'time_zone', '+03:00'),
        ('meter', 'time_zone', '/etc/localtime'),
        ('meter', 'time_zone', '../Europe/Helsinki'),
        ('meter', 'timeout', '0'),
        ('meter', 'timeout', '-1'),
        ('meter', 'timeout', 'nan'),
        ('meter', 'timeout', 'inf'),
        ('meter', 'timeout', '1e999'),
        ('meter', 'timeout', '30 s'),
        ('meter', 'timeout', '3601'),
        ('meter', 'max_age', '-0.1'),
        ('meter', 'max_age', 'never'),
        ('meter', 'keep_open', 'yes'),
        ('server', 'port', '-1'),
        ('server', 'port', '65536'),
        ('server', 'port', '80.0'),
        ('server', 'telegram_port', '-1'),
        ('server', 'telegram_port', '65536'),
        pytest.param('server', 'port', '8' * 5000, id='server-port-more digits than int() takes'),
        ('server', 'port', '٨٠'),
        ('server', 'port', '8080 ; the usual one'),
        ('server', 'host', '127.0.0.1 ; only here'),
        ('server', 'hosts', 'a.example.org # mine'),
        ('server', 'max_connections', '0'),
        ('server', 'max_connections', '100000'),
        ('server', 'homewizard_api', 'true'),
        ('server', 'homewizard_api', '1'),
        ('server', 'cors_origin', 'example.org'),
        ('server', 'cors_origin', 'https://example.org/'),
        ('server', 'cors_origin', 'ftp://example.org'),
        ('server', 'cors_origin', 'null'),
        ('server', 'cors_origin', 'https://'),
        ('server', 'cors_origin', 'https://例.org'),
        ('server', 'cors_origin', 'https://a.org https://b.org'),
        ('server', 'cors_origin', 'https://[::1'),
        ('server', 'user', 'me:you'),
        ('server', 'certificate', 'none.pem'),
        ('server', 'private_key', '/'),
    ],
)
def test_a_wrong_value_is_refused(section: str, key: str, text: str) -> None:
    """The error names file, section, key and value, and says what is allowed."""
    assert f'[{section}] {key} = {text}: must be ' in refusal(f'[{section}]\n{key} = {text}\n')


@pytest.mark.parametrize(
    ('text', 'named'),
    [
        ('[metre]\n', '[metre]'),
        ('[DEFAULT]\nport = /dev/ttyUSB0\n', '[DEFAULT]'),
        ('[Meter]\n', '[Meter]'),
        (
            '[meter]\nprot = /dev/ttyUSB0\n',
            '[meter] prot: unknown setting; the settings are: port, ',
        ),
        ('[server]\ntimeout = 30\n', '[server] timeout: unknown setting; the settings are: host, '),
        ('[meter]\nport = /dev/ttyUSB0\nport = /dev/ttyUSB1\n', '[meter] port is set twice'),
        ('[meter]\n[server]\n[meter]\n', '[meter] is in the file twice'),
        (
            'port = 8080\n',
            'line 1 is before the first section: [meter] or [server] must be above it',
        ),
        ('# mine\n\nport = 8080\n[server]\n', 'line 3 is before the first section'),
        ('[meter]\nport\n', 'line 2 '),
        ('[meter\nport = /dev/ttyUSB0\n', 'line 1 '),
        ('[meter]\nport = /dev/ttyUSB0\n  line = auto\n', '[meter] port: must be on one line'),
        ('[server]\nhost = 127.0.0.1\n  port = 80\n', '[server] host: must be on one line'),
    ],
)
def test_anything_but_the_known_settings_is_refused(text: str, named: str) -> None:
    """An unknown or repeated section or key is named, and the number of a line that is not a setting."""
    assert named in refusal(text)


@pytest.mark.parametrize(
    ('section', 'line'),
    [
        ('server', 'port = 8081 ; comment'),
        ('server', 'port = 8081 # comment'),
        ('server', 'homewizard_api = yes # comment'),
        ('meter', 'port = /dev/ttyUSB0 ; comment'),
        ('server', 'certificate = none.pem ; comment'),
    ],
)
def test_a_comment_behind_a_value_is_told_where_it_may_be(section: str, line: str) -> None:
    """A value that is refused because a comment follows it is refused with that reason."""
    assert refusal(f'[{section}]\n{line}\n').endswith('(a comment must be on a line of its own)')


def test_a_wrong_value_without_a_comment_is_not_told_about_comments() -> None:
    """Where there is no comment, none is mentioned."""
    assert 'comment' not in refusal('[server]\nport = 80 81\n')


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    """A file that Windows' Notepad has saved, with a byte order mark, is read like any other."""
    FILE.write_bytes(b'\xef\xbb\xbf[server]\r\nport = 8123\r\n')
    assert load(FILE).server.port == 8123


def test_a_file_in_another_encoding_is_refused() -> None:
    """Bytes that are not UTF-8 are refused."""
    assert 'must be text in UTF-8' in refusal(b'[server]\nuser = \xff\xfe\n')


@pytest.mark.parametrize('path', ['missing.ini', '.'])
def test_a_file_that_cannot_be_read_is_refused(path: str) -> None:
    """A file that does not exist, or is a folder, is named with the reason."""
    with pytest.raises(ConfigError, match=rf'^{path}: \w+.*$'):
        load(Path(path))


@pytest.mark.parametrize('key', ['decryption_key', 'authentication_key'])
@pytest.mark.parametrize(
    'text',
    [
        KEY[1:],
        KEY + '0',
        KEY + KEY,
        'x' + KEY[1:],
        '0x' + KEY[2:],
        ' '.join(KEY),
        KEY[:-1] + '٣',
        '0',
    ],
)
def test_a_wrong_key_is_refused_and_not_shown(key: str, text: str) -> None:
    """A key is 32 hexadecimal digits; the error says so without the key."""
    assert (
        refusal(f'[meter]\n{key} = {text}\n')
        == f'{FILE}: [meter] {key} = …: must be 32 hexadecimal digits (0-9 and a-f)'
    )


@pytest.mark.parametrize(
    'line', [f'decryption_key {KEY}', f'  {KEY}', f'[meter]\ndecryption_key {KEY}']
)
def test_a_line_that_is_not_a_setting_is_not_shown(line: str) -> None:
    """A secret is not shown when its line has no '='."""
    assert KEY not in refusal(f'{line}\n')


def test_a_password_is_read_character_by_character() -> None:
    """No character has a special meaning in a password."""
    server = loaded('[server]\nuser = José\npassword = per%cent ${ign} = "quote" # é\n').server
    assert (server.user, server.password) == ('José', 'per%cent ${ign} = "quote" # é')


def test_secrets_are_not_in_the_representation() -> None:
    """A traceback or a log that shows a configuration does not show its secrets."""
    shown = repr(
        loaded(f'[meter]\ndecryption_key = {KEY}\n[server]\nuser = me\npassword = geheim\n')
    )
    assert KEY not in shown and 'geheim' not in shown and "user='me'" in shown


SECRETS = [
    ('meter', 'decryption_key', KEY),
    ('meter', 'authentication_key', KEY),
    ('server', 'password', 'geheim'),
]


def with_user(section: str, settings: str) -> str:
    """A section with these settings, and in [server] with the user without whom a password is refused."""
    user = 'user = me\n' if section == 'server' else ''
    return f'[{section}]\n{settings}{user}'


@pytest.mark.parametrize(('section', 'key', 'secret'), SECRETS)
def test_a_secret_may_be_in_a_separate_file(
    section: str, key: str, secret: str, tmp_path: Path
) -> None:
    """The file's name is relative to the folder of config.ini; its line end is not part of the secret."""
    Path('secret').write_text(f'{secret}\n')
    FILE.write_text(with_user(section, f'{key}_file = secret\n'))
    os.chdir('/')
    assert getattr(getattr(load(tmp_path / FILE), section), key) == secret


@pytest.mark.parametrize(('section', 'key', 'secret'), SECRETS)
def test_a_secret_may_be_a_credential_of_the_service(
    section: str, key: str, secret: str, tmp_path: Path
) -> None:
    """A secret that config.ini does not set is read from the file of that name in systemd's folder of credentials."""
    credentials = tmp_path / 'credentials'
    credentials.mkdir()
    (credentials / key).write_text(f'{secret}\n')
    FILE.write_text(with_user(section, ''))
    assert getattr(getattr(load(FILE, credentials), section), key) == secret
    FILE.write_text(with_user(section, f'{key} = {secret[::-1]}\n'))
    assert getattr(getattr(load(FILE, credentials), section), key) == secret[::-1]


@pytest.mark.parametrize(('section', 'key', 'secret'), SECRETS)
@pytest.mark.parametrize('content', [None, b'\xff\xfe'])
def test_a_wrong_file_for_a_secret_is_refused(
    section: str, key: str, secret: str, content: bytes | None
) -> None:
    """A secret's file that is missing or not text is named with its setting; a secret cannot be set twice."""
    if content:
        Path('secret').write_bytes(content)
    complaint = refusal(with_user(section, f'{key}_file = secret\n'))
    assert f'[{section}] {key}: the file secret ' in complaint
    complaint = refusal(with_user(section, f'{key} = {secret}\n{key}_file = secret\n'))
    assert (
        f'{key} and {key}_file: only one of them may be set' in complaint
        and secret not in complaint
    )


@pytest.mark.parametrize(
    ('text', 'named'),
    [
        ('user = me', 'user and password'),
        ('password = geheim', 'user and password'),
        ('certificate = config.ini', 'certificate and private_key'),
        ('private_key = config.ini', 'certificate and private_key'),
    ],
)
def test_half_of_a_pair_is_refused(text: str, named: str) -> None:
    """A user without a password, or a certificate without its key, would protect nothing."""
    complaint = refusal(f'[server]\n{text}\n')
    assert f'{named}: must be set together' in complaint and 'geheim' not in complaint


WITH_PASSWORD = 'user = me\npassword = geheim\n'  # noqa: S105 lines of config.ini


@pytest.mark.parametrize('host', ['', '::', '192.0.2.1', 'meter.example.org'])
def test_telegrams_without_a_password_are_refused_beside_one(host: str) -> None:
    """Telegrams need no password, so a telegram port would make one useless: it is refused on any host but this."""
    complaint = refusal(f'[server]\nhost = {host}\ntelegram_port = 2001\n{WITH_PASSWORD}')
    assert '[server] telegram_port and user: ' in complaint and 'geheim' not in complaint
    assert loaded(f'[server]\nhost = {host}\ntelegram_port = 2001\n').server.telegram_port == 2001


@pytest.mark.parametrize('host', ['127.0.0.1', '127.0.0.2', '::1', 'localhost'])
def test_a_telegram_port_is_allowed_beside_a_password_on_this_host(host: str) -> None:
    """On loopback both may be set."""
    settings = loaded(f'[server]\nhost = {host}\ntelegram_port = 2001\n{WITH_PASSWORD}').server
    assert (settings.telegram_port, settings.user) == (2001, 'me')


@pytest.mark.parametrize('text', ['telegram_port = 8080', 'telegram_port = 81\nport = 81'])
def test_the_same_port_twice_is_refused(text: str) -> None:
    """telegram_port must differ from port, also from its default; as 0, any free port, both may be set."""
    assert ': must be another number than port' in refusal(f'[server]\n{text}\n')
    assert loaded('[server]\nport = 0\ntelegram_port = 0\n').server.telegram_port == 0


@contextmanager
def who_may_not_read() -> Iterator[None]:
    """A block in which the process is an ordinary user: root may read everything."""
    real = os.getuid()
    effective = os.geteuid()
    if effective != 0:
        yield
        return
    os.setreuid(NOBODY, effective)
    try:
        yield
    finally:
        os.setreuid(real, effective)


def test_a_file_that_this_user_may_not_read_is_refused() -> None:
    """A certificate without the permission to read it is named with its setting, before the server needs it."""
    for name in 'certificate', 'key':
        Path(name).touch(mode=0)
    text = '[server]\ncertificate = certificate\nprivate_key = key\n'
    with who_may_not_read():
        complaint = refusal(text)
    assert '[server] certificate = certificate: must be a file that this user can read' in complaint


def test_more_clients_than_there_are_files_for_are_refused() -> None:
    """max_connections and max_streams are limited together where telegram clients need files of their own."""
    text = '[server]\nmax_connections = 600\nmax_streams = '
    assert loaded(f'{text}301\n').server.max_streams == 301
    assert loaded(f'{text}300\ntelegram_port = 2001\n').server.max_streams == 300
    complaint = refusal(f'{text}301\ntelegram_port = 2001\n')
    assert '[server] max_connections and max_streams: must be at most 900 together' in complaint
    assert 'telegram_port' in complaint


def test_an_unwise_configuration_has_warnings() -> None:
    """A secret in a file that everybody can read is a warning, and so is a password that is sent as plain text."""
    text = '[server]\nuser = me\npassword = geheim\n'
    loaded(text)
    FILE.chmod(0o644)
    readable, plain = load(FILE).warnings
    assert f'{FILE} contains password and ' in readable and 'chmod' in readable
    assert 'plain text' in plain and 'geheim' not in readable + plain
    FILE.chmod(0o600)
    assert load(FILE).warnings == (plain,)
    assert loaded(f'{text}host = 127.0.0.1\n').warnings == ()


def test_telegrams_without_proof_are_a_warning() -> None:
    """That the checksum is ignored is said at each start."""
    (warning,) = loaded('[meter]\nchecksum = ignore\n').warnings
    assert 'served without proof' in warning
    assert loaded('[meter]\nchecksum = auto\n').warnings == ()
