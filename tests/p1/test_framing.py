"""Framing: whatever arrives and however it is cut, the right bytes come out, bounded and without exception."""

import random
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmr_rest.p1.framing import (
    FRAME_LIMIT,
    LATER_SLASHES_TRIED,
    TELEGRAM_LIMIT,
    EncryptedFrame,
    Framer,
    ReceivedTelegram,
)
from dsmr_rest.p1.proof import Prover
from dsmr_rest.reading.telegram import Telegram
from dsmr_rest.simulated.telegrams import with_checksum
from tests.telegrams import at_8n1, cipher_frame, from_lines

LINES = ('1-3:0.2.8(50)', '1-0:1.8.1(000123.456*kWh)', '0-1:24.2.1(240115103000W)(00012.345*m3)')
PLAIN = from_lines(*LINES)
OLD = from_lines(*LINES[1:], checksum=False)
NEXT = from_lines('1-0:1.8.1(000124.000*kWh)', header='/NXT5\\2NEXT')
SLASHED = from_lines(*LINES, header='/HLY5/D545-METER')


def small_checksum() -> bytes:
    """A telegram whose checksum begins with a zero and has a letter."""
    for number in range(10000):
        telegram = from_lines(f'1-0:1.8.1({number:06}.000*kWh)')
        checksum = telegram[-6:-2]
        if checksum.startswith(b'0') and checksum.strip(b'0').isalpha():
            return telegram
    raise AssertionError


SMALL = small_checksum()
END = len(SMALL) - 6  # where its four digits begin
LF_ONLY = from_lines(*LINES, end='\n')
WITH_SLASHES = from_lines(*LINES, '0-0:96.13.0(a/b/c)')
WITH_MARK = from_lines(*LINES, '0-0:96.13.0(!1234)')
WITH_0XFF = from_lines(*LINES, '0-0:96.13.0(\xff\xff)')
NO_BLANK_LINE = with_checksum('/TST5\r\n1-0:1.7.0(00.100*kW)\r\n')
WRONG = PLAIN.replace(b'123.456', b'123.457')

# What is sent, and the telegrams that are in it.
CASES: dict[str, tuple[bytes, list[bytes]]] = {
    'plain': (PLAIN, [PLAIN]),
    'without checksum': (OLD, [OLD]),
    'LF only': (LF_ONLY, [LF_ONLY]),
    'lower-case checksum': (SMALL[:END] + SMALL[END:].lower(), [SMALL[:END] + SMALL[END:].lower()]),
    'unpadded checksum': (
        SMALL[:END] + SMALL[END:].lstrip(b'0'),
        [SMALL[:END] + SMALL[END:].lstrip(b'0')],
    ),
    'NUL after the checksum': (PLAIN[:-2] + b'\0\r\n', [PLAIN[:-2] + b'\0\r\n']),
    'NUL after the last line': (PLAIN + b'\0', [PLAIN]),
    'blanks after the checksum': (PLAIN[:-2] + b'  \r\n', [PLAIN[:-2] + b'  \r\n']),
    'slash within the header': (SLASHED, [SLASHED]),
    'slash within a value': (WITH_SLASHES, [WITH_SLASHES]),
    'exclamation mark within a value': (WITH_MARK, [WITH_MARK]),
    '0xFF within a text': (WITH_0XFF, [WITH_0XFF]),
    '7E1': (at_8n1(PLAIN), [PLAIN]),
    '7E1 without checksum': (at_8n1(OLD), [OLD]),
    'cut mid-line before the next header': (PLAIN[:50] + SLASHED, [SLASHED]),
    'cut within the header': (PLAIN[:7] + SLASHED, [SLASHED]),
    'cut after a value': (PLAIN[: PLAIN.index(b'kWh)') + 4] + PLAIN, [PLAIN]),
    'end line without newline': (PLAIN[:-2] + SLASHED, [PLAIN[:-2], SLASHED]),
    'end line with CR only': (PLAIN[:-1] + PLAIN, [PLAIN[:-1], PLAIN]),
    'without blank line': (NO_BLANK_LINE, [NO_BLANK_LINE]),
    'wrong checksum': (WRONG, [WRONG]),
}
NOISES = {
    'nothing': b'',
    'newline': b'\r\n',
    'the end of a telegram': b'0.100*kW)\r\n0-0:96.13.0()\r\n!1A2B\r\n',
    'a whole telegram less its header': PLAIN.partition(b'\r\n')[2],
    'no text': b'\x00\xff\xfe\x80\r\n',
    'slashes': b'a/b/c\r\n/\r\n',
    'a header alone': b'/TST5\\2TELEGRAM\r\n\r\n',
    'frames': b'\xdb\x08\xdb\x08abcdefgh\x82\x00\xff\x30\r\n',
}


