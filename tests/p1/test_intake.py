"""Intake: what becomes of the bytes of one opening, what is counted, and what is known of them afterwards."""

from dataclasses import replace

import pytest

from dsmr_rest.config import MeterSettings
from dsmr_rest.p1.intake import FIRST_BYTES, LAST_BYTES, Intake
from dsmr_rest.p1.line import LineCounters
from dsmr_rest.reading.telegram import Proof
from tests.telegrams import KEY, at_8n1, cipher_frame, from_lines, of_version

FIRST, SECOND, THIRD = (
    from_lines('0-0:1.0.0(240115103000W)', f'1-0:1.8.1(00000{number}.000*kWh)')
    for number in (1, 2, 3)
)
WRONG = SECOND.replace(b'(000002', b'(000009')
UNREADABLE = from_lines('1-0:1.8.1')


def intake() -> Intake:
    made = Intake(MeterSettings(port='/dev/none'))
    made.begin()
    return made


def counters(made: Intake) -> LineCounters:
    """What was counted since the port was opened, without the bytes."""
    return made.state.counters._replace(received_bytes=0, port_openings=0)


def test_of_several_telegrams_in_one_read_only_the_last_is_handed_out() -> None:
    """The others are older by the meter's interval at least: they are counted, and nobody gets them."""
    made = intake()
    outcome = made.feed(FIRST + SECOND + THIRD, 5.0)
    assert outcome.found
    assert outcome.reading is not None
    assert outcome.reading.telegram == THIRD
    assert counters(made) == LineCounters(telegrams=3)


def test_the_last_telegram_that_may_be_served_is_handed_out() -> None:
    """A damaged one behind it, or one that cannot be read, does not hide it."""
    for behind, counted in (
        (WRONG, LineCounters(telegrams=2, checksum_failures=1)),
        (UNREADABLE, LineCounters(telegrams=2, invalid_telegrams=1)),
    ):
        made = intake()
        reading = made.feed(FIRST + SECOND + behind, 5.0).reading
        assert reading is not None
        assert reading.telegram == SECOND
        assert counters(made) == counted


def test_a_telegram_may_come_in_pieces() -> None:
    """It is handed out with its last piece, and has the time at which that arrived."""
    made = intake()
    assert made.feed(FIRST[:30], 1.0) == made.feed(FIRST[30:-1], 2.0)
    assert made.state.is_inside_telegram
    reading = made.feed(FIRST[-1:], 3.0).reading
    assert reading is not None
    assert (reading.telegram, reading.arrived) == (FIRST, 3.0)
    assert not made.state.is_inside_telegram


def test_half_a_telegram_of_one_opening_is_no_half_of_the_next() -> None:
    """What was begun before the port was opened again, or before a stall, is forgotten."""
    old = of_version('2.2')
    for forget in ('begin', 'discard', 'stall'):
        made = intake()
        made.feed(old[:200], 1.0)
        if forget == 'begin':
            made.begin()
        elif forget == 'discard':
            made.discard()
        else:
            made.note_stall(30.0, 31.0)
        assert made.feed(old[200:], 2.0).reading is None, forget
        assert made.feed(old, 3.0).reading is not None


def test_the_interval_is_that_of_one_opening() -> None:
    """The time between two openings is not the meter's."""
    made = intake()
    made.feed(FIRST, 1.0)
    assert made.state.interval is None
    made.feed(SECOND, 11.0)
    assert made.state.interval == 10.0
    made.begin()
    made.feed(THIRD, 500.0)
    assert made.state.interval == 10.0


def test_a_stall_is_known_afterwards() -> None:
    """How long it was, and when it was over: a wait during which it ended is explained by it."""
    made = intake()
    made.note_stall(30.0, 31.0)
    assert (made.state.stall, made.state.stall_end) == (30.0, 31.0)


