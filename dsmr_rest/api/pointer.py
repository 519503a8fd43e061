"""JSON Pointers (RFC 6901) into the document of a reading, and which path was meant by one that leads nowhere.

Pure: it knows neither requests nor readings.
"""

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

LONGEST_GUESS = 64
"""Characters of a key. No known key is near that long, so a longer one is not compared with them."""

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
    keys = []
    for part in path.split('/')[1:]:
        try:
            key = unquote(part, errors='strict')
        except UnicodeDecodeError:
            raise NothingThereError from None
        keys.append(key.replace('~1', '/').replace('~0', '~'))
    return keys


def value_at(document: Any, keys: list[str]) -> Any:
    """The value that a JSON Pointer refers to. Raises NothingThereError."""
    value = document
    for position, key in enumerate(keys):
        if isinstance(value, dict):
            if key not in value:
                raise NothingThereError(_corrected(keys, position, value))
            value = value[key]
        elif isinstance(value, list) and _is_index_into(value, key):
            value = value[int(key)]
        else:
            raise NothingThereError(_corrected(keys, position, ()))
    return value


def _is_index_into(items: list[Any], key: str) -> bool:
    return _LIST_INDEX.fullmatch(key) is not None and int(key) < len(items)


def _corrected(keys: list[str], position: int, known: Iterable[str]) -> str:
    """The path to a value with a similar key at a position where none fits."""
    key = keys[position]
    is_slash_at_end = not key and position == len(keys) - 1
    if is_slash_at_end:
        return path_of(keys[:position])
    similar = similar_key(key, known)
    if not similar:
        return ''
    return path_of([*keys[:position], similar])


def path_of(keys: Iterable[str]) -> str:
    """The JSON Pointer of these keys."""
    return ''.join(f'/{key.replace("~", "~0").replace("/", "~1")}' for key in keys)


def similar_key(key: str, known: Iterable[str]) -> str:
    """The known key that is most like this one, whatever its case; empty when none is alike."""
    if len(key) > LONGEST_GUESS:
        return ''
    import difflib  # noqa: PLC0415 most servers never get a path that leads nowhere

    in_lower_case = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(key.lower(), in_lower_case, n=1)
    if not matches:
        return ''
    return in_lower_case[matches[0]]
