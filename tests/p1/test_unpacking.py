"""Encrypted frames and what is in them: telegrams, failures of an accident, and failures of a key."""

import logging

import pytest

from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import MeterError
from dsmr_rest.p1.checksum import crc16_x25
from dsmr_rest.p1.framing import EncryptedFrame, Framer
from dsmr_rest.p1.line import LineCounters
from dsmr_rest.p1.problem_log import ProblemLog
from dsmr_rest.p1.proof import Prover
from dsmr_rest.p1.unpacking import Unpacked, Unpacker
from dsmr_rest.reading.telegram import Proof
from tests.telegrams import KEY, PUBLIC_KEY, cipher_frame, from_lines

PORT = '/dev/ttyUSB0'
PLAIN = from_lines('1-3:0.2.8(50)', '1-0:1.8.0(000123.456*kWh)')
OTHER_KEY = KEY[::-1]


def unpacker(key: bytes = KEY, authentication_key: bytes = PUBLIC_KEY) -> Unpacker:
    settings = MeterSettings(
        port=PORT, decryption_key=key.hex(), authentication_key=authentication_key.hex()
    )
    return Unpacker(settings, Prover(), ProblemLog())


def with_x25(telegram: bytes) -> bytes:
    """A telegram with the other checksum."""
    text = telegram[: telegram.rindex(b'!') + 1]
    return b'%b%04X\r\n' % (text, crc16_x25(text))


def frame(data: bytes) -> EncryptedFrame:
    """The one frame in these bytes."""
    (found,) = Framer().feed(data)
    assert isinstance(found, EncryptedFrame)
    return found


def test_an_authentic_frame_gives_its_telegram() -> None:
    """The telegram of a frame comes out as it was put in, and its tag is what proves it."""
    unpacked = unpacker().unpack(frame(cipher_frame(PLAIN)))
    (telegram,) = unpacked.telegrams
    assert telegram.raw == PLAIN
    assert telegram.verified_by is Proof.AUTHENTICATION
    assert unpacked.counted == LineCounters()


def test_without_a_key_no_frame_can_be_read() -> None:
    """The error says which setting is missing."""
    with pytest.raises(MeterError, match='decryption_key') as caught:
        unpacker(key=b'').unpack(frame(cipher_frame(PLAIN)))
    assert caught.value.fault.code == 'decryption_failed'


def test_one_failure_is_counted_and_the_second_is_the_key() -> None:
    """A single frame may have been damaged on its way; when the next fails too, the key does not work."""
    wrong = unpacker(key=OTHER_KEY)
    first = wrong.unpack(frame(cipher_frame(PLAIN)))
    assert first == Unpacked(counted=LineCounters(decryption_failures=1))
    with pytest.raises(MeterError) as caught:
        wrong.unpack(frame(cipher_frame(PLAIN, counter=2)))
    assert caught.value.fault.code == 'decryption_failed'


def test_keys_that_have_worked_are_not_doubted() -> None:
    """After a frame that could be decrypted, damaged ones are counted, however many there are."""
    right = unpacker()
    right.unpack(frame(cipher_frame(PLAIN)))
    for counter in range(2, 5):
        damaged = right.unpack(frame(cipher_frame(PLAIN, OTHER_KEY, counter=counter)))
        assert damaged.counted == LineCounters(decryption_failures=1)


def test_what_is_authentic_but_no_telegram_is_invalid() -> None:
    """An authentic frame without a telegram, or with a wrong checksum in it, says so: no cable is at fault."""
    right = unpacker()
    nothing = right.unpack(frame(cipher_frame(b'no telegram at all\r\n' * 3)))
    assert nothing.invalid_because == 'no whole telegram is in the frame'
    changed = PLAIN.replace(b'123.456', b'123.457')
    wrong = right.unpack(frame(cipher_frame(changed, counter=2)))
    assert wrong.invalid_because == 'the checksum is wrong or missing'


def test_a_wrong_authentication_key_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The checksum proves the telegram then, and one line of the log says that the tag does not."""
    caplog.set_level(logging.WARNING)
    other = unpacker(authentication_key=OTHER_KEY)
    for counter in (1, 2):
        (telegram,) = other.unpack(frame(cipher_frame(PLAIN, counter=counter))).telegrams
        assert telegram.verified_by is Proof.CHECKSUM
    (record,) = caplog.records
    assert 'are not authenticated with authentication_key' in record.getMessage()


def test_another_checksum_is_believed_the_second_time() -> None:
    """Where the tag proves nothing, one telegram with the other kind of checksum may be a damaged one."""
    other = unpacker(authentication_key=OTHER_KEY)
    plain = with_x25(PLAIN)
    first = other.unpack(frame(cipher_frame(plain)))
    assert first == Unpacked(counted=LineCounters(unconfirmed_telegrams=1))
    (telegram,) = other.unpack(frame(cipher_frame(plain, counter=2))).telegrams
    assert telegram.verified_by is Proof.CHECKSUM


def test_a_frame_in_a_frame_is_no_telegram() -> None:
    """What is encrypted twice is not read: no meter sends that."""
    twice = unpacker().unpack(frame(cipher_frame(cipher_frame(PLAIN))))
    assert twice.invalid_because == 'no whole telegram is in the frame'


def without_tag(plain: bytes, counter: int) -> EncryptedFrame:
    """An encrypted frame of security control 0x20, whose content ends with the text."""
    tagged = cipher_frame(plain, counter=counter, control=0x20)
    content = tagged[13:-12]
    return frame(tagged[:11] + len(content).to_bytes(2, 'big') + content)


NO_CHECKSUM = from_lines('1-3:0.2.8(50)', '1-0:1.8.0(000123.456*kWh)', checksum=False)
WRONG_CHECKSUM = PLAIN.replace(b'123.456', b'123.457')


@pytest.mark.parametrize('wrong', [NO_CHECKSUM, WRONG_CHECKSUM])
def test_without_tag_and_checksum_the_way_out_is_to_ignore_it(wrong: bytes) -> None:
    """No authentication key can help; the error says what does, and that then serves the telegram, unproved."""
    careful = unpacker()
    careful.unpack(without_tag(wrong, 1))
    with pytest.raises(MeterError, match='checksum = ignore'):
        careful.unpack(without_tag(wrong, 2))
    careless = Unpacker(
        MeterSettings(port=PORT, decryption_key=KEY.hex(), checksum='ignore'),
        Prover(ignores_checksum=True),
        ProblemLog(),
    )
    (telegram,) = careless.unpack(without_tag(wrong, 3)).telegrams
    assert telegram.verified_by is Proof.NOTHING
