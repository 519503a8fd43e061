"""Proof: which telegrams may be served, by what they and their meter show."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmr_rest.p1.checksum import crc16_x25
from dsmr_rest.p1.framing import Framer, ReceivedTelegram
from dsmr_rest.p1.proof import METERS_REMEMBERED, Prover, Rejection
from dsmr_rest.reading.telegram import Proof, Telegram
from dsmr_rest.simulated.telegrams import with_checksum
from tests.telegrams import at_8n1, from_lines, of_version

TIME = '0-0:1.0.0(240115103000W)'
ENERGY = '1-0:1.8.1(000123.456*kWh)'
MORE_ENERGY = '1-0:1.8.1(000123.457*kWh)'
PLAIN = from_lines('1-3:0.2.8(50)', TIME, ENERGY)
WRONG = PLAIN.replace(b'123.456', b'123.457')
BARE = from_lines(TIME, ENERGY, checksum=False)
BARE_LATER = from_lines(TIME, MORE_ENERGY, checksum=False)
DSMR_2 = from_lines('0-0:96.1.1(4B38)', ENERGY, checksum=False)


def received(data: bytes) -> list[ReceivedTelegram]:
    """The telegrams in these bytes."""
    return [each for each in Framer().feed(data) if isinstance(each, ReceivedTelegram)]


def outcomes(
    *telegrams: bytes, prover: Prover | None = None
) -> list[tuple[bytes, Proof] | Rejection]:
    """What becomes of each telegram, one after the other, for a new prover if none is given."""
    prover = prover or Prover()
    found: list[tuple[bytes, Proof] | Rejection] = []
    for data in telegrams:
        for each in received(data):
            outcome = prover.prove(each)
            if isinstance(outcome, Telegram):
                found.append((outcome.raw, outcome.verified_by))
            else:
                found.append(outcome)
    return found


def with_x25(*lines: str) -> bytes:
    """The telegram of these lines with the other checksum."""
    body = ''.join(f'{line}\r\n' for line in ('/HOL5\\2METER', '', *lines)).encode() + b'!'
    return b'%b%04X\r\n' % (body, crc16_x25(body))


# A checksum that is there must hold.


@pytest.mark.parametrize('header', ['/TST5\\2METER', '/ISk5\\2MIE5T-200', '/ESY5Q3DB1024'])
def test_a_wrong_checksum_is_refused_whoever_made_the_meter(header: str) -> None:
    """No header line excuses a checksum that does not hold, neither at first nor after good telegrams."""
    good = from_lines(TIME, ENERGY, header=header)
    wrong = good.replace(b'123.456', b'923.456')
    assert outcomes(wrong, good, wrong) == [
        Rejection.WRONG_CHECKSUM,
        (good, Proof.CHECKSUM),
        Rejection.WRONG_CHECKSUM,
    ]


@pytest.mark.parametrize('slashes', [1, 2, 3])
def test_a_header_may_have_slashes_of_its_own(slashes: int) -> None:
    """However many slashes the identification has, the checksum counts from the first."""
    stream = from_lines(TIME, ENERGY, header='/ABC5' + '/x' * slashes)
    assert outcomes(stream) == [(stream, Proof.CHECKSUM)]


@pytest.mark.parametrize('noise', [b'a/b', b'/', b'/x/y/'])
def test_noise_with_a_slash_before_the_header_is_left_out(noise: bytes) -> None:
    """The telegram begins at the '/' from which its checksum holds."""
    assert outcomes(noise + PLAIN) == [(PLAIN, Proof.CHECKSUM)]


@pytest.mark.parametrize('version', ['5.0', '4.2', 'belgium'])
def test_each_bit_counts(version: str) -> None:
    """No telegram with a checksum is served any more when one bit of it is turned."""
    whole = of_version(version)
    for at in range(1, whole.rindex(b'!'), 7):
        turned = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert all(isinstance(outcome, Rejection) for outcome in outcomes(turned)), at


def test_bytes_of_0xff_do_not_matter_where_the_checksum_holds() -> None:
    """A checksum is over the bytes as received, whatever their parity."""
    data = from_lines(TIME, ENERGY, '0-0:96.13.0(' + '\xff' * 1024 + ')')
    assert outcomes(data) == [(data, Proof.CHECKSUM)]


def test_a_7e1_telegram_with_a_checksum_is_proved_by_it() -> None:
    """The checksum is then over the seven bits that the meter sent."""
    assert outcomes(at_8n1(PLAIN)) == [(PLAIN, Proof.CHECKSUM)]
    assert outcomes(at_8n1(WRONG)) == [Rejection.WRONG_CHECKSUM]


# Another kind of checksum.


def test_x25_counts_from_the_second_telegram_on() -> None:
    """The first may be an accident; from the second on it is the meter's checksum, and each telegram must hold it."""
    first, second = with_x25(TIME, ENERGY), with_x25(TIME, MORE_ENERGY)
    damaged = first.replace(b'123.456', b'123.459')
    assert outcomes(first, second, damaged, first) == [
        Rejection.UNCONFIRMED,
        (second, Proof.CHECKSUM),
        Rejection.WRONG_CHECKSUM,
        (first, Proof.CHECKSUM),
    ]


