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
    file = FOLDER / name
    content_type = _CONTENT_TYPES[file.suffix]
    if name == _FACTS:
        return StaticBody(_facts(), content_type)
    return StaticBody(file.read_bytes(), content_type)


def _facts() -> bytes:
    """Which languages there are, and what kinds of M-Bus devices are called in English, by their type (EN 13757-3)."""
    kinds = {}
    for number, kind in KINDS.items():
        kinds[str(number)] = kind.name
    facts = {
        'languages': LANGUAGES,
        'kinds': kinds,
        'gasMeter': GAS_METER,
    }
    return json.dumps(facts).encode()


@cache
def page(language: str) -> StaticBody:
    """The page for a reader of one of LANGUAGES: complete as far as it goes without JavaScript.

    It names the modules, so that a browser requests all of them at once and not one after the other.
    """
    file = FOLDER / 'index.html'
    template = Template(file.read_text(encoding='utf-8'))
    preloads = map(_preload, _MODULES)
    body = template.substitute(
        _texts(language),
        language=language,
        preloads='\n    '.join(preloads),
    )
    return StaticBody(
        body.encode(),
        'text/html; charset=utf-8',
        vary='Accept-Language',
    )


def _preload(module: str) -> str:
    return f'<link rel="modulepreload" href="dashboard/{module}" />'


def _texts(language: str) -> dict[str, str]:
    """The texts of a language that stand alone, as HTML; those by a code or a kind are only for the modules."""
    file = FOLDER / 'texts' / f'{language}.json'
    all_texts: dict[str, Any] = json.loads(file.read_bytes())
    texts = {}
    for name, text in all_texts.items():
        if isinstance(text, str):
            texts[name] = html.escape(text)
    return texts
