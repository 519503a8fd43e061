"""What a browser gets of the dashboard: the page itself, and the files that the page requests.

It does not know under which paths they are served, nor what the page does with a reading.
"""

from functools import cache
from pathlib import Path

from dsmr_rest.api.static import StaticBody

_FOLDER = Path(__file__).parent


@cache
def page() -> StaticBody:
    """The page, which is complete: it needs nothing but /stream of the server that it comes from."""
    return StaticBody(_FOLDER.joinpath('index.html').read_bytes(), 'text/html; charset=utf-8')
