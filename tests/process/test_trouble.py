"""Trouble: its beginning and its end are in the log once each."""

import pytest

from dsmr_rest.process.trouble import Trouble


def test_a_trouble_that_comes_and_goes_has_one_beginning(caplog: pytest.LogCaptureFixture) -> None:
    """Until it has been away for long, it is the same trouble, however often something succeeds in between."""
    trouble = Trouble('begins', 'ends', calm=3600)
    trouble.not_met()
    for _ in range(3):
        trouble.met()
        trouble.not_met()
    assert caplog.messages == ['begins']


def test_a_trouble_is_over_when_it_was_last_met_long_ago(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not when it began long ago."""
    times = iter([0.0, 100.0, 159.0, 160.0])  # of two meetings and two successes
    monkeypatch.setattr('dsmr_rest.process.trouble.time.monotonic', times.__next__)
    trouble = Trouble('begins', 'ends', calm=60)
    trouble.met()
    trouble.met()
    trouble.not_met()
    assert caplog.messages == ['begins']
    trouble.not_met()
    monkeypatch.undo()
    assert caplog.messages == ['begins', 'ends']


def test_a_trouble_that_is_over_may_begin_again(caplog: pytest.LogCaptureFixture) -> None:
    """Its end is logged once, and after that it is news again."""
    trouble = Trouble('begins', 'ends', calm=0)
    for _ in range(2):
        trouble.met()
        trouble.not_met()
        trouble.not_met()
    assert caplog.messages == ['begins', 'ends'] * 2
