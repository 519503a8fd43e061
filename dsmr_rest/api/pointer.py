"""JSON Pointers (RFC 6901) into the document of a reading, and which path was meant by one that leads nowhere.

Pure: it knows neither requests nor readings.
"""

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

LONGEST_GUESS = 64
"""Characters of a key. No known key is near that long, so a longer one is not compared with them."""

LEAST_LIKENESS = 0.7
"""Of two keys, between 0 and 1 (difflib): with one letter of four missing it is 0.86."""

_LIST_INDEX = re.compile(r'0|[1-9][0-9]{0,8}')  # RFC 6901 4: no leading zeros


class NothingThereError(LookupError):
    """A pointer leads nowhere; `meant` is the path that was probably meant, empty when none is similar."""

    def __init__(self, meant: str = '') -> None:
        super().__init__(meant)
        self.meant = meant


def keys_of(path: str) -> list[str]:
    """The keys of a JSON Pointer in a path, unescaped (RFC 6901 4).

    Raises NothingThereError when they are not UTF-8.
    """
    _, *parts = path.split('/')
    try:
        return [_unescaped(part) for part in parts]
    except UnicodeDecodeError:
        raise NothingThereError from None


def _unescaped(part: str) -> str:
    decoded = unquote(part, errors='strict')
    with_slashes = decoded.replace('~1', '/')
    return with_slashes.replace('~0', '~')


def path_of(keys: Iterable[str]) -> str:
    """The JSON Pointer of these keys."""
    return ''.join(map(_escaped, keys))


def _escaped(key: str) -> str:
    without_tildes = key.replace('~', '~0')
    without_slashes = without_tildes.replace('/', '~1')
    return f'/{without_slashes}'


def value_at(document: Any, keys: list[str]) -> Any:
    """The value that a JSON Pointer refers to. Raises NothingThereError."""
    value = document
    for position, key in enumerate(keys):
        try:
            value = _child(value, key)
        except LookupError:
            parents = keys[:position]
            is_slash_at_end = keys[position:] == ['']
            if is_slash_at_end:
                raise NothingThereError(path_of(parents)) from None
            raise NothingThereError(_similar_path(parents, key, value)) from None
    return value


def _child(value: Any, key: str) -> Any:
    """Raises LookupError."""
    if isinstance(value, dict):
        return value[key]
    if isinstance(value, list) and _LIST_INDEX.fullmatch(key):
        return value[int(key)]
    raise LookupError(key)


def _similar_path(parents: list[str], key: str, value: Any) -> str:
    """The path to the child of a value whose key is most like this one; empty when none is alike."""
    if not isinstance(value, dict):
        return ''
    similar = similar_key(key, value)
    if not similar:
        return ''
    return path_of([*parents, similar])


def similar_key(key: str, known: Iterable[str]) -> str:
    """The known key that is most like this one, whatever its case; empty when none is alike."""
    if len(key) > LONGEST_GUESS:
        return ''
    import difflib  # noqa: PLC0415 most servers never get a path that leads nowhere

    in_lower_case = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(key.lower(), in_lower_case, 1, LEAST_LIKENESS)
    if not matches:
        return ''
    return in_lower_case[matches[0]]
