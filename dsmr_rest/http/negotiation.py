"""What a client prefers, by the weights of its Accept fields (RFC 9110 12.4.2).

Pure: it knows header fields, but nothing of what is served.
"""

import re
from collections.abc import Iterable

_WEIGHT = re.compile(r'q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)', re.IGNORECASE)


def weights(field: str) -> dict[str, float]:
    """The weight of each alternative of an Accept field, in lower case; 0 means that it is not acceptable.

    An alternative with a malformed weight is left out, as if the client had not named it.
    """
    found = {}
    for element in field.split(','):
        alternative, *parameters = [part.strip() for part in element.split(';')]
        weight = _weight(parameters)
        if alternative and weight is not None:
            found[alternative.lower()] = weight
    return found


def _weight(parameters: list[str]) -> float | None:
    if not parameters:
        return 1.0
    match = _WEIGHT.fullmatch(parameters[0])
    if match is None:
        return None
    return float(match[1])


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a response may be compressed with gzip (RFC 9110 12.5.3). A client that does not say gets none."""
    stated = weights(accept_encoding)
    return stated.get('gzip', stated.get('*', 0.0)) > 0


def best_language(accept_language: str, available: Iterable[str], otherwise: str) -> str:
    """The available language, such as 'nl', that the client prefers (RFC 9110 12.5.4).

    A language range matches a language of the same first subtag: "nl-BE" matches 'nl'.
    """
    stated = weights(accept_language)
    known = set(available)
    by_preference = sorted(stated, key=lambda language_range: -stated[language_range])
    for language_range in by_preference:
        language, _, _ = language_range.partition('-')
        if language in known and stated[language_range] > 0:
            return language
    return otherwise
