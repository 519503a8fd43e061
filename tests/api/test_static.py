"""Bodies that never change: which variant a client gets, and when it need not get it again."""

import gzip
from http import HTTPStatus

import pytest

from dsmr_rest.api.places import FollowerPlaces
from dsmr_rest.api.service import Service
from dsmr_rest.api.static import StaticBody, static
from dsmr_rest.config import MeterSettings, ServerSettings
from dsmr_rest.http.message import Request, Response, parse_request
from dsmr_rest.meter.meter import Meter
from dsmr_rest.p1.reader import P1Reader
from tests.conftest import MISSING_PORT

TEXT = b'a line that comes again and again\n' * 100


def request(**fields: str) -> Request:
    """A request with these header fields, in whose names an underscore is a hyphen."""
    lines = ['GET /text HTTP/1.1', 'Host: meter']
    lines += [f'{name.replace("_", "-")}: {value}' for name, value in fields.items()]
    return parse_request('\r\n'.join(lines).encode())


def response(body: StaticBody, **fields: str) -> Response:
    return body.response(request(**fields), {'Referrer-Policy': 'no-referrer'})


def test_it_is_compressed_for_who_accepts_it() -> None:
    """A client that accepts gzip gets far fewer bytes, which are the same text; another gets the text itself."""
    body = StaticBody(TEXT, 'text/plain')
    plain = response(body)
    compressed = response(body, Accept_Encoding='br, gzip')
    assert plain.body == TEXT
    assert 'Content-Encoding' not in plain.headers
    assert compressed.headers['Content-Encoding'] == 'gzip'
    assert gzip.decompress(compressed.body) == TEXT
    assert len(compressed.body) < len(TEXT) / 10


def test_each_variant_has_its_own_tag() -> None:
    """A tag stands for exactly the bytes that came with it, and caches are told what they depend on."""
    body = StaticBody(TEXT, 'text/plain', vary='Accept-Language')
    plain = response(body)
    compressed = response(body, Accept_Encoding='gzip')
    assert plain.headers['ETag'] != compressed.headers['ETag']
    assert plain.headers['ETag'] != response(StaticBody(TEXT[1:], '')).headers['ETag']
    for variant in (plain, compressed):
        assert variant.headers['Vary'] == 'Accept-Encoding, Accept-Language'
        assert variant.headers['Cache-Control'] == 'no-cache'
        assert variant.headers['Referrer-Policy'] == 'no-referrer'


@pytest.mark.parametrize('form', ['{}', 'W/{}', '"other", {}', '"other" ,W/{}', '*'])
@pytest.mark.parametrize('encoding', ['', 'gzip'])
def test_a_known_body_is_not_sent_again(form: str, encoding: str) -> None:
    """A client that states the tag it has gets 304, with the fields that 200 would have but for the body's."""
    body = StaticBody(TEXT, 'text/plain')
    whole = response(body, Accept_Encoding=encoding)
    again = response(
        body, Accept_Encoding=encoding, If_None_Match=form.format(whole.headers['ETag'])
    )
    assert (again.status, again.body, again.content_type) == (HTTPStatus.NOT_MODIFIED, b'', '')
    kept = dict(whole.headers)
    kept.pop('Content-Encoding', None)
    assert again.headers == kept


def test_the_tag_of_another_variant_does_not_count() -> None:
    """A client that has the plain text and now asks for gzip gets gzip."""
    body = StaticBody(TEXT, 'text/plain')
    tag = response(body).headers['ETag']
    assert response(body, Accept_Encoding='gzip', If_None_Match=tag).status == HTTPStatus.OK
    assert response(body, If_None_Match=f'"x{tag[1:]}').status == HTTPStatus.OK


def test_it_is_loaded_once() -> None:
    """With the first request for it."""
    loaded = []

    def load() -> StaticBody:
        loaded.append(StaticBody(TEXT, 'text/plain'))
        return loaded[-1]

    handler = static(load)
    assert loaded == []
    meter = Meter(P1Reader(MeterSettings(port=MISSING_PORT)))
    service = Service(ServerSettings(), meter, FollowerPlaces(1))
    for _ in range(2):
        assert handler(service, request()).body == TEXT
    assert len(loaded) == 1