def test_x25_must_hold_in_two_telegrams_running() -> None:
    """A damaged telegram between them begins the count again."""
    good = with_x25(TIME, ENERGY)
    damaged = good.replace(b'123.456', b'123.459')
    assert outcomes(good, damaged, good, good) == [
        Rejection.UNCONFIRMED,
        Rejection.WRONG_CHECKSUM,
        Rejection.UNCONFIRMED,
        (good, Proof.CHECKSUM),
    ]


def test_x25_never_counts_for_a_meter_of_the_standard() -> None:
    """Once the standard's checksum has held for a meter, X-25 is a wrong one."""
    good = with_x25(TIME, ENERGY)
    standard = with_checksum(good[: good.rindex(b'!')])
    assert outcomes(standard, good, good) == [
        (standard, Proof.CHECKSUM),
        Rejection.WRONG_CHECKSUM,
        Rejection.WRONG_CHECKSUM,
    ]


def test_the_standard_s_checksum_does_not_count_for_a_meter_of_x25() -> None:
    """Each telegram must hold the checksum that its meter has been found to send."""
    good = with_x25(TIME, ENERGY)
    standard = with_checksum(good[: good.rindex(b'!')])
    assert outcomes(good, good, standard)[-1] is Rejection.WRONG_CHECKSUM


def test_a_checksum_that_never_holds_is_counted_as_foreign() -> None:
    """Only telegrams in a row count whose every line has a form, and only until a checksum has held."""
    prover = Prover()
    outcomes(WRONG, WRONG, prover=prover)
    assert prover.foreign_checksums == 2
    odd = from_lines(TIME, 'no line').replace(b'no', b'on')
    outcomes(odd, prover=prover)
    assert prover.foreign_checksums == 0
    outcomes(PLAIN, WRONG, prover=prover)
    assert prover.foreign_checksums == 0


# Line ends that were changed on the way.


@pytest.mark.parametrize(
    'changed',
    [
        PLAIN.replace(b'\r\n', b'\n'),
        PLAIN.replace(b'\r\n', b'\r\r\n'),
        PLAIN.replace(b'\r\n', b'\n\n'),
        PLAIN.replace(b'\r\n\r\n', b'\r\n'),
        PLAIN.replace(b'\r\n\r\n', b'\n').replace(b'\r\n', b'\n'),
    ],
    ids=['LF alone', 'CR CR LF', 'LF LF', 'no blank line', 'LF alone, no blank line'],
)
def test_changed_line_ends_alone_damage_nothing(changed: bytes) -> None:
    """The telegram is proved by its checksum, comes out as received, and says that its line ends were changed."""
    (telegram,) = [Prover().prove(each) for each in received(changed)]
    assert isinstance(telegram, Telegram)
    assert telegram.raw.strip() == changed.strip()
    assert telegram.verified_by is Proof.CHECKSUM
    assert telegram.has_changed_line_ends
    damaged = changed.replace(b'123.456', b'123.457')
    assert outcomes(damaged) == [Rejection.WRONG_CHECKSUM]


