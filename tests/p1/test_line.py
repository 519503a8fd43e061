"""What is counted on the line."""

from dsmr_rest.api.metrics import LINE_COUNTER_HELP
from dsmr_rest.p1.line import NOTHING_COUNTED, LineCounters


def test_counts_are_added_and_taken_away_field_by_field() -> None:
    """What was counted since a moment, added to what had been counted then, is what is counted now."""
    before = LineCounters(received_bytes=100, telegrams=2, port_losses=1)
    now = LineCounters(received_bytes=900, telegrams=5, checksum_failures=3, port_losses=1)
    assert now.since(before) == LineCounters(received_bytes=800, telegrams=3, checksum_failures=3)
    assert before.plus(now.since(before)) == now
    assert now.since(NOTHING_COUNTED) == now


def test_a_damaged_telegram_is_one_without_encryption() -> None:
    """Damaged are telegrams whose checksum or parity is wrong, not those that could not be decrypted."""
    counters = LineCounters(checksum_failures=2, parity_failures=3, decryption_failures=5)
    assert counters.damaged == 5


def test_every_count_is_explained_to_users() -> None:
    """A new field of LineCounters needs the help text of its metric."""
    assert LINE_COUNTER_HELP.keys() == set(LineCounters._fields)
