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
    for element in field.lower().split(','):
        alternative, has_weight, parameter = element.partition(';')
        name = alternative.strip()
        weight: float | None = 1.0
        if has_weight:
            weight = _weight(parameter)
        if name and weight is not None:
            found[name] = weight
    return found


def _weight(parameter: str) -> float | None:
    """The number in a parameter such as "q=0.5"; None when it is malformed. Whatever follows it is ignored."""
    first, _, _ = parameter.partition(';')
    match = _WEIGHT.fullmatch(first.strip())
    if match is None:
        return None
    return float(match[1])


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a response may be compressed with gzip (RFC 9110 12.5.3). A client that does not say gets none."""
    stated = weights(accept_encoding)
    of_any_other = stated.get('*', 0.0)
    weight = stated.get('gzip', of_any_other)
    return weight > 0


def best_language(accept_language: str, available: Iterable[str], otherwise: str) -> str:
    """The available language, such as 'nl', that the client prefers (RFC 9110 12.5.4).

    A language range matches a language of the same first subtag: "nl-BE" matches 'nl'.
    """
    stated = weights(accept_language)
    known = set(available)
    by_preference = sorted(stated, key=stated.__getitem__, reverse=True)
    for language_range in by_preference:
        language, _, _ = language_range.partition('-')
        is_acceptable = stated[language_range] > 0
        if is_acceptable and language in known:
            return language
    return otherwise
