"""The dashboard in a browser, as the tests look at it. tests/programs/conftest.py opens it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.conftest import wait_for

if TYPE_CHECKING:
    from selenium import webdriver

NO_SELENIUM = 'selenium drives the browser: pip install -r requirements-dev.txt'
NARROWEST, PHONE, DESKTOP = 320, 360, 1000
"""Widths of a screen in CSS pixels; the first is the least that WCAG 2.2 asks for (1.4.10)."""
SECTIONS = ('quarter', 'since', 'plot', 'phases', 'totals', 'devices', 'demand')


def plain(text: str) -> str:
    """A text in one line, without the marks (Unicode, UAX 9) that isolate a number in a sentence."""
    return ' '.join(re.sub('[\u2068\u2069]', '', text).split())


class Page:
    """The dashboard in a browser, as it is seen."""

    def __init__(self, browser: 'webdriver.Chrome') -> None:
        self.browser = browser

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def call(self, body: str) -> Any:
        """Runs the body of an async function in which `page` is the page's own module, and returns its result."""
        script = f"""const [done] = arguments;
            const body = async (page) => {{ {body} }};
            import('./dashboard/page.js').then(body).then(done);"""
        return self.browser.execute_async_script(script)

    def text(self, name: str) -> str:
        """What the element of that id shows, in one line, without the marks that isolate a number in a sentence."""
        return plain(self.browser.find_element('id', name).text)

    def await_text(self, name: str, text: str) -> None:
        wait_for(lambda: text in self.text(name))

    def open_details(self, name: str) -> None:
        """Opens what the section of that id keeps for who wants to know more."""
        self.browser.find_element('css selector', f'#{name} summary').click()

    @property
    def language(self) -> str:
        return str(self.run('return document.documentElement.lang'))

    @property
    def shown(self) -> set[str]:
        """The visible sections, of those that depend on the reading."""
        return {name for name in SECTIONS if self.browser.find_element('id', name).is_displayed()}

    @property
    def curve(self) -> str:
        """The path of the plot's curve."""
        return str(self.run("return document.querySelector('.curve').getAttribute('d') || ''"))

    @property
    def points(self) -> int:
        """How many points the plot's curve has."""
        return len(re.findall('[ML]', self.curve))

    @property
    def curve_ends(self) -> tuple[float, float]:
        """Where the plot's curve begins and ends, from 0 at the left edge of the plot to 1 at its right edge."""
        positions = [float(x) for x in re.findall(r'[ML](-?[\d.]+) ', self.curve)]
        script = """const line = document.querySelector('.zero');
            return ['x1', 'x2'].map(name => Number(line.getAttribute(name)));"""
        left, right = self.run(script)
        begin, end = [(x - left) / (right - left) for x in (positions[0], positions[-1])]
        return begin, end

    @property
    def bar(self) -> 'Bar | None':
        """The bar of this quarter-hour's demand; None when none is visible."""
        script = """const bar = document.querySelector('.bar');
            const [whole, fill, mark] = [bar, ...bar.children].map(node => node.getBoundingClientRect());
            return bar.checkVisibility() && {filled: fill.width / whole.width,
                marked: mark.width && (mark.left - whole.left) / whole.width,
                text: bar.getAttribute('aria-valuetext'), colour: getComputedStyle(bar.children[0]).backgroundColor};"""
        seen = self.run(script)
        if not seen:
            return None
        return Bar(
            round(seen['filled'], 1), round(seen['marked'], 1), plain(seen['text']), seen['colour']
        )

    @property
    def colour(self) -> str:
        """The colour of the headline's number."""
        return str(self.run("return getComputedStyle(document.getElementById('amount')).color"))

    @property
    def zero_line_shows(self) -> bool:
        """Whether the plot's zero line lies within the plot."""
        script = """const zero = document.querySelector('.zero');
            if (!zero) return false;
            const [line, plot] = [zero, zero.closest('svg')].map(node => node.getBoundingClientRect());
            return plot.top <= line.top && line.bottom <= plot.bottom;"""
        return bool(self.run(script))

    @property
    def complaints(self) -> list[Any]:
        """What the browser's console shows."""
        return list(self.browser.get_log('browser'))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Bar:
    """A bar as it is seen: its filled part and the place of its mark as parts of its width, its value, its colour."""

    filled: float
    marked: float
    text: str
    colour: str


OpenPage = Callable[..., Page]


def show_window(browser: 'webdriver.Chrome', state: str) -> None:
    """Minimizes the browser's window, which hides the page as another tab does, or makes it normal again."""
    window = browser.execute_cdp_cmd('Browser.getWindowForTarget', {})
    bounds = {'windowId': window['windowId'], 'bounds': {'windowState': state}}
    browser.execute_cdp_cmd('Browser.setWindowBounds', bounds)
