"""Which of several forms of a response a client prefers."""

import pytest

from dsmr_rest.http.negotiation import accepts_gzip, best_language, weights

LANGUAGES = ('de', 'en', 'fr', 'nl')


@pytest.mark.parametrize(
    ('field', 'expected'),
    [
        ('', {}),
        ('gzip', {'gzip': 1.0}),
        ('GZIP , br;q=0.5', {'gzip': 1.0, 'br': 0.5}),
        ('gzip;q=0, *;q=0.001', {'gzip': 0.0, '*': 0.001}),
        ('nl-BE ; Q=1.000,,', {'nl-be': 1.0}),
        ('gzip;q=2, br;q=x, deflate;level=9', {}),
    ],
)
def test_each_alternative_has_its_weight(field: str, expected: dict[str, float]) -> None:
    """An alternative weighs 1 unless it says less; one whose weight is malformed is left out."""
    assert weights(field) == expected


@pytest.mark.parametrize(
    ('field', 'expected'),
    [
        ('', False),
        ('br, deflate', False),
        ('gzip', True),
        ('br;q=1, gzip;q=0.1', True),
        ('gzip;q=0', False),
        ('*', True),
        ('*, gzip;q=0', False),
    ],
)
def test_gzip_is_for_those_who_accept_it(field: str, expected: bool) -> None:
    """A client gets gzip when it names gzip or everything, unless it excludes gzip."""
    assert accepts_gzip(field) == expected


@pytest.mark.parametrize(
    ('field', 'expected'),
    [
        ('', 'en'),
        ('nl-BE,nl;q=0.9,en;q=0.8', 'nl'),
        ('sv-SE,sv;q=0.9,fr;q=0.5,de;q=0.6', 'de'),
        ('lb, de-LU;q=0.9', 'de'),
        ('nl;q=0, sv', 'en'),
        ('*', 'en'),
        ('nlx', 'en'),
    ],
)
def test_the_preferred_language_is_the_first_that_there_is(field: str, expected: str) -> None:
    """A client gets the language it weighs most of those that there are, and English when it reads none of them."""
    assert best_language(field, LANGUAGES, 'en') == expected
