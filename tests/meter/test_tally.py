"""Counts by name."""

from concurrent.futures import ThreadPoolExecutor

from dsmr_rest.meter.tally import Tally


def test_counts_are_in_the_order_of_their_names() -> None:
    """Each name has the number of times that it was added, and names come in their order."""
    tally = Tally()
    for name in ('b', 'a', 'b', 'c'):
        tally.add(name)
    assert list(tally.counts().items()) == [('a', 1), ('b', 2), ('c', 1)]


def test_what_was_read_does_not_change() -> None:
    """Counts that were read stay as they were when more is counted."""
    tally = Tally()
    tally.add('a')
    before = tally.counts()
    tally.add('a')
    assert (before, tally.counts()) == ({'a': 1}, {'a': 2})


def test_no_count_of_any_thread_is_lost() -> None:
    """Many threads that count at once lose nothing."""
    tally = Tally()

    def count() -> None:
        for _ in range(2000):
            tally.add('a')

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(count)
    assert tally.counts() == {'a': 16_000}
