"""How /dashboard is laid out, in a real Chromium: on narrow screens, with large letters, without JavaScript, hidden."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dsmr_rest.api.dashboard.files import LANGUAGES
from tests.conftest import MISSING_PORT, Server, StartServer, new_meter, wait_for
from tests.dashboard_page import DESKTOP, NARROWEST, NO_SELENIUM, OpenPage, Page, show_window

if sys.platform != 'linux':
    pytest.skip('Chromium is driven as Debian has it', allow_module_level=True)

pytest.importorskip('selenium', reason=NO_SELENIUM)

METERS = ('5.0', 'belgium', 'sweden')
LARGE_LETTERS = 32
"""Pixels: twice what browsers begin with (WCAG 2.2, 1.4.4)."""
MOST_BLANK = 1 / 4
"""Of the height of a card."""

OUTSIDE = """
const outside = [];
const isShown = node => node.checkVisibility() && !node.closest('svg, .unseen')
    && !(node.closest('thead') && getComputedStyle(node.closest('thead')).position === 'absolute');
for (const box of document.querySelectorAll('section, header, footer')) {
  const {left, right} = box.getBoundingClientRect();
  for (const node of [...box.querySelectorAll('*')].filter(isShown)) {
    for (const text of [...node.childNodes].filter(child => child.nodeType === 3 && child.data.trim())) {
      const range = document.createRange();
      range.selectNodeContents(text);
      const {left: begin, right: end} = range.getBoundingClientRect();
      if (begin < left || end > right) outside.push([text.data, begin, end, left, right]);
    }
  }
}
return outside;
"""
"""The texts that stick out of their card."""

LINES = """
const lines = node => {
  const range = document.createRange();
  range.selectNodeContents(node);
  return new Set([...range.getClientRects()].filter(box => box.width).map(box => Math.round(box.bottom))).size;
};
const isShown = node => node.checkVisibility() && node.textContent;
const numbers = [...document.querySelectorAll('#amount, td:not(.time)')].filter(isShown);
return numbers.map(node => [node.textContent, lines(node)]);
"""
"""The numbers of the page, and on how many lines each is."""

BLANKS = """
return [...document.querySelectorAll('main > section:not(#plot)')].filter(card => card.checkVisibility()).map(card => {
  const {height, bottom} = card.getBoundingClientRect();
  const ends = [...card.querySelectorAll('*')].map(node => node.getBoundingClientRect().bottom);
  return [card.id, (bottom - Math.max(...ends)) / height];
});
"""
"""The part of each card below what is in it."""


def widths(page: Page) -> list[int]:
    """The width of the page and of the screen."""
    return list(
        page.run('const e = document.documentElement; return [e.scrollWidth, e.clientWidth];')
    )


def check_it_fits(page: Page) -> None:
    """Fails when the page is wider than the screen, or a text than its card."""
    wide, room = widths(page)
    assert wide <= room
    assert page.run(OUTSIDE) == []


@contextmanager
def letters_of(page: Page, pixels: int) -> Iterator[None]:
    """The reader's own setting of the browser, for the pages that are opened meanwhile."""
    page.browser.execute_cdp_cmd('Page.setFontSizes', {'fontSizes': {'standard': pixels}})
    try:
        yield
    finally:
        page.browser.execute_cdp_cmd('Page.setFontSizes', {'fontSizes': {'standard': 16}})


def await_readings(page: Page) -> None:
    """Waits until the page shows a second reading."""
    wait_for(lambda: page.points > 1)


def open_all_details(page: Page) -> None:
    page.run("document.querySelectorAll('details').forEach(node => { node.open = true; })")


@pytest.mark.parametrize('version', METERS)
def test_320_pixels_are_wide_enough(
    version: str, start_server: StartServer, open_page: OpenPage
) -> None:
    """In every language the page fits 320 CSS px (WCAG 1.4.10), live, with all details open."""
    with new_meter(version, interval=0.2) as meter:
        server = start_server(meter.port)
        for language in LANGUAGES:
            page = open_page(server, language, NARROWEST)
            await_readings(page)
            open_all_details(page)
            check_it_fits(page)