def feed(framer: Framer, chunks: Iterable[bytes]) -> list[ReceivedTelegram | EncryptedFrame]:
    """All that the framer finds in the chunks."""
    found = []
    for chunk in chunks:
        found += framer.feed(chunk)
    return found


def raws(*chunks: bytes) -> list[bytes]:
    """The telegrams in the chunks, from the right '/' on and without parity bits, proved or not."""
    found = feed(Framer(), chunks)
    received = [each for each in found if isinstance(each, ReceivedTelegram)]
    telegrams = [Prover(ignores_checksum=True).prove(each) for each in received]
    return [telegram.raw for telegram in telegrams if isinstance(telegram, Telegram)]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def each_byte(data: bytes) -> Iterator[bytes]:
    return pieces(data, 1)


@pytest.mark.parametrize('case', CASES)
def test_the_telegrams_come_out_whole_however_they_are_cut(case: str) -> None:
    """Fed whole, byte by byte or cut anywhere, exactly the telegrams' own bytes come out."""
    stream, expected = CASES[case]
    assert raws(stream) == expected
    assert raws(*each_byte(stream)) == expected
    for cut in range(len(stream)):
        assert raws(stream[:cut], stream[cut:]) == expected, cut


@pytest.mark.parametrize('noise', NOISES)
@pytest.mark.parametrize('case', CASES)
def test_neither_noise_before_nor_a_telegram_after_changes_what_comes_out(
    case: str, noise: str
) -> None:
    """Noise before adds nothing, and the next telegram follows."""
    stream, expected = CASES[case]
    assert raws(NOISES[noise] + stream + NEXT) == [*expected, NEXT]
    assert raws(*each_byte(NOISES[noise] + stream + NEXT)) == [*expected, NEXT]


@pytest.mark.parametrize(
    'noise',
    [b'noise', b'\xff\x00', b'/', b'a/b', b'0.1*kW)', b'!', b'!12', b'/XYZ5', b'(', b'\xdb'],
)
@pytest.mark.parametrize(
    'case', ['plain', 'without checksum', 'slash within the header', 'LF only']
)
def test_a_header_needs_no_newline_before_it(case: str, noise: bytes) -> None:
    """Noise that runs into the header does not become part of it."""
    stream, expected = CASES[case]
    assert raws(noise + stream) == expected
    assert raws(*each_byte(noise + stream)) == expected


def test_a_7e1_header_needs_no_newline_before_it() -> None:
    """Noise that runs into the header of a telegram with parity bits does not become part of it."""
    for noise in (b'\x01', b'\x01\x07', b'\x03'):
        assert raws(noise + at_8n1(PLAIN)) == [PLAIN]


def test_a_telegram_that_never_ends_is_counted() -> None:
    """A telegram that began, showed an object and was cut short counts as incomplete, once."""
    framer = Framer()
    framer.feed(PLAIN[:-20])
    assert framer.inside
    assert framer.incomplete == 0
    assert len(framer.feed(PLAIN)) == 1
    assert (framer.incomplete, framer.inside) == (1, False)


@pytest.mark.parametrize('length', [*range(225, 300), 500, 512, 1000])
def test_a_header_at_the_end_of_a_long_line_is_found(length: int) -> None:
    """Noise of any length that begins with a '/' hides no telegram whose header ends the same line."""
    assert PLAIN in raws(b'/' + b'x' * length + PLAIN)


@pytest.mark.parametrize('header', ['/', '/x', '/12 34', '/x/y'])
def test_a_telegram_without_identification_and_checksum_is_whole(header: str) -> None:
    """Without both the telegram begins with its header line, whatever that is."""
    data = from_lines(*LINES[1:], header=header, checksum=False)
    assert raws(data) == [data]


