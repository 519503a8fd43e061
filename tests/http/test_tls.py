"""HTTP over TLS."""

import http.client
import ssl
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import (
    HOST,
    MISSING_PORT,
    SERVER_COMMAND,
    UNKNOWN,
    Server,
    StartServer,
    receive_all,
    split_responses,
    write_config,
)
from tests.faulty_meter import FaultyMeter


def accepts_tls(server: Server, version: str) -> bool:
    """Whether a server accepts this version of TLS."""
    command = ['openssl', 's_client', '-connect', f'127.0.0.1:{server.port}', f'-{version}']
    # The client's own security would refuse the old ones.
    command += [
        '-cipher',
        'DEFAULT@SECLEVEL=0',
        '-brief',
    ]
    return subprocess.run(command, input=b'', capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize('method', ['GET', 'HEAD', 'OPTIONS', 'BREW'])
def test_plain_http_is_told_to_use_https(
    method: str, start_server: StartServer, certificate: Mapping[str, Path]
) -> None:
    """Plain HTTP to a port with TLS gets 400 in plain text that says https; what is neither gets nothing."""
    server = start_server(MISSING_PORT, server=certificate)
    received = server.raw(f'{method} / HTTP/1.1\r\n{HOST}\r\n'.encode())
    (response,) = split_responses(received, method)
    assert response.status == 400
    assert response.headers['Content-Type'].startswith('text/plain')
    assert response.headers['Connection'] == 'close'
    if method != 'HEAD':
        assert b'https://' in response.body


def test_tls_1_2_has_no_cbc(start_server: StartServer, certificate: Mapping[str, Path]) -> None:
    """A client of TLS 1.2 that only has suites with CBC is refused, others have forward secrecy."""
    server = start_server(MISSING_PORT, server=certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with server.connect() as client, context.wrap_socket(client) as encrypted:
        suite = encrypted.cipher()
        assert suite is not None and suite[0].startswith('ECDHE-')
    context.set_ciphers('ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384:@SECLEVEL=0')
    with server.connect() as client, pytest.raises(ssl.SSLError):
        context.wrap_socket(client)


def test_tls(
    start_server: StartServer, meter: FaultyMeter, certificate: Mapping[str, Path]
) -> None:
    """With certificate and key the server uses HTTPS, TLS 1.2 or later; silent and foreign clients delay nobody."""
    server = start_server(meter.port, server=certificate)
    assert server.url.startswith('https://')
    context = ssl.create_default_context(cafile=certificate['certificate'])
    with server.connect(), server.connect() as plain, server.connect() as garbled:
        plain.sendall(f'GET / HTTP/1.1\r\n{HOST}\r\n'.encode())
        garbled.sendall(b'\x16\x03\x01\xff\xff' + bytes(99))
        for _ in range(2):
            connection = http.client.HTTPSConnection(
                '127.0.0.1', server.port, timeout=8, context=context
            )
            with closing(connection):
                connection.request('GET', '/telegram')
                response = connection.getresponse()
                assert (response.status, response.read()[:1]) == (200, b'/')
        accepted = [
            version
            for version in ('tls1', 'tls1_1', 'tls1_2', 'tls1_3')
            if accepts_tls(server, version)
        ]
        assert accepted == ['tls1_2', 'tls1_3']
    # A close_notify alert must end the connection: without it, receiving would raise an error here.
    raw = context.wrap_socket(
        server.connect(), server_hostname='127.0.0.1', suppress_ragged_eofs=False
    )
    with raw:
        raw.sendall(f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n'.encode())
        receive_all(raw)
    assert server.stop() == 0
    assert server.log == ''


@pytest.mark.parametrize(
    'files',
    [
        {'certificate': 'none.pem', 'private_key': 'key.pem'},
        {'certificate': 'certificate.pem', 'private_key': 'certificate.pem'},
        {'certificate': 'certificate.pem', 'private_key': 'other.pem'},
        {'certificate': 'certificate.pem', 'private_key': 'encrypted.pem'},
    ],
)
def test_a_wrong_file_for_tls_is_refused(
    files: Mapping[str, str], certificate: Mapping[str, Path]
) -> None:
    """A certificate or key that is missing, not a key, of another pair or encrypted ends the start with one line."""
    folder = certificate['certificate'].parent
    key = certificate['private_key']
    for command in (
        [
            'genpkey',
            '-algorithm',
            'EC',
            '-pkeyopt',
            'ec_paramgen_curve:prime256v1',
            '-out',
            str(folder / 'other.pem'),
        ],
        [
            'pkey',
            '-in',
            str(key),
            '-aes256',
            '-passout',
            'pass:geheim',
            '-out',
            str(folder / 'encrypted.pem'),
        ],
    ):
        subprocess.run(['openssl', *command], check=True, capture_output=True)
    paths = {setting: folder / name for setting, name in files.items()}
    config = write_config(folder, {}, paths)
    command = [*SERVER_COMMAND, '--config', config]
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.count('\n') == 1
    assert any(str(path) in ended.stderr for path in paths.values())