def test_320_pixels_are_wide_enough_for_a_problem(
    start_server: StartServer, open_page: OpenPage
) -> None:
    """In every language the page fits 320 CSS px when there is no reading to show, with all details open."""
    with new_meter(interval=0.2) as meter:
        server = start_server(meter.port)
        page = open_page(server, width=NARROWEST)
        await_readings(page)
        meter.unplug()
        for language in LANGUAGES:
            page = open_page(server, language, NARROWEST)
            page.await_text('trouble', '.')
            open_all_details(page)
            check_it_fits(page)


@pytest.mark.parametrize('width', [NARROWEST, 390, 768])
def test_letters_of_twice_the_size_fit(
    width: int, start_server: StartServer, open_page: OpenPage
) -> None:
    """With letters of twice the size everything fits, and no number is broken into two lines, where it is misread."""
    with new_meter('belgium', interval=0.2) as meter:
        server = start_server(meter.port)
        for language in LANGUAGES:
            page = open_page(server, language, width)
            with letters_of(page, LARGE_LETTERS):
                page = open_page(server, language, width)
                await_readings(page)
                open_all_details(page)
                size = page.run('return getComputedStyle(document.body).fontSize')
                assert size == f'{LARGE_LETTERS}px'
                check_it_fits(page)
                lines = page.run(LINES)
                assert len(lines) > 20
                assert [text for text, count in lines if count != 1] == []


ROWS_ARE_FULL = """
const cards = [...document.querySelectorAll('main > *')].filter(card => card.checkVisibility());
const boxes = cards.map(card => card.getBoundingClientRect());
const main = document.querySelector('main').getBoundingClientRect();
const room = main.width - 2 * parseFloat(getComputedStyle(document.querySelector('main')).paddingLeft);
const rows = Map.groupBy(boxes, box => Math.round(box.top));
return [...rows.values()].every(row => {
    const filled = row.at(-1).right - row[0].left;
    return Math.abs(filled - room) < 2;
});
"""
"""Whether the cards of each row reach from the left to the right."""


@pytest.mark.parametrize('version', [*METERS, '2.2'])
def test_cards_are_as_high_as_what_is_in_them(
    version: str, start_server: StartServer, open_page: OpenPage
) -> None:
    """On a wide screen no card is blank in its lower part, and a card that is alone in its row has all of it."""
    with new_meter(version, interval=0.2) as meter:
        server = start_server(meter.port)
        for width in (760, DESKTOP, 1600):
            page = open_page(server, width=width)
            await_readings(page)
            blanks = page.run(BLANKS)
            assert blanks
            assert [card for card in blanks if card[1] > MOST_BLANK] == []
            assert page.run(ROWS_ARE_FULL), width


def test_times_of_peaks_are_when_they_occurred(
    start_server: StartServer, open_page: OpenPage
) -> None:
    """In French a peak has occurred at its time, and a gas meter was read at its."""
    with new_meter('belgium', interval=0.2) as meter:
        page = open_page(start_server(meter.port), 'fr-BE', DESKTOP)
        page.await_text('demand', 'Survenue le')
        assert 'Relevé le' in page.text('devices')
        assert 'Relevé' not in page.text('demand')


def plain_page(page: Page) -> dict[str, Any]:
    script = """const plain = document.getElementById('plain');
        return {text: plain.innerText, visibility: getComputedStyle(plain).visibility,
            links: [...plain.querySelectorAll('a')].map(link => link.getAttribute('href')),
            cards: [...document.querySelectorAll('section')].filter(card => card.checkVisibility()).length,
            title: document.title};"""
    return dict(page.run(script))


WITHOUT_JAVASCRIPT = {
    'fr-BE,fr': ('fr', 'Compteur intelligent', 'il nécessite JavaScript'),
    'nl-BE,nl': ('nl', 'Slimme meter', 'daarvoor is JavaScript nodig'),
    'is-IS': ('en', 'Smart meter', 'it needs JavaScript'),
}
"""The language, the title and some words of the page, by the languages of the reader."""


@pytest.mark.parametrize('languages', WITHOUT_JAVASCRIPT)
def test_without_javascript_it_says_so(
    languages: str, start_server: StartServer, open_page: OpenPage
) -> None:
    """Without JavaScript there is one card, in the reader's language: what is missing, and four links that work."""
    language, title, sentence = WITHOUT_JAVASCRIPT[languages]
    server = start_server(MISSING_PORT)
    page = open_page(server)
    page.browser.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': True})
    try:
        page = open_page(server, languages, NARROWEST)
        seen = plain_page(page)
        assert page.language == language
        assert (seen['title'], seen['visibility'], seen['cards']) == (title, 'visible', 1)
        assert sentence in seen['text']
        assert seen['links'] == ['./', 'telegram', 'metrics', 'health']
        check_it_fits(page)
    finally:
        page.browser.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': False})


