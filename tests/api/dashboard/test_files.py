"""What a browser gets of the dashboard: files that belong together, and the same texts in every language."""

import json
import re
from typing import Any

import pytest

from dsmr_rest.api.dashboard.files import FALLBACK_LANGUAGE, FILES, FOLDER, LANGUAGES, load, page
from dsmr_rest.api.static import StaticBody
from dsmr_rest.faults import METER_FAULTS, Fault
from dsmr_rest.http.message import parse_request
from dsmr_rest.reading.mbus import KINDS
from tests.conftest import MISSING_PORT, StartServer

MODULES = [name for name in FILES if name.endswith('.js')]
NOT_SERVED = {'__init__.py', 'files.py', 'index.html', 'package.json'}
KEPT_BY_CODE = {'problems', 'kinds'}


def content(body: StaticBody) -> str:
    request = parse_request(b'GET / HTTP/1.1\r\nHost: meter')
    return body.response(request).body.decode()


def texts_of(language: str) -> dict[str, Any]:
    texts: dict[str, Any] = json.loads(content(load(f'texts/{language}.json')))
    return texts


def placeholders(text: str) -> list[str]:
    return sorted(re.findall('{.*?}', text))


def test_every_file_of_the_folder_is_served() -> None:
    """A file that is put into the folder is served, except for those that make the page."""
    in_folder = {
        path.relative_to(FOLDER).as_posix()
        for path in FOLDER.rglob('*')
        if path.is_file() and path.suffix != '.pyc'
    }
    assert set(FILES) == in_folder - NOT_SERVED | {'facts.json'}


@pytest.mark.parametrize('language', LANGUAGES)
def test_every_language_has_every_text(language: str) -> None:
    """A language has the texts that English has, none of them empty, with the same values in each."""
    english = texts_of('en')
    texts = texts_of(language)
    assert texts.keys() == english.keys()
    for name in texts.keys() - KEPT_BY_CODE:
        assert texts[name], name
        assert placeholders(texts[name]) == placeholders(english[name]), name
    assert texts['direction'] in {'ltr', 'rtl'}


@pytest.mark.parametrize('language', LANGUAGES)
def test_texts_by_code_are_for_what_there_is(language: str) -> None:
    """A sentence is for a code that the server has, and a name for a kind of device that it knows."""
    texts = texts_of(language)
    assert texts['problems'].keys() <= {fault.code for fault in Fault}
    assert texts['kinds'].keys() <= {kind.name for kind in KINDS.values()}
    for sentence in texts['problems'].values():
        assert re.fullmatch(r'[A-ZÀ-Þ].*[.?]', sentence), sentence


def test_english_has_a_sentence_for_every_problem_of_a_stream() -> None:
    """Why a stream has no reading is said in one sentence of English, whatever the code; other languages may follow."""
    of_a_stream = {fault.code for fault in METER_FAULTS}
    refusals = {Fault.TOO_MANY_CONNECTIONS.code, Fault.INTERNAL_ERROR.code, Fault.UNAUTHORIZED.code}
    assert texts_of('en')['problems'].keys() >= of_a_stream | refusals


def test_kinds_of_devices_are_those_that_the_server_knows() -> None:
    """The page names the kinds of devices that a reading can have, and has no table of them itself."""
    facts = json.loads(content(load('facts.json')))
    assert facts['kinds'] == {str(number): kind.name for number, kind in KINDS.items()}
    assert facts['languages'] == list(LANGUAGES)
    assert KINDS[facts['gasMeter']].name == 'gas'


@pytest.mark.parametrize('language', LANGUAGES)
def test_the_page_is_complete_in_every_language(language: str) -> None:
    """The page has a title, its language and direction, and links to what works without JavaScript."""
    html = content(page(language))
    texts = texts_of(language)
    assert f'<html lang="{language}" dir="{texts["direction"]}">' in html
    assert f'<title>{texts["title"]}</title>' in html
    assert texts['notStarted'] in html
    links = set(re.findall(r'<a href="([^"]*)"', html))
    assert links == {'./', 'telegram', 'metrics', 'health'}
    assert '$' not in html


