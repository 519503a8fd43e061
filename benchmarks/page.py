"""What the dashboard costs a network: the requests of a browser that opens it, sent without a browser.

The tests hold a browser to the same requests (tests/programs/test_dashboard.py).
"""

import gzip
import re
import socket

from dsmr_rest.api.dashboard.files import FALLBACK_LANGUAGE

_NAMED = re.compile(r'(?:href|src)="(dashboard/[^"]+)"')
_ETAG = re.compile(rb'^ETag: (\S+)', re.MULTILINE)


def exchanged(port: int, path: str, known_tag: bytes = b'') -> bytes:
    """All bytes of the response to a request that accepts gzip. `known_tag` is that of what a browser has already."""
    lines = [
        f'GET {path} HTTP/1.1'.encode(),
        b'Host: localhost',
        b'Accept-Encoding: gzip',
        b'Connection: close',
    ]
    if known_tag:
        lines.append(b'If-None-Match: ' + known_tag)
    with socket.create_connection(('127.0.0.1', port), timeout=30) as connection:
        connection.sendall(b'\r\n'.join([*lines, b'', b'']))
        received = b''
        while data := connection.recv(65536):
            received += data
    return received


def opened_page(port: int) -> dict[str, bytes]:
    """The responses, by path, that a browser gets until the page is complete, but for the stream."""
    responses = {'/dashboard': exchanged(port, '/dashboard')}
    _, _, body = responses['/dashboard'].partition(b'\r\n\r\n')
    page = gzip.decompress(body).decode()
    names = {*_NAMED.findall(page), f'dashboard/texts/{FALLBACK_LANGUAGE}.json'}
    for name in sorted(names):
        responses[f'/{name}'] = exchanged(port, f'/{name}')
    return responses


def bytes_of_next_visit(port: int, responses: dict[str, bytes]) -> int:
    """The bytes that travel when a browser opens the page again, which has not changed."""
    total = 0
    for path, response in responses.items():
        match = _ETAG.search(response)
        assert match, path
        total += len(exchanged(port, path, match[1]))
    return total
