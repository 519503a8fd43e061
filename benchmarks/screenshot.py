"""Makes docs/dashboard.png: the dashboard after two minutes, in which twenty minutes pass in the house.

It shows the same moment twice: on a desktop in Dutch, and on a phone in English and dark.

python -m benchmarks.screenshot

Needs the Debian packages chromium and chromium-driver.
"""

import base64
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from selenium import webdriver

from benchmarks.servers import ROOT
from dsmr_rest.simulated.house import DUTCH
from dsmr_rest.simulated.meter import SimulatedMeter
from dsmr_rest.simulated.telegrams import telegram

BEGIN = datetime(2026, 6, 12, 17, 46, tzinfo=DUTCH)
"""At six in the evening the house begins to use more than the solar panels produce."""
PACE = 10
"""Seconds in the house per second."""
INTERVAL = 0.5
"""Seconds between telegrams."""
SECONDS = 120
"""Until the picture is taken."""


@dataclass(frozen=True)
class Screen:
    """Where the dashboard is shown: its width in CSS pixels, the reader's languages, and the colour scheme."""

    width: int
    languages: str
    scheme: str


DESKTOP = Screen(900, 'nl-BE,nl', 'light')
PHONE = Screen(360, 'en-GB,en', 'dark')
SCALE = 1.5
"""Pixels of the picture per CSS pixel."""
OPTIONS = (
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-dev-shm-usage',
    # Otherwise each page has a process of its own, which takes longer to start than the page to load.
    '--disable-site-isolation-trials',
    '--disable-features=IsolateOrigins,site-per-process',
)


def chromium(
    profile: Path, browser: str = 'chromium', driver: str = 'chromedriver'
) -> webdriver.Chrome:
    """A headless Chromium with its own profile and a log of its console. The caller ends it with quit()."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(browser) or browser
    for option in (*OPTIONS, f'--user-data-dir={profile}'):
        options.add_argument(option)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which(driver) or driver))


def emulate(browser: webdriver.Chrome, width: int, height: int = 800, **features: str) -> None:
    """Emulate a screen of this size in CSS pixels, and media features, for example prefers_color_scheme='dark'."""
    screen: dict[str, Any] = {
        'width': width,
        'height': height,
        'deviceScaleFactor': 1,
        'mobile': True,
    }
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)
    media = [{'name': name.replace('_', '-'), 'value': value} for name, value in features.items()]
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': media})


def prefer_languages(browser: webdriver.Chrome, languages: str) -> None:
    """The reader's languages, such as 'nl-BE,nl,en', for the pages that are opened from now on."""
    agent = browser.execute_script('return navigator.userAgent')
    override = {'userAgent': agent, 'acceptLanguage': languages}
    browser.execute_cdp_cmd('Emulation.setUserAgentOverride', override)


def accelerated_house() -> Callable[[], bytes]:
    """A source of a Belgian meter's telegrams, in whose house time passes PACE times as fast."""
    start = time.monotonic()

    def next_telegram() -> bytes:
        passed = (time.monotonic() - start) * PACE
        return telegram('belgium', BEGIN + timedelta(seconds=passed))

    return next_telegram


def open_dashboard(browser: webdriver.Chrome, url: str, screen: Screen) -> None:
    """Opens the dashboard on this screen, in a time zone in which it is the hour that it is in the house."""
    end = BEGIN + timedelta(seconds=SECONDS * PACE)
    ahead = (end.hour - datetime.now(timezone.utc).hour + 12) % 24 - 12
    zone = f'Etc/GMT{-ahead:+d}'  # whose sign is the reverse of the usual one
    browser.execute_cdp_cmd('Emulation.setTimezoneOverride', {'timezoneId': zone})
    emulate(browser, screen.width, prefers_color_scheme=screen.scheme)
    prefer_languages(browser, screen.languages)
    browser.get(f'{url}dashboard')


def page_height(browser: webdriver.Chrome) -> int:
    return int(
        browser.execute_script('return document.documentElement.getBoundingClientRect().height')
    )


def picture_of(browser: webdriver.Chrome, width: int, height: int) -> str:
    """The upper left part of the page of this size in CSS pixels, as a PNG image in base64."""
    clip = {'x': 0, 'y': 0, 'width': width, 'height': height, 'scale': SCALE}
    options = {'clip': clip, 'captureBeyondViewport': True}
    return str(browser.execute_cdp_cmd('Page.captureScreenshot', options)['data'])


def side_by_side(browser: webdriver.Chrome, images: list[str], height: int) -> bytes:
    """A PNG image of these images of that height in CSS pixels, on a transparent ground."""
    tags = [f'<img src="data:image/png;base64,{image}" height="{height}">' for image in images]
    page = f"""<style>
        body {{ margin: 0; padding: 8px; width: max-content; display: flex; gap: 24px; }}
        img {{ border: 1px solid #8886; border-radius: 14px; }}
        </style>{''.join(tags)}"""
    browser.get('data:text/html,<!doctype html>')
    browser.execute_script('document.body.innerHTML = arguments[0]', page)
    transparent = {'color': {'r': 0, 'g': 0, 'b': 0, 'a': 0}}
    browser.execute_cdp_cmd('Emulation.setDefaultBackgroundColorOverride', transparent)
    browser.execute_async_script(
        'Promise.all([...document.images].map(image => image.decode())).then(arguments[0])'
    )
    width, height = browser.execute_script(
        'const box = document.body.getBoundingClientRect(); return [box.width, box.height]'
    )
    return base64.b64decode(picture_of(browser, width, height))


def take_picture(url: str, profiles: Path) -> None:
    """Opens the dashboard on both screens, waits SECONDS, and saves one picture of both."""
    with ExitStack() as stack:
        desktop, phone = [chromium(profiles / name) for name in ('desktop', 'phone')]
        stack.callback(desktop.quit)
        stack.callback(phone.quit)
        open_dashboard(desktop, url, DESKTOP)
        open_dashboard(phone, url, PHONE)
        time.sleep(SECONDS)
        height = page_height(desktop)
        images = [
            picture_of(desktop, DESKTOP.width, height),
            picture_of(phone, PHONE.width, height),
        ]
        image = side_by_side(desktop, images, height)
    picture = ROOT / 'docs' / 'dashboard.png'
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(image)
    print(picture, picture.stat().st_size, 'bytes')


def main() -> None:
    source = accelerated_house()
    with (
        tempfile.TemporaryDirectory() as name,
        SimulatedMeter(interval=INTERVAL, source=source) as meter,
    ):
        folder = Path(name)
        config = folder / 'config.ini'
        config.write_text(f'[meter]\nport = {meter.port}\n[server]\nhost = 127.0.0.1\nport = 0\n')
        command = [sys.executable, str(ROOT / 'dsmr_rest_server.py'), '--config', str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            try:
                url = server.stdout.readline().split()[-1]
                take_picture(url, folder)
            finally:
                server.terminate()


if __name__ == '__main__':
    main()