def test_a_meter_may_send_lf_alone() -> None:
    """Where the checksum holds over the bytes as received, nothing was changed on the way."""
    (telegram,) = [Prover().prove(each) for each in received(from_lines(TIME, ENERGY, end='\n'))]
    assert isinstance(telegram, Telegram)
    assert not telegram.has_changed_line_ends


# Parity.


def test_parity_proves_a_telegram_without_a_checksum() -> None:
    """It comes out without the parity bits."""
    assert outcomes(at_8n1(DSMR_2)) == [(DSMR_2, Proof.PARITY)]
    assert outcomes(at_8n1(BARE)) == [(BARE, Proof.PARITY)]


@pytest.mark.parametrize(
    'telegram', [of_version('2.2'), DSMR_2, BARE], ids=['2.2', 'short', 'time']
)
def test_no_telegram_with_one_turned_bit_is_served(telegram: bytes) -> None:
    """Of the telegrams on a 7E1 line none comes out in which any single bit has been turned, not even in part."""
    sent = at_8n1(telegram)
    for at in range(len(sent)):
        for bit in range(8):
            turned = sent[:at] + bytes([sent[at] ^ 1 << bit]) + sent[at + 1 :]
            served = [each for each in outcomes(turned) if not isinstance(each, Rejection)]
            # Behind the '!' there is nothing but the line end, which says nothing.
            is_behind_the_mark = at > sent.rindex(b'!')
            assert not served or (is_behind_the_mark and served[0][0].startswith(telegram[:-2])), (
                at,
                bit,
            )


def test_a_telegram_with_wrong_parity_says_so() -> None:
    """It is rejected for its parity, however often it comes."""
    sent = at_8n1(DSMR_2)
    turned = sent.replace(b'\xb1', b'\xb5', 1)
    assert turned != sent
    assert outcomes(turned, turned) == [Rejection.WRONG_PARITY] * 2


# Neither checksum nor parity.


def test_dsmr_2_and_3_need_no_confirmation() -> None:
    """They have no checksum by their standard: a meter's number, and neither version nor time."""
    assert outcomes(DSMR_2) == [(DSMR_2, Proof.NOTHING)]
    simulated = of_version('2.2')
    assert outcomes(simulated) == [(simulated, Proof.NOTHING)]


def test_another_meter_without_a_checksum_is_confirmed_by_its_second_telegram() -> None:
    """The second with the same header and codes counts, and so does each after it."""
    assert outcomes(BARE, BARE_LATER, BARE) == [
        Rejection.UNCONFIRMED,
        (BARE_LATER, Proof.NOTHING),
        (BARE, Proof.NOTHING),
    ]


def test_other_codes_or_another_header_confirm_nothing() -> None:
    """A line that is missing, or a meter of another name, begins the count again."""
    shorter = from_lines(TIME, checksum=False)
    other = from_lines(TIME, ENERGY, header='/TST5\\2OTHER', checksum=False)
    assert outcomes(BARE, shorter, other, shorter) == [
        Rejection.UNCONFIRMED,
        Rejection.UNCONFIRMED,
        Rejection.UNCONFIRMED,
        (shorter, Proof.NOTHING),
    ]


