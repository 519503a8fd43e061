"""What a browser gets of the dashboard: the page itself in each language, and the files that the page requests.

It does not know under which paths they are served, nor what the page does with a reading.
"""

import html
import json
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from dsmr_rest.api.static import StaticBody
from dsmr_rest.reading.mbus import GAS_METER, KINDS

FOLDER = Path(__file__).parent
LANGUAGES = tuple(sorted(path.stem for path in FOLDER.glob('texts/*.json')))
"""The languages of the page, such as 'nl': each is a file of texts."""
FALLBACK_LANGUAGE = 'en'
"""For readers of other languages; problem details and the names of devices are in English too."""

_FACTS = 'facts.json'
_MODULES = tuple(sorted(path.name for path in FOLDER.glob('*.js')))
_TEXTS = tuple(f'texts/{language}.json' for language in LANGUAGES)
FILES = (_FACTS, 'dashboard.css', *_MODULES, *_TEXTS)
"""The names of the files that the page requests, relative to /dashboard/."""

_CONTENT_TYPES = {
    '.css': 'text/css; charset=utf-8',
    '.js': 'text/javascript; charset=utf-8',
    '.json': 'application/json',
}


def load(name: str) -> StaticBody:
    """One of FILES, as it is in this folder. facts.json is made of what the server knows."""
    body = _facts()
    if name != _FACTS:
        body = FOLDER.joinpath(name).read_bytes()
    return StaticBody(body, _CONTENT_TYPES[Path(name).suffix])


def _facts() -> bytes:
    """Which languages there are, and what kinds of M-Bus devices are called in English, by their type (EN 13757-3)."""
    kinds = {str(number): kind.name for number, kind in KINDS.items()}
    facts = {'languages': LANGUAGES, 'kinds': kinds, 'gasMeter': GAS_METER}
    return json.dumps(facts).encode()


@cache
def page(language: str) -> StaticBody:
    """The page for a reader of one of LANGUAGES: complete as far as it goes without JavaScript.

    It names the modules, so that a browser requests all of them at once and not one after the other.
    """
    template = Template(FOLDER.joinpath('index.html').read_text(encoding='utf-8'))
    preloads = [f'<link rel="modulepreload" href="dashboard/{name}" />' for name in _MODULES]
    texts = {name: html.escape(text) for name, text in _texts(language).items()}
    body = template.substitute(texts, language=language, preloads='\n    '.join(preloads))
    return StaticBody(body.encode(), 'text/html; charset=utf-8', vary='Accept-Language')


def _texts(language: str) -> dict[str, str]:
    """The texts of a language that stand alone; those by a code or a kind are only for the modules."""
    texts: dict[str, Any] = json.loads(FOLDER.joinpath(f'texts/{language}.json').read_bytes())
    return {name: text for name, text in texts.items() if isinstance(text, str)}
