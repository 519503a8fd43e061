"""What the tests with a browser share. Selenium is imported only where one is wanted: other tests do without it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Server
from tests.dashboard_page import NO_SELENIUM, PHONE, OpenPage, Page
from tests.system_packages import program

if TYPE_CHECKING:
    from selenium import webdriver


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator['webdriver.Chrome']:
    """Chromium, which takes seconds to start."""
    pytest.importorskip('selenium', reason=NO_SELENIUM)
    from benchmarks.screenshot import chromium  # noqa: PLC0415 it imports selenium

    programs = program('chromium', 'chromium'), program('chromedriver', 'chromium-driver')
    started = chromium(tmp_path_factory.mktemp('chromium'), *programs)
    yield started
    started.quit()


@pytest.fixture
def open_page(browser: 'webdriver.Chrome') -> Iterator[OpenPage]:
    """Opens the dashboard of a server for a reader of these languages, on a phone unless the width is another."""
    from benchmarks.screenshot import emulate, prefer_languages  # noqa: PLC0415 it imports selenium

    def start(
        server: Server,
        languages: str = 'en-GB,en',
        width: int = PHONE,
        address: str = '127.0.0.1',
    ) -> Page:
        emulate(browser, width, prefers_reduced_motion='reduce')
        prefer_languages(browser, languages)
        browser.get(f'http://{address}:{server.port}/dashboard')
        return Page(browser)

    yield start
    browser.get('about:blank')  # ends the page's stream
    browser.get_log('browser')  # type: ignore[no-untyped-call]