def test_the_page_requests_its_own_files_only() -> None:
    """The page names every module, so that a browser requests them at once, and nothing of another host."""
    html = content(page('en'))
    preloaded = re.findall(r'<link rel="modulepreload" href="dashboard/(.*?)"', html)
    assert preloaded == MODULES
    for name in re.findall(r'(?:href|src)="dashboard/(.*?)"', html):
        assert name in FILES
    everything = html + ''.join(content(load(name)) for name in FILES)
    assert set(re.findall(r'https?:[^\'" ]*', everything)) == {'http://www.w3.org/2000/svg'}
    assert not re.search(r'<style|<script>| on\w+=|style="|@import|url\((?!#)', html)


@pytest.mark.parametrize('name', MODULES)
def test_modules_import_what_is_served(name: str) -> None:
    """A module imports only modules beside it, and says in its first lines what it is for."""
    source = content(load(name))
    assert source.startswith('/**')
    for imported in re.findall(r"from '(.*?)'", source):
        assert imported.removeprefix('./') in MODULES


def test_every_text_that_the_page_shows_exists() -> None:
    """Each text that the page or a module asks for by name is there."""
    sources = (FOLDER / 'index.html').read_text() + ''.join(content(load(name)) for name in MODULES)
    names = re.findall(r"(?:data-text|data-label)=\"(\w+)\"|phrase\('(\w+)'", sources)
    assert {first or second for first, second in names} <= texts_of('en').keys()


def test_the_language_is_the_readers(start_server: StartServer) -> None:
    """The page comes in the language that the browser prefers, else in English, and caches are told that."""
    server = start_server(MISSING_PORT)
    for preferred, language in (('nl-BE,nl;q=0.9', 'nl'), ('is', FALLBACK_LANGUAGE), ('', 'en')):
        response = server.get('/dashboard', {'Accept-Language': preferred})
        assert f'<html lang="{language}"' in response.body.decode()
        assert 'Accept-Language' in response.headers['Vary']


def test_files_have_their_types_and_are_compressed(start_server: StartServer) -> None:
    """Every file is sent with its type, compressed to who accepts that, and revalidated when it is needed again."""
    server = start_server(MISSING_PORT)
    types = {'css': 'text/css', 'js': 'text/javascript', 'json': 'application/json'}
    for name in FILES:
        response = server.get(f'/dashboard/{name}', {'Accept-Encoding': 'gzip'})
        assert response.status == 200
        assert response.headers['Content-Type'].startswith(types[name.rpartition('.')[2]])
        assert response.headers['Content-Encoding'] == 'gzip'
        assert response.headers['Cache-Control'] == 'no-cache'
        known = {'Accept-Encoding': 'gzip', 'If-None-Match': response.headers['ETag']}
        assert server.get(f'/dashboard/{name}', known).status == 304
    for name in ('', 'index.html', 'files.py', 'texts/', 'texts/xx.json', '../routes.py'):
        assert server.get(f'/dashboard/{name}').status == 404, name


@pytest.mark.parametrize(
    ('cors_origin', 'ancestors'),
    [
        ('', "frame-ancestors 'self'"),
        (
            'http://homeassistant.local:8123',
            "frame-ancestors 'self' http://homeassistant.local:8123",
        ),
        ('*', "frame-ancestors 'self' *"),
    ],
)
def test_a_site_that_may_read_may_frame(
    cors_origin: str, ancestors: str, start_server: StartServer
) -> None:
    """The site in cors_origin, which may read the meter, may show the page in a frame; no other site may."""
    server = start_server(MISSING_PORT, server={'cors_origin': cors_origin})
    policy = server.get('/dashboard').headers['Content-Security-Policy']
    assert policy.split('; ')[-1] == ancestors
    assert 'unsafe-inline' not in policy
