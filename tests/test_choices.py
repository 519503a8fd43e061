"""What config.ini lets a user choose from."""

from itertools import pairwise

from dsmr_parser import telegram_specifications

from dsmr_rest.choices import BAUD_RATES, SPECIFICATION_NAMES


def test_the_specifications_are_those_of_the_library() -> None:
    """A table that a later dsmr_parser adds, renames or removes is noticed here."""
    of_library = []
    for name, value in vars(telegram_specifications).items():
        if isinstance(value, dict) and 'objects' in value:
            of_library.append(name)
    assert list(SPECIFICATION_NAMES) == of_library


def test_a_line_is_named_by_its_baud_rate() -> None:
    """The name of a line begins with its baud rate, and faster lines come first."""
    for name, baud_rate in BAUD_RATES.items():
        assert name.split()[0] == str(baud_rate)
    for one, following in pairwise(BAUD_RATES.values()):
        assert one >= following
