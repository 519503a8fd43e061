"""The documentation as the tests read it: the README and the pages in docs/, their sections and code blocks."""

import re

from tests.conftest import ROOT

README = 'README.md'
HTTP = 'docs/http.md'
INTEGRATIONS = 'docs/integrations.md'
OPERATIONS = 'docs/operations.md'
SETTINGS = 'docs/settings.md'


def _read_pages() -> dict[str, str]:
    pages = {}
    for file in [ROOT / README, *sorted((ROOT / 'docs').glob('*.md'))]:
        name = str(file.relative_to(ROOT))
        pages[name] = file.read_text()
    return pages


PAGES = _read_pages()
"""The text of each page, by its path."""


def blocks(text: str, language: str) -> list[str]:
    """The code blocks in this language; empty stands for blocks that name none."""
    return re.findall(rf'^ *```{language}\n(.*?)^ *```$', text, re.DOTALL | re.MULTILINE)


def section_of(page: str, heading: str) -> str:
    """The text under a heading of the second level."""
    _, found, rest = PAGES[page].partition(f'\n## {heading}\n')
    assert found, heading
    text, _, _ = rest.partition('\n## ')
    return text


def block(page: str, heading: str, language: str) -> str:
    """The only code block in this language in a section."""
    (code,) = blocks(section_of(page, heading), language)
    return code


def without_code(text: str) -> str:
    """A page without its code blocks, in which a '#' does not begin a heading."""
    return re.sub(r'^ *```.*?^ *```$', '', text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> list[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r'^#+ (.*)$', without_code(text), re.MULTILINE)
    return [re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings]
