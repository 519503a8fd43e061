"""Makes docs/dashboard.png: the dashboard after two minutes, in which twenty minutes pass in the house.

python -m benchmarks.screenshot

Needs the Debian packages chromium and chromium-driver.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from selenium import webdriver

from benchmarks.servers import ROOT
from dsmr_rest.simulated_meter import DUTCH, SimulatedMeter, telegram

BEGIN = datetime(2026, 6, 12, 8, 53, tzinfo=DUTCH)
"""From nine on the solar panels produce more than the house uses."""
PACE = 10
"""Seconds in the house per second."""
INTERVAL = 0.5
"""Seconds between telegrams."""
SECONDS = 115
"""Seconds until the picture is taken: less than two minutes, because the dashboard rounds up what its plot covers."""
WIDTH = 800
"""CSS pixels."""
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


def accelerated_house() -> Callable[[], bytes]:
    """A source of a Belgian meter's telegrams, in whose house time passes PACE times as fast."""
    start = time.monotonic()

    def next_telegram() -> bytes:
        passed = (time.monotonic() - start) * PACE
        return telegram('belgium', BEGIN + timedelta(seconds=passed))

    return next_telegram


def take_picture(url: str, profile: Path) -> None:
    """Open the dashboard, wait SECONDS, and save a picture of the whole page."""
    browser = chromium(profile)
    try:
        emulate(browser, WIDTH, prefers_color_scheme='light')
        browser.get(f'{url}dashboard')
        time.sleep(SECONDS)
        height = browser.execute_script(
            'return document.documentElement.getBoundingClientRect().height'
        )
        emulate(browser, WIDTH, int(height), prefers_color_scheme='light')
        time.sleep(1)  # until it is drawn again
        picture = ROOT / 'docs' / 'dashboard.png'
        picture.parent.mkdir(exist_ok=True)
        browser.save_screenshot(str(picture))
        print(picture, picture.stat().st_size, 'bytes')
    finally:
        browser.quit()


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
                take_picture(url, folder / 'profile')
            finally:
                server.terminate()


if __name__ == '__main__':
    main()