@pytest.mark.parametrize('sent_before', [PLAIN, WRONG], ids=['right', 'wrong'])
def test_a_meter_that_has_sent_a_checksum_must_send_one(sent_before: bytes) -> None:
    """Without it the telegram is damaged, however often it comes, and whether the one before was right or wrong."""
    bare = PLAIN[: PLAIN.rindex(b'!')] + b'!\r\n'
    assert outcomes(sent_before, bare, bare)[1:] == [Rejection.MISSING_CHECKSUM] * 2


def test_noise_before_the_header_does_not_hide_which_meter_sends_a_checksum() -> None:
    """A '/' in the noise may begin the telegram, too: the meter of each possible header has sent a checksum."""
    bare = PLAIN[: PLAIN.rindex(b'!')] + b'!\r\n'
    sent = outcomes(b'/noise' + WRONG, bare, bare)
    assert sent == [Rejection.WRONG_CHECKSUM] + [Rejection.MISSING_CHECKSUM] * 2


def test_a_checksum_without_its_first_zero_is_one_too() -> None:
    """A meter whose checksum held must send one from then on, also if it leaves zeros out."""
    telegrams = (
        from_lines(TIME, f'1-0:1.8.1({number:06}.000*kWh)', header='/TST5\\2SHORT')
        for number in range(100_000)
    )
    whole = next(telegram for telegram in telegrams if telegram[-6:-5] == b'0')
    short = whole[:-6] + whole[-5:]
    bare = whole[:-6] + b'\r\n'
    assert outcomes(short, bare, bare) == [
        (short, Proof.CHECKSUM),
        Rejection.MISSING_CHECKSUM,
        Rejection.MISSING_CHECKSUM,
    ]


def test_a_few_digits_behind_the_end_do_not_show_that_a_meter_sends_a_checksum() -> None:
    """They may be noise, so a meter without a checksum is served again once they are over."""
    noisy = BARE.replace(b'!', b'!1A')
    assert outcomes(noisy, BARE, BARE_LATER) == [
        Rejection.WRONG_CHECKSUM,
        Rejection.UNCONFIRMED,
        (BARE_LATER, Proof.NOTHING),
    ]


def test_a_digit_that_became_a_line_end_is_no_missing_checksum() -> None:
    """An end line that does not end as the others do is not that of a meter without a checksum."""
    at = PLAIN.rindex(b'!') + 1
    damaged = PLAIN[:at] + b'\n' + PLAIN[at + 1 :]
    assert outcomes(damaged, damaged) == [Rejection.MISSING_CHECKSUM] * 2


def test_no_more_meters_are_remembered_than_needed() -> None:
    """Headers that come only once, as damaged ones do, make a prover forget the one it has not seen for longest."""
    prover = Prover()
    assert outcomes(BARE, prover=prover) == [Rejection.UNCONFIRMED]
    for number in range(METERS_REMEMBERED - 1):
        outcomes(from_lines(TIME, header=f'/TST5{number}', checksum=False), prover=prover)
    for maker in ('AAA', 'BBB'):
        assert outcomes(BARE, prover=prover) == [(BARE, Proof.NOTHING)]
        for number in range(METERS_REMEMBERED - 1):
            outcomes(from_lines(TIME, header=f'/{maker}5{number}', checksum=False), prover=prover)
    outcomes(from_lines(TIME, header='/CCC5', checksum=False), prover=prover)
    assert outcomes(BARE, prover=prover) == [Rejection.UNCONFIRMED]


# checksum = ignore.


def test_ignoring_the_checksum_serves_everything_but_wrong_parity() -> None:
    """Nothing then proves a telegram whose checksum is wrong or missing; a right one still does."""
    prover = Prover(ignores_checksum=True)
    turned = at_8n1(DSMR_2).replace(b'\xb1', b'\xb5', 1)
    assert outcomes(WRONG, PLAIN, BARE, turned, prover=prover) == [
        (WRONG, Proof.NOTHING),
        (PLAIN, Proof.CHECKSUM),
        (BARE, Proof.NOTHING),
        Rejection.WRONG_PARITY,
    ]


# From encrypted frames.