def test_a_telegram_with_a_line_without_end_is_dropped() -> None:
    """However much of such a line is kept, the telegram does not go on after it."""
    framer = Framer()
    begin, end = OLD[: OLD.rindex(b'0-1')], OLD[OLD.rindex(b'0-1') :]
    assert framer.feed(begin + b'\xff' * (TELEGRAM_LIMIT + 1)) == []
    assert framer.feed(b'\r\n' + end) == []
    assert framer.incomplete == 1


def test_a_telegram_without_end_is_dropped_at_the_limit() -> None:
    """Lines without an end line are given up at the limit, and the next telegram is found."""
    endless = PLAIN[: PLAIN.rindex(b'!')] + b'0-0:96.13.0()\r\n' * (TELEGRAM_LIMIT // 15 + 1)
    framer = Framer()
    assert framer.feed(endless) == []
    assert framer.incomplete == 1
    assert framer.pending == 0
    assert raws(endless + NEXT) == [NEXT]


def of_length(length: int) -> bytes:
    """A telegram of so many bytes."""
    head, _, _ = PLAIN.rpartition(b'!')
    line = b'0-0:96.13.0()\r\n'
    missing = length - len(PLAIN)
    lines, rest = divmod(missing, len(line))
    padding = b'x' * rest
    return with_checksum(head + line * (lines - 1) + b'0-0:96.13.0(' + padding + b')\r\n')


def test_a_telegram_may_be_as_long_as_the_limit() -> None:
    """One byte more is too many, wherever in the telegram it is; what follows is found."""
    longest = of_length(TELEGRAM_LIMIT)
    assert len(longest) == TELEGRAM_LIMIT
    assert raws(longest + NEXT) == [longest, NEXT]
    assert raws(of_length(TELEGRAM_LIMIT + 1) + NEXT) == [NEXT]


def test_a_frame_may_be_as_long_as_the_limit() -> None:
    """A head that announces one byte more does not begin a frame."""
    head_size = 13  # tag, system title with its length, and the length of what follows
    for length, is_found in ((FRAME_LIMIT, True), (FRAME_LIMIT + 1, False)):
        announced = length - head_size
        head = b'\xdb\x08abcdefgh\x82' + announced.to_bytes(2, 'big')
        # The security control counts in the announced length.
        frame = head + b'\x30' + b'.' * (announced - 1)
        found = feed(Framer(), [frame + b'.'])
        assert (len(found) == 1) == is_found


def test_the_bytes_of_a_telegram_are_pending_from_its_first_byte_to_its_last() -> None:
    """Also those of a header line that has not ended, of eight bits and of 7E1; noise between telegrams is not."""
    for telegram in (PLAIN, at_8n1(OLD)):
        framer = Framer()
        framer.feed(b'noise\n')
        pending = []
        for byte in each_byte(telegram):
            framer.feed(byte)
            pending.append(framer.pending)
        assert pending == [*range(1, len(telegram)), 0]
        framer.feed(b'noise without end')
        assert framer.pending == 0


def test_which_bytes_are_text() -> None:
    """Printable ASCII, CR and LF, as they are and at 7E1, where the parity bit makes the number of ones even."""
    for byte in range(256):
        framer = Framer()
        framer.feed(bytes([byte]))
        character = chr(byte & 0x7F)
        is_printable = character.isprintable() or character in '\r\n'
        has_parity = byte.bit_count() % 2 == 0
        is_text = is_printable and (byte < 0x80 or has_parity)
        assert framer.unprintable == int(not is_text), byte


MUCH = 300_000
"""Bytes: several times what may be held, so that what is kept by mistake shows."""
MOST_HELD = 4 * TELEGRAM_LIMIT
"""Bytes of memory: a telegram, a line and a frame that have not ended, with what Python allocates ahead."""
CHANCE = random.Random(3)
LETTERS = bytes(CHANCE.choices(range(32, 127), k=MUCH // 100)) * 100
GARBAGE = {
    'random': CHANCE.randbytes(MUCH),
    'printable lines': b'\r\n'.join(LETTERS[at : at + 70] for at in range(0, MUCH, 70)),
    'printable, no newline': LETTERS,
    'letters only': b'a' * MUCH,
    'slashes': b'/' * MUCH,
    'slash lines': b'/\n' * (MUCH // 2),
    'exclamation marks': b'!' * MUCH,
    'newlines': b'\n' * MUCH,
    'NUL': b'\0' * MUCH,
    'headers': b'/TST5\\2TELEGRAM\r\n' * (MUCH // 17),
    'objects': b'1-0:1.8.1(000123.456*kWh)\r\n' * (MUCH // 27),
    'header and objects': b'/TST5\r\n' + b'1-0:1.8.1(000123.456*kWh)\r\n' * (MUCH // 27),
    'blank body': b'/TST5\r\n' + b'\n' * MUCH,
    'tags': b'\xdb' * MUCH,
    'tags and lengths': b'\xdb\x08' * (MUCH // 2),
    'frame heads': b'\xdb\x08abcdefgh\x82\x0f\xe0\x30' * (MUCH // 14),
    'a too long frame': b'\xdb\x08abcdefgh\x82\xff\xff\x30' + LETTERS,
    'too long frames': b'\xdb\x08abcdefgh\x82\xff\xff\x30' * (MUCH // 14),
}


@pytest.mark.parametrize('kind', GARBAGE)
def test_garbage_leaves_bounded_memory_and_hides_nothing(kind: str) -> None:
    """Much garbage, as a port hands it over, is forgotten, and the telegram on the next line is found."""
    tracemalloc.start()
    try:
        framer = Framer()
        for chunk in pieces(GARBAGE[kind], 4096):
            framer.feed(chunk)
            held, _ = tracemalloc.get_traced_memory()
            assert held < MOST_HELD
    finally:
        tracemalloc.stop()
    assert PLAIN in [found.raw for found in framer.feed(b'\r\n' + PLAIN)]


@pytest.mark.parametrize(
    ('length', 'chunk'),
    [(length, chunk) for length in (100, 16_300, 40_000) for chunk in (1, 4096, 10**6)],
)
def test_a_telegram_after_a_line_that_had_no_end_is_found(length: int, chunk: int) -> None:
    """Garbage with slashes that runs into the header, however long, hides no telegram."""
    stream = b'/' + b'a' * length + PLAIN
    assert PLAIN in raws(*pieces(stream, chunk))


def test_frames_are_found_among_all_else() -> None:
    """An encrypted frame comes out whole, whatever is around it and however it is cut."""
    frame = cipher_frame(PLAIN)
    stream = b'noise\xdb\x08' + frame + b'\r\n' + PLAIN + frame
    for chunks in ([stream], each_byte(stream)):
        found = feed(Framer(), chunks)
        assert sorted(part.raw for part in found) == sorted([frame, PLAIN, frame])


def test_a_frame_as_long_as_a_telegram_may_be_is_found() -> None:
    """Texts of their full length make a frame long, and it comes out whole."""
    line = b'0-0:96.13.0(' + b'4C' * 1024 + b')\r\n'
    body = PLAIN[: PLAIN.rindex(b'!')] + line * 6
    frame = cipher_frame(with_checksum(body))
    assert feed(Framer(), each_byte(frame)) == [EncryptedFrame(frame)]


@pytest.mark.parametrize('size', [8, 16, 180, 4096])
def test_the_bytes_of_a_frame_are_not_a_sign_of_a_wrong_baud_rate(size: int) -> None:
    """While a frame comes in, in whatever pieces, fewer bytes are unexplained than its head has."""
    framer = Framer()
    for chunk in pieces(cipher_frame(PLAIN) * 3, size):
        framer.feed(chunk)
        assert framer.unprintable <= framer.unexplained < 14


@pytest.mark.parametrize('line', [b'1-0:1.8.1(000123.456*kWh)\r\n', b'!12AB\r\n'])
def test_a_line_that_a_telegram_may_have_explains_what_came_before(line: bytes) -> None:
    """Whoever begins to listen in the middle of a telegram must not take it for a sign of a wrong baud rate."""
    framer = Framer()
    framer.feed(b'\xff\x00' * 50 + b'\r\n')
    assert framer.unexplained == 102
    assert framer.unprintable == 100
    framer.feed(line)
    assert (framer.unexplained, framer.unprintable) == (0, 0)


@pytest.mark.parametrize('header', [b'/ISK5\\2M550T-1012', b'/NWB-WARMTELINK'])
def test_a_telegram_cut_anywhere_does_not_hide_the_same_meter_s_next(header: bytes) -> None:
    """Wherever a telegram is cut, in the middle of a line too, the next one of that meter comes out whole."""
    whole = with_checksum(
        header + b'\r\n\r\n1-3:0.2.8(50)\r\n1-0:1.8.1(000123.456*kWh)\r\n0-0:96.13.0()\r\n'
    )
    for cut in range(len(whole) - 6):
        assert whole in raws(whole[:cut] + whole), cut


def test_a_frame_that_was_cut_short_does_not_hide_the_next() -> None:
    """The frame after half a frame comes out with its own last byte."""
    frame = cipher_frame(PLAIN)
    found = Framer().feed(frame[: len(frame) // 2] + frame)
    assert EncryptedFrame(frame) in found


def test_a_longer_frame_that_was_cut_short_does_not_delay_the_next() -> None:
    """A frame is not held back, to be taken for fresh later, by a longer one that was cut before it."""
    frame = cipher_frame(PLAIN)
    longer = cipher_frame(PLAIN * 10)
    found = Framer().feed(longer[:100] + frame)
    assert EncryptedFrame(frame) in found


PIECES = [
    PLAIN,
    OLD,
    SLASHED,
    PLAIN[:40],
    PLAIN[40:],
    at_8n1(PLAIN),
    at_8n1(PLAIN)[:30],
    cipher_frame(b'x' * 20),
]
PIECES += [
    b'/',
    b'!',
    b'!AB',
    b'!ABCD\r\n',
    b'\r\n',
    b'\n',
    b')',
    b'(',
    b'\0',
    b'\xdb\x08',
    b'1-0:1.8.1(1)\r\n',
    b'/TST5\r\n',
]
STREAMS = st.lists(st.binary(max_size=40) | st.sampled_from(PIECES), max_size=12).map(b''.join)
CUTS = st.lists(st.integers(0, 2000), max_size=20)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(places), len(stream)]
    return [stream[start:end] for start, end in pairwise(ends)]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(STREAMS, CUTS, STREAMS)
def test_how_a_stream_is_cut_does_not_change_what_is_found(
    stream: bytes, cuts: list[int], later: bytes
) -> None:
    """Any bytes give the same telegrams and frames in any chunks, and so does what comes later, without exception."""
    whole, parts = Framer(), Framer()
    expected = whole.feed(stream)
    found = feed(parts, cut(stream, cuts))
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert (parts.incomplete, parts.inside, parts.pending) == (
        whole.incomplete,
        whole.inside,
        whole.pending,
    )
    assert parts.feed(later) == whole.feed(later)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(STREAMS, st.sampled_from([PLAIN, SLASHED, OLD]))
def test_a_telegram_after_any_garbage_is_found(garbage: bytes, telegram: bytes) -> None:
    """Whatever came before, even without a newline, a whole telegram is found."""
    assert telegram in raws(garbage + telegram)


@pytest.mark.parametrize('arrived', range(1, 17))
def test_the_beginning_of_a_header_outlives_the_noise_before_it(arrived: int) -> None:
    """When a line without end is dropped in the middle of a header, the telegram is found nevertheless."""
    noise = b'a' * (TELEGRAM_LIMIT + 1)
    assert raws(noise + PLAIN[:arrived], PLAIN[arrived:]) == [PLAIN]


def test_a_header_of_slashes_costs_a_bounded_number_of_attempts() -> None:
    """The telegram may begin at the first of them or at one of the last few."""
    header = '/' * 100 + 'TST5'
    (found,) = feed(Framer(), [from_lines(*LINES, header=header)])
    assert isinstance(found, ReceivedTelegram)
    assert found.starts == (0, *range(100 - LATER_SLASHES_TRIED, 100))
