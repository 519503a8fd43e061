"""Bodies that never change: compressed once, and revalidated by the clients that keep them.

It does not know what the bodies are, nor where they are served.
"""

import zlib
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from typing import NamedTuple

from dsmr_rest.api.service import Service
from dsmr_rest.http.message import Request, Response
from dsmr_rest.http.negotiation import accepts_gzip

Handler = Callable[[Service, Request], Response]
"""Returns the response to a request for one path."""

_GZIP = 16 + zlib.MAX_WBITS
"""zlib's number for a gzip header (RFC 1952) with the largest window."""
_BEST_COMPRESSION = 9


class _Variant(NamedTuple):
    """The bytes that are sent, their entity tag, and their encoding; empty when they have none."""

    body: bytes
    tag: str
    encoding: str = ''


class StaticBody:
    """A body that a client may keep and revalidate (RFC 9110 13.1.2). It is compressed once, when this is made.

    Which variant a client gets depends on its Accept-Encoding, so caches are told (Vary), and each variant has an
    entity tag of its own (RFC 9110 8.8.3.3). `vary` names further fields of the request that the body depends on.
    """

    def __init__(self, body: bytes, content_type: str, vary: str = '') -> None:
        self._content_type = content_type
        self._vary = 'Accept-Encoding'
        if vary:
            self._vary += f', {vary}'
        compressed = _gzip(body)
        self._plain = _Variant(body, _tag(body))
        self._compressed = _Variant(compressed, _tag(compressed), 'gzip')

    def response(self, request: Request, headers: Mapping[str, str] | None = None) -> Response:
        """The response to a request: 304 when the client has the body already. `headers` are further header fields."""
        accept_encoding = request.headers.get('accept-encoding', '')
        variant = self._plain
        if accepts_gzip(accept_encoding):
            variant = self._compressed
        fields = {
            'ETag': variant.tag,
            'Cache-Control': 'no-cache',
            'Vary': self._vary,
            **(headers or {}),
        }
        if_none_match = request.headers.get('if-none-match', '')
        if _is_known(variant.tag, if_none_match):
            return Response(b'', '', HTTPStatus.NOT_MODIFIED, fields)
        if variant.encoding:
            fields['Content-Encoding'] = variant.encoding
        return Response(variant.body, self._content_type, headers=fields)


def _tag(body: bytes) -> str:
    """The entity tag, which stands for exactly these bytes (RFC 9110 8.8.3)."""
    checksum = zlib.crc32(body)
    return f'"{checksum:08x}"'


def _gzip(body: bytes) -> bytes:
    compressor = zlib.compressobj(_BEST_COMPRESSION, zlib.DEFLATED, _GZIP)
    beginning = compressor.compress(body)
    end = compressor.flush()
    return beginning + end


def _is_known(tag: str, if_none_match: str) -> bool:
    """Whether a client has what the tag stands for (RFC 9110 13.1.2, compared weakly)."""
    for stated in if_none_match.split(','):
        known = stated.strip()
        if known == '*':
            return True
        if known.removeprefix('W/') == tag:
            return True
    return False


def static(load: Callable[[], StaticBody]) -> Handler:
    """A handler for a body, which is loaded with the first request: most servers are never asked for it."""
    loaded = cache(load)

    def handler(_: Service, request: Request) -> Response:
        return loaded().response(request)

    return handler
