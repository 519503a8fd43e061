"""Pages of other websites that read the meter, in a real Chromium: the recipe in docs/integrations.md, and frames."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Server, StartServer, free_port, new_meter, wait_for
from tests.dashboard_page import NO_SELENIUM, show_window
from tests.faulty_meter import FaultyMeter
from tests.pages import INTEGRATIONS, block

if sys.platform != 'linux':
    pytest.skip('Chromium is driven as Debian has it', allow_module_level=True)

pytest.importorskip('selenium', reason=NO_SELENIUM)

if TYPE_CHECKING:
    from selenium import webdriver

NOTHING = '—'
"""What the recipe shows instead of a value."""
PATIENCE = 120.0
"""Seconds. The page of the recipe connects again after 40 s without a word."""


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves the files of a folder, without a line on stderr for each."""

    timeout = 1.0  # Chromium opens connections that it may never use

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def website(folder: Path) -> Iterator[str]:
    """A website with the files of this folder; its origin."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_recipe(folder: Path, server_url: str) -> Path:
    """Writes the page of the recipe, for this server."""
    page = block(INTEGRATIONS, 'A web page', 'html')
    shown = 'http://raspberrypi.local:8080/'
    assert shown in page
    file = folder / 'index.html'
    file.write_text('<!doctype html><meta charset="utf-8">' + page.replace(shown, server_url))
    return file


@pytest.fixture
def page(browser: 'webdriver.Chrome') -> Iterator['webdriver.Chrome']:
    """The browser, whose page is left at the end, so that no stream stays open."""
    yield browser
    browser.get('about:blank')


def power(page: 'webdriver.Chrome') -> str:
    return str(page.find_element('id', 'power').text)


def await_value(page: 'webdriver.Chrome') -> None:
    wait_for(lambda: float(power(page).replace(NOTHING, 'nan')) >= 0, PATIENCE)


def await_nothing(page: 'webdriver.Chrome') -> None:
    wait_for(lambda: power(page) == NOTHING, PATIENCE)


def has_room_for_a_stream(server: Server) -> bool:
    """Whether the server accepts one more stream."""
    with server.connect() as client:
        client.sendall(b'GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
        return client.recv(65536).startswith(b'HTTP/1.1 200 ')


def test_the_page_shows_no_value_that_is_not_live(
    start_server: StartServer, page: 'webdriver.Chrome', tmp_path: Path
) -> None:
    """The recipe shows the power, nothing while the meter or the server is lost, and the power again after that."""
    settings: dict[str, object] = {'port': free_port()}
    with new_meter(interval=0.2) as meter, website(tmp_path) as origin:
        settings['cors_origin'] = origin
        server = start_server(meter.port, server=settings)
        write_recipe(tmp_path, server.url)
        page.get(f'{origin}/')
        await_value(page)
        meter.unplug()
        await_nothing(page)
        meter.plug_in()
        await_value(page)
        assert server.stop() == 0
        await_nothing(page)
        start_server(meter.port, server=settings)
        await_value(page)


def test_the_page_closes_its_stream_when_it_is_hidden(
    start_server: StartServer, page: 'webdriver.Chrome', meter: FaultyMeter, tmp_path: Path
) -> None:
    """A hidden page of the recipe shows nothing and gives its stream back, until it is shown again."""
    with website(tmp_path) as origin:
        server = start_server(meter.port, server={'cors_origin': origin, 'max_streams': 1})
        write_recipe(tmp_path, server.url)
        page.get(f'{origin}/')
        await_value(page)
        assert not has_room_for_a_stream(server)
        show_window(page, 'minimized')
        try:
            await_nothing(page)
            wait_for(lambda: has_room_for_a_stream(server))
        finally:
            show_window(page, 'normal')
        await_value(page)


def test_a_page_of_another_site_reads_nothing(
    start_server: StartServer, page: 'webdriver.Chrome', meter: FaultyMeter, tmp_path: Path
) -> None:
    """Only a page of the website in cors_origin gets a value."""
    with website(tmp_path) as origin:
        server = start_server(meter.port, server={'cors_origin': 'http://website.example'})
        write_recipe(tmp_path, server.url)
        page.get(f'{origin}/')
        wait_for(lambda: 'CORS' in str(page.get_log('browser')))  # type: ignore[no-untyped-call]
        assert power(page) == NOTHING


def test_a_page_from_a_disk_needs_every_origin(
    start_server: StartServer, page: 'webdriver.Chrome', meter: FaultyMeter, tmp_path: Path
) -> None:
    """A page that is opened from a disk reads the meter when cors_origin is *, and not when it is a website."""
    server = start_server(meter.port, server={'cors_origin': 'http://website.example'})
    file = write_recipe(tmp_path, server.url)
    page.get(file.as_uri())
    wait_for(lambda: 'CORS' in str(page.get_log('browser')))  # type: ignore[no-untyped-call]
    assert power(page) == NOTHING
    assert server.stop() == 0
    open_to_all = start_server(meter.port, server={'cors_origin': '*'})
    write_recipe(tmp_path, open_to_all.url)
    page.get(file.as_uri())
    await_value(page)


@pytest.mark.parametrize('is_allowed', [True, False])
def test_the_dashboard_in_a_frame(
    is_allowed: bool,
    start_server: StartServer,
    page: 'webdriver.Chrome',
    meter: FaultyMeter,
    tmp_path: Path,
) -> None:
    """A page of the website in cors_origin may have the dashboard in a frame, live; a page of another one may not."""
    with website(tmp_path) as origin:
        allowed = origin
        if not is_allowed:
            allowed = 'http://website.example'
        server = start_server(meter.port, server={'cors_origin': allowed})
        (tmp_path / 'index.html').write_text(f'<iframe src="{server.url}dashboard"></iframe>')
        page.get(f'{origin}/')
        page.switch_to.frame(0)
        if is_allowed:
            wait_for(lambda: page.find_element('id', 'state').text == 'Live')
        else:
            wait_for(lambda: 'frame-ancestors' in str(page.get_log('browser')))  # type: ignore[no-untyped-call]
            assert not page.find_elements('id', 'state')
        page.switch_to.default_content()