def test_what_was_received_first_and_last_is_kept_within_bounds() -> None:
    """The first bytes are of this opening, the last ones since the last telegram."""
    made = intake()
    noise = bytes(range(200)) * 20
    for start in range(0, len(noise), 7):
        made.feed(noise[start : start + 7], 1.0)
    assert made.state.first_bytes == noise[:FIRST_BYTES]
    assert made.state.last_bytes == noise[-LAST_BYTES:]
    made.feed(b'\r\n' + FIRST, 2.0)
    assert made.state.last_bytes == b''
    made.begin()
    assert made.state.first_bytes == b''


def test_what_was_received_in_one_opening_says_nothing_about_the_next() -> None:
    """Neither the noise of the one before nor the telegram that had begun in it is part of what is seen now."""
    made = intake()
    made.feed(b'noise\r\n' + FIRST[:60], 1.0)
    assert made.state.is_inside_telegram
    made.begin()
    assert (made.state.first_bytes, made.state.last_bytes) == (b'', b'')
    assert not made.state.is_inside_telegram


def test_whether_the_meter_encrypts_is_known_by_its_last_telegram() -> None:
    """A meter that was replaced by one without encryption is one without it."""
    made = Intake(MeterSettings(port='/dev/none', decryption_key=KEY.hex()))
    made.begin()
    made.feed(cipher_frame(FIRST), 1.0)
    assert made.state.is_encrypted
    made.feed(SECOND, 2.0)
    assert not made.state.is_encrypted


def test_telegrams_with_a_checksum_of_another_kind_are_known() -> None:
    """What is seen says how many telegrams in a row have a form, and a checksum that has never held."""
    made = intake()
    made.feed(WRONG, 1.0)
    made.feed(WRONG, 2.0)
    assert made.state.foreign_checksums == 2
    made.feed(FIRST, 3.0)
    assert made.state.foreign_checksums == 0


def test_a_state_that_was_taken_does_not_change() -> None:
    """Whoever looks at it may do so while further bytes are read."""
    made = intake()
    before = made.state
    kept = replace(before)
    made.feed(FIRST, 1.0)
    assert before == kept
    assert made.state != kept


@pytest.mark.parametrize(
    ('data', 'counted'),
    [
        (WRONG, LineCounters(checksum_failures=1)),
        (FIRST[: FIRST.rindex(b'!')] + b'!\r\n', LineCounters(unconfirmed_telegrams=1)),
        (
            FIRST + FIRST[: FIRST.rindex(b'!')] + b'!\r\n',
            LineCounters(telegrams=1, checksum_failures=1),
        ),
        (at_8n1(of_version('2.2')).replace(b'\xb1', b'\xb5', 1), LineCounters(parity_failures=1)),
        (UNREADABLE, LineCounters(invalid_telegrams=1)),
        (FIRST[:60] + FIRST, LineCounters(telegrams=1, incomplete_telegrams=1)),
        (from_lines('0-0:96.1.1(', checksum=False), LineCounters()),
    ],
    ids=['wrong', 'unconfirmed', 'missing', 'parity', 'unreadable', 'cut', 'garbage'],
)
def test_each_telegram_is_counted_by_what_becomes_of_it(data: bytes, counted: LineCounters) -> None:
    """Once: as one that may be served, or by what is wrong with it."""
    made = intake()
    made.feed(data, 1.0)
    assert counters(made) == counted


def test_ignoring_the_checksum_is_a_setting() -> None:
    """[meter] checksum = ignore serves a telegram whose checksum is wrong, proved by nothing."""
    made = Intake(MeterSettings(port='/dev/none', checksum='ignore'))
    made.begin()
    reading = made.feed(WRONG, 1.0).reading
    assert reading is not None
    assert (reading.telegram, reading.verified_by) == (WRONG, Proof.NOTHING)


def test_changed_line_ends_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log says once that the port is not raw, and the reading knows it."""
    made = intake()
    for number in range(3):
        reading = made.feed(FIRST.replace(b'\r\n', b'\n'), float(number)).reading
        assert reading is not None
        assert reading.has_changed_line_ends
    (message,) = caplog.messages
    assert 'line ends' in message
    assert '/dev/none is not raw' in message