def test_with_javascript_that_is_never_seen(start_server: StartServer, open_page: OpenPage) -> None:
    """When the page has started, nothing is left of what it says without JavaScript."""
    page = open_page(start_server(MISSING_PORT))
    page.await_text('state', 'Meter lost')
    assert not page.browser.find_elements('id', 'plain')


def test_numbers_keep_their_order_among_letters_from_right_to_left(
    start_server: StartServer, open_page: OpenPage
) -> None:
    """Numbers have a direction of their own, and in a page from right to left everything fits as well."""
    with new_meter('belgium', interval=0.2) as meter:
        server = start_server(meter.port)
        page = open_page(server, 'ps-AF,ps', NARROWEST)
        wait_for(lambda: page.points > 1)
        assert (
            page.run('return document.documentElement.dir') == 'ltr'
        )  # of the texts, which are English
        for width in (NARROWEST, DESKTOP):
            page = open_page(server, 'ar-EG,ar', width)
            await_readings(page)
            page.run("document.documentElement.dir = 'rtl'")
            open_all_details(page)
            check_it_fits(page)
            directions = page.run("""return [...document.querySelectorAll('#phases td, #number, #demand-now')]
                .map(node => getComputedStyle(node).direction);""")
            assert set(directions) == {'ltr'}
        note = page.run("return document.getElementById('peak-note').textContent")
        assert '\u2068' in note and note.index('\u2068') < note.index('kW') < note.index('\u2069')


def has_room_for_a_stream(server: Server) -> bool:
    """Whether the server accepts one more stream."""
    with server.connect() as client:
        client.sendall(b'GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
        return client.recv(65536).startswith(b'HTTP/1.1 200 ')


def test_a_hidden_page_closes_its_stream(start_server: StartServer, open_page: OpenPage) -> None:
    """A page that is out of sight gives its stream back after some seconds, and is live at once when it is shown."""
    with new_meter(interval=0.5) as meter:
        server = start_server(meter.port, server={'max_streams': 1})
        page = open_page(server)
        page.await_text('state', 'Live')
        assert not has_room_for_a_stream(server)
        show_window(page.browser, 'minimized')
        try:
            wait_for(lambda: has_room_for_a_stream(server))
            assert page.run('return document.visibilityState') == 'hidden'
            assert page.run('return document.body.className.includes("stale")')
        finally:
            show_window(page.browser, 'normal')
        page.await_text('state', 'Live')
        wait_for(lambda: page.curve.count('M') == 2)  # the time in between is a gap
        assert not has_room_for_a_stream(server)


def test_a_page_that_is_left_closes_its_stream_at_once(
    start_server: StartServer, open_page: OpenPage
) -> None:
    """A page that the browser keeps for somebody who goes back has no stream meanwhile, and is live again then."""
    with new_meter(interval=0.5) as meter:
        server = start_server(meter.port, server={'max_streams': 1})
        page = open_page(server)
        page.await_text('state', 'Live')
        assert not has_room_for_a_stream(server)
        # Nothing but this event tells the page: it is not hidden.
        page.run("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
        wait_for(lambda: has_room_for_a_stream(server))
        page.run("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
        page.await_text('state', 'Live')
        wait_for(lambda: not has_room_for_a_stream(server))


def test_a_glance_elsewhere_does_not_interrupt_it(
    start_server: StartServer, open_page: OpenPage
) -> None:
    """A page that is hidden for a moment only goes on as before."""
    with new_meter(interval=0.5) as meter:
        page = open_page(start_server(meter.port))
        page.await_text('state', 'Live')
        show_window(page.browser, 'minimized')
        wait_for(lambda: page.run('return document.visibilityState') == 'hidden')
        show_window(page.browser, 'normal')
        wait_for(lambda: page.run('return document.visibilityState') == 'visible')
        points = page.points
        wait_for(
            lambda: page.points > points + 30
        )  # 15 s: longer than a hidden page keeps its stream
        assert page.curve.count('M') == 1
