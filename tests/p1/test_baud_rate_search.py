"""The search for the baud rate, step by step: what arrives, how long that took, and the baud rate after it."""

from collections.abc import Callable

import pytest

from dsmr_rest.p1.baud_rate_search import BaudRateSearch
from dsmr_rest.p1.framing import Framer
from dsmr_rest.p1.line import LONGEST_SILENCE
from tests.faulty_meter import misread
from tests.telegrams import of_version

Event = Callable[[BaudRateSearch, float], bool]
"""Reports to a search what happened in so many seconds; whether it changed the baud rate."""


def arrival(data: bytes, before: bytes = b'') -> Event:
    """Bytes arrive, and more may follow; others arrived before them."""
    framer = Framer()
    framer.feed(before)
    framer.feed(data)

    def report(search: BaudRateSearch, seconds: float) -> bool:
        return search.bytes_arrived(
            seconds, framer.unexplained, framer.unprintable, inside_telegram=framer.inside
        )

    return report


def silence_after(data: bytes) -> Event:
    """No byte arrives after these."""
    framer = Framer()
    framer.feed(data)

    def report(search: BaudRateSearch, seconds: float) -> bool:
        return search.nothing_arrived(seconds, framer.unexplained)

    return report


def found(search: BaudRateSearch, _: float) -> bool:
    search.telegram_found()
    return False


NOISE = b'\xff\x00' * 50
TEXT = b'not a telegram, for a while'
noise, after_noise = arrival(NOISE), silence_after(NOISE)
text, after_text = arrival(TEXT), silence_after(TEXT)
few_bytes, after_few_bytes = arrival(b'\xff' * 15), silence_after(b'\xff' * 15)
foreign_letters = arrival(b'\xe9' * 5 + b'e' * 20)
lines_without_a_header = arrival(of_version('5.0')[300:], before=NOISE * 5)
noise_in_a_value = arrival(NOISE, before=of_version('5.0')[:400])
telegram = arrival(of_version('5.0'))
at_the_wrong_baud_rate = arrival(misread(of_version('2.2'), 9600, 115200))
silence = silence_after(b'')
LONG, SHORT = LONGEST_SILENCE + 1, LONGEST_SILENCE - 1

SEARCHES: dict[str, list[tuple[Event, float, int]]] = {
    'noise at first': [(noise, 0, 9600)],
    'the other baud rate at first': [(at_the_wrong_baud_rate, 0, 9600)],
    'a telegram': [(telegram, 0, 115200)],
    'text while it arrives': [(text, 0, 115200)],
    'text that was all': [(text, 0, 115200), (after_text, 0, 9600)],
    'text with some foreign letters': [(foreign_letters, 0, 115200)],
    'the rest of a telegram after noise': [(lines_without_a_header, 0, 115200)],
    'noise within a telegram': [(noise_in_a_value, 0, 115200)],
    'a few bytes': [(few_bytes, 0, 115200), (after_few_bytes, 0, 115200)],
    'noise after a change': [(noise, 0, 9600), (noise, 1, 9600), (after_noise, 1, 115200)],
    'noise for long after a change': [(noise, 0, 9600), (noise, SHORT, 9600), (noise, 2, 115200)],
    'noise soon after a telegram': [
        (found, 0, 115200),
        (noise, SHORT, 115200),
        (after_noise, 0, 115200),
    ],
    'noise long after a telegram': [(found, 0, 115200), (noise, LONG, 9600)],
    'silence long after a telegram, with noise': [(found, 0, 115200), (after_text, LONG, 9600)],
    'lines of a telegram between noise': [
        (found, 0, 115200),
        (noise, SHORT, 115200),
        (telegram, 0, 115200),
        (noise, SHORT, 115200),
    ],
    'short silence': [(silence, SHORT, 115200)],
    'long silence': [(silence, LONG, 9600)],
    'silence in parts': [(silence, SHORT, 115200), (silence, 2.5, 9600)],
    'silence with a telegram between': [
        (silence, SHORT, 115200),
        (telegram, 0, 115200),
        (silence, SHORT, 115200),
    ],
    'silence with a telegram found between': [
        (silence, SHORT, 115200),
        (found, 0, 115200),
        (silence, SHORT, 115200),
    ],
    'silence again and again': [
        (silence, LONG, 9600),
        (silence, LONG, 115200),
        (silence, LONG, 9600),
    ],
    'noise soon after a change for silence': [(silence, LONG, 9600), (noise, 0.5, 115200)],
    'long silence after a telegram': [(found, 0, 115200), (silence, LONG, 9600)],
    'a telegram after a change': [
        (noise, 0, 9600),
        (found, 0, 9600),
        (noise, SHORT, 9600),
        (after_noise, 0, 9600),
    ],
}


@pytest.mark.parametrize('case', SEARCHES)
def test_the_baud_rate_follows_what_arrives(case: str) -> None:
    """Noise at a baud rate that never worked means the other one, long silence does too, and what works is kept."""
    search = BaudRateSearch(115200, 9600)
    for event, seconds, expected in SEARCHES[case]:
        before = search.baud_rate
        changed = event(search, seconds)
        assert search.baud_rate == expected
        assert changed == (before != expected)


@pytest.mark.parametrize('case', SEARCHES)
def test_a_baud_rate_that_is_set_is_never_left(case: str) -> None:
    """With one baud rate there is nothing to search."""
    search = BaudRateSearch(115200)
    for event, seconds, _ in SEARCHES[case]:
        assert not event(search, seconds)
    assert (search.baud_rate, search.tried) == (115200, [115200])


def test_the_baud_rates_tried_begin_again_with_each_telegram() -> None:
    """Both after a change, however often; the one that worked after a telegram."""
    search = BaudRateSearch(115200, 9600)
    assert search.tried == [115200]
    for _ in range(3):
        silence(search, LONG)
    assert search.tried == [115200, 9600]
    search.telegram_found()
    assert search.tried == [9600]


def test_the_longest_silence_is_the_caller_s() -> None:
    """A meter that sends more often can be searched for sooner."""
    search = BaudRateSearch(115200, 9600, longest_silence=1.0)
    assert not silence(search, 0.9)
    assert silence(search, 0.2)


def test_a_silent_line_is_not_searched_in_haste() -> None:
    """Each baud rate is listened at for the longest silence that a meter may keep, however long none comes."""
    search = BaudRateSearch(115200, 9600)
    changes = sum(silence(search, 1.0) for _ in range(60))
    assert changes == 60 // (LONGEST_SILENCE + 1)
