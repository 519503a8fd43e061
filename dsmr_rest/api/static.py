"""Bodies that never change: loaded with their first request, and revalidated by the clients that keep them.

It does not know what the bodies are.
"""

import zlib
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus

from dsmr_rest.api.service import Service
from dsmr_rest.http.message import Request, Response

Handler = Callable[[Service, Request], Response]
"""Returns the response to a request for one path."""


def static(
    load: Callable[[], bytes], content_type: str, headers: Mapping[str, str] | None = None
) -> Handler:
    """A handler for a body that never changes, which a client may keep and revalidate (RFC 9110 13.1.2).

    It is loaded with the first request, because most servers are never asked for it.
    """

    @cache
    def loaded() -> tuple[bytes, str]:
        body = load()
        return body, f'"{zlib.crc32(body):08x}"'

    def handler(_: Service, request: Request) -> Response:
        body, tag = loaded()
        fields = {'ETag': tag, 'Cache-Control': 'no-cache', **(headers or {})}
        known_tags = request.headers.get('if-none-match', '')
        is_known = known_tags == '*' or tag in known_tags
        if is_known:
            return Response(b'', '', HTTPStatus.NOT_MODIFIED, fields)
        return Response(body, content_type, headers=fields)

    return handler
