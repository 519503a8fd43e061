"""The dashboard: the package's dashboard.html, as short as browsers need it.

It does not know how the page is served, nor what the page does with a reading.
"""

import re
from pathlib import Path

_BLOCK_COMMENT = re.compile(r'^ */\*\*.*?\*/$', re.DOTALL | re.MULTILINE)
_LINE_COMMENT = re.compile(r'(^ *|  )// .*$', re.MULTILINE)
_INDENTATION = re.compile(r'^\s+', re.MULTILINE)
"""With it go empty lines."""
_SPACE_IN_STYLE = re.compile(r'(?<=[:;,{}]) | (?={)')


def dashboard_page() -> bytes:
    """The page as UTF-8, complete: it needs nothing but /stream of the server that it comes from.

    It is without what only the reader of dashboard.html needs: comments, which are on lines of their own there or two
    spaces after a statement, indentation, empty lines, and spaces in the style sheet.
    """
    page = Path(__file__).with_name('dashboard.html').read_text(encoding='utf-8')
    for surplus in (_BLOCK_COMMENT, _LINE_COMMENT, _INDENTATION):
        page = surplus.sub('', page)
    head, end_of_style, body = page.partition('</style>')
    head = _SPACE_IN_STYLE.sub('', head)
    return (head + end_of_style + body).encode()
