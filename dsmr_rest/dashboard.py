"""The dashboard: the package's dashboard.html with the table of M-Bus device kinds filled in.

It does not know how the page is served, nor what the page does with a reading.
"""

import json
from pathlib import Path

from dsmr_rest.mbus import KINDS

KINDS_PLACEHOLDER = '{/* M-Bus device kinds */}'
"""In dashboard.html, in place of a JavaScript object of the names by M-Bus device type."""


def dashboard_page() -> bytes:
    """The page as UTF-8, complete: it needs nothing but /stream of the server that it comes from."""
    names = {number: kind.name.capitalize() for number, kind in KINDS.items()}
    page = Path(__file__).with_name('dashboard.html').read_text(encoding='utf-8')
    return page.replace(KINDS_PLACEHOLDER, json.dumps(names)).encode()