@pytest.mark.parametrize(
    ('data', 'is_authentic', 'expected'),
    [
        (PLAIN, True, Proof.AUTHENTICATION),
        (PLAIN, False, Proof.CHECKSUM),
        (WRONG, True, Rejection.WRONG_CHECKSUM),
        (WRONG, False, Rejection.WRONG_CHECKSUM),
        (BARE, True, Proof.AUTHENTICATION),
        (BARE, False, Rejection.MISSING_CHECKSUM),
        (DSMR_2, False, Rejection.MISSING_CHECKSUM),
        (with_x25(TIME, ENERGY), True, Proof.AUTHENTICATION),
        (with_x25(TIME, ENERGY), False, Rejection.UNCONFIRMED),
    ],
)
def test_what_proves_a_telegram_from_a_frame(
    data: bytes, expected: Proof | Rejection, *, is_authentic: bool
) -> None:
    """The frame's tag, or else the checksum within; one that is there must hold even in an authentic frame."""
    (each,) = received(data)
    outcome = Prover().prove_decrypted(each, is_authentic=is_authentic)
    if isinstance(outcome, Telegram):
        assert outcome.raw == data
        assert outcome.verified_by is expected
    else:
        assert outcome is expected


def test_ignoring_the_checksum_needs_the_tag_of_a_frame() -> None:
    """Of an authentic frame everything is served, of another only what its checksum proves."""
    (each,) = received(WRONG)
    prover = Prover(ignores_checksum=True)
    authentic = prover.prove_decrypted(each, is_authentic=True)
    assert isinstance(authentic, Telegram)
    assert authentic.verified_by is Proof.AUTHENTICATION
    assert prover.prove_decrypted(each, is_authentic=False) is Rejection.WRONG_CHECKSUM


# Random damage.

WHOLE = [of_version(version) for version in ('5.0', '4.2', 'belgium')]


def damaged(data: bytes, kind: str, chance: random.Random) -> bytes:
    """The telegram with bytes changed, a block cut out, or two digits exchanged."""
    at = chance.randrange(1, len(data))
    if kind == 'cut':
        return data[:at] + data[at + chance.randrange(1, 60) :]
    if kind == 'swap':
        digits = [place for place in range(len(data)) if data[place : place + 1].isdigit()]
        first, second = chance.sample(digits, 2)
        changed = bytearray(data)
        changed[first], changed[second] = changed[second], changed[first]
        return bytes(changed)
    changed = bytearray(data)
    for _ in range(chance.randint(1, 20)):
        changed[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize('kind', ['bytes', 'cut', 'swap'])
@pytest.mark.parametrize('data', WHOLE, ids=['5.0', '4.2', 'belgium'])
def test_a_damaged_telegram_is_not_served_as_good(data: bytes, kind: str) -> None:
    """Of 300 damaged ones, each sent twice, none comes out that differs before its '!'; the seed makes it certain."""
    chance = random.Random(f'{kind}{len(data)}')
    for _ in range(300):
        bad = damaged(data, kind, chance)
        for outcome in outcomes(bad, bad):
            if not isinstance(outcome, Rejection):
                raw, _proof = outcome
                assert raw[: raw.rindex(b'!')] == data[: data.rindex(b'!')]


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.sampled_from(WHOLE), st.data())
def test_no_change_of_a_few_bytes_is_served(data: bytes, draw: st.DataObject) -> None:
    """Whatever up to three bytes are changed to, the telegram is refused, or says the same up to its '!'."""
    changed = bytearray(data)
    for _ in range(3):
        at = draw.draw(st.integers(1, len(data) - 1))
        changed[at] = draw.draw(st.integers(0, 255))
    for outcome in outcomes(bytes(changed)):
        if not isinstance(outcome, Rejection):
            raw, _proof = outcome
            assert raw[: raw.rindex(b'!')] == data[: data.rindex(b'!')]
