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


def test_a_trouble_that_is_over_may_begin_again(caplog: pytest.LogCaptureFixture) -> None:
    """Its end is logged once, and after that it is news again."""
    trouble = Trouble('begins', 'ends', calm=0)
    for _ in range(2):
        trouble.met()
        trouble.not_met()
        trouble.not_met()
    assert caplog.messages == ['begins', 'ends'] * 2
