"""Makes docs/dashboard.png: the dashboard after two minutes of a house at ten times its pace.

Needs the Debian packages chromium and chromium-driver. By hand: python -m benchmarks.screenshot
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

from dsmr_rest.simulated_meter import DUTCH, House, SimulatedMeter, telegram

ROOT = Path(__file__).parent.parent
BEGIN = datetime(2026, 6, 12, 8, 53, tzinfo=DUTCH)  # at nine the sun gives more than the house needs
PACE, INTERVAL, SECONDS = 10, 0.5, 115
WIDTH = 800
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


def chromium(profile: Path, browser: str = 'chromium', driver: str = 'chromedriver') -> webdriver.Chrome:
    """A headless Chromium with a profile of its own, whose console is kept; to be ended by quit()."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(browser) or browser
    for option in (*OPTIONS, f'--user-data-dir={profile}'):
        options.add_argument(option)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which(driver) or driver))


def emulate(browser: webdriver.Chrome, width: int, height: int = 800, **features: str) -> None:
    """A screen of that size in CSS pixels, and media features such as prefers_color_scheme='dark'."""
    screen: dict[str, Any] = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': True}
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)
    media = [{'name': name.replace('_', '-'), 'value': value} for name, value in features.items()]
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': media})


def _house_in_a_hurry() -> Callable[[], bytes]:
    house, start = House(), time.monotonic()

    def source() -> bytes:
        return telegram(house, 'belgium', BEGIN + timedelta(seconds=(time.monotonic() - start) * PACE))

    return source


def _photograph(url: str, folder: Path) -> None:
    browser = chromium(folder / 'profile')
    try:
        emulate(browser, WIDTH, prefers_color_scheme='light')
        browser.get(url + '/dashboard')
        time.sleep(SECONDS)
        height = browser.execute_script('return document.documentElement.getBoundingClientRect().height')
        emulate(browser, WIDTH, int(height), prefers_color_scheme='light')
        time.sleep(1)  # drawn anew
        picture = ROOT / 'docs' / 'dashboard.png'
        picture.parent.mkdir(exist_ok=True)
        browser.save_screenshot(str(picture))
        print(picture, picture.stat().st_size, 'bytes')
    finally:
        browser.quit()


def main() -> None:
    with tempfile.TemporaryDirectory() as name, SimulatedMeter(interval=INTERVAL, source=_house_in_a_hurry()) as meter:
        folder = Path(name)
        (folder / 'config.ini').write_text(f'[meter]\nport = {meter.port}\n[server]\nhost = 127.0.0.1\nport = 0\n')
        command = [sys.executable, str(ROOT / 'dsmr_rest_server.py'), '--config', str(folder / 'config.ini')]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            try:
                _photograph(server.stdout.readline().split()[-1].rstrip('/'), folder)
            finally:
                server.terminate()


if __name__ == '__main__':
    main()
