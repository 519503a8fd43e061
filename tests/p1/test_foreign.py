"""Frames of other protocols: perfect ones are recognized wherever they are, and noise is not taken for one."""

import random

import pytest

from dsmr_rest.p1.foreign import has_telnet_commands, other_protocol
from dsmr_rest.simulated.telegrams import VERSIONS
from tests.telegrams import cipher_frame, of_version


def hdlc(size: int) -> bytes:
    """A frame of HDLC, type 3, with so many bytes between its flags."""
    content = b'\xcf\x02\x23' + b'\x10' * (size - 5)
    return b'\x7e' + bytes([0xA0 | size >> 8, size & 0xFF]) + content + b'\x7e'


def m_bus(size: int) -> bytes:
    """A long frame of M-Bus with so many bytes of content."""
    content = b'\x53\xff' + b'\x20' * (size - 2)
    return bytes([0x68, size, size, 0x68]) + content + bytes([sum(content) & 0xFF]) + b'\x16'


SML = b'\x1b\x1b\x1b\x1b\x01\x01\x01\x01\x76\x05\x00\x00\x00\x01'
WITHOUT_TITLE = b'/EGM5 210.D1\r\n\r\n\xdb\x00\x82\x01\x10\x30\x00\x00\x00\x01' + b'\x55' * 40
FRAMES = {
    'short HDLC': (hdlc(120), 'HDLC frames of DLMS'),
    'long HDLC': (hdlc(0x234), 'HDLC frames of DLMS'),
    'M-Bus': (m_bus(250), 'M-Bus frames'),
    'SML': (SML, 'SML, as German meters send it'),
    'no system title': (WITHOUT_TITLE, 'encrypted frames without a system title'),
    'no tag before it': (
        WITHOUT_TITLE.replace(b'\xdb', b''),
        'encrypted frames without a system title',
    ),
}


@pytest.mark.parametrize('noise', [b'', b'\x7e', b'\x68\x10', b'the end of another frame\x16'])
@pytest.mark.parametrize('kind', FRAMES)
def test_a_perfect_frame_is_recognized_wherever_it_is(kind: str, noise: bytes) -> None:
    """Bytes before and after it do not hide it."""
    frame, name = FRAMES[kind]
    assert other_protocol(noise + frame + noise) == name


@pytest.mark.parametrize('kind', ['short HDLC', 'long HDLC', 'M-Bus'])
def test_a_frame_whose_length_does_not_fit_is_none(kind: str) -> None:
    """A byte that is missing, or the end of what was received, makes it noise."""
    frame, _ = FRAMES[kind]
    assert other_protocol(frame[:20] + frame[21:]) == ''
    assert other_protocol(frame[:-1]) == ''


@pytest.mark.parametrize('version', VERSIONS)
def test_telegrams_and_frames_of_p1_are_no_other_protocol(version: str) -> None:
    """Neither a telegram nor an encrypted one is taken for a frame of another protocol."""
    telegram = of_version(version)
    assert other_protocol(telegram) == ''
    assert other_protocol(cipher_frame(telegram)) == ''
    assert not has_telnet_commands(telegram)


def test_noise_is_hardly_ever_taken_for_a_frame() -> None:
    """Of a thousand pieces of noise at most one has by chance what a frame has."""
    chance = random.Random(7)
    taken = sum(bool(other_protocol(chance.randbytes(2048))) for _ in range(1000))
    assert taken <= 1


def test_telnet_commands_are_seen_among_text() -> None:
    """WILL, WONT, DO and DONT count; a byte of 255 alone does not."""
    for command in (b'\xff\xfb\x01', b'\xff\xfc\x01', b'\xff\xfd\x03', b'\xff\xfe\x22'):
        assert has_telnet_commands(b'1-0:1.8.1(0001' + command + b'23.4*kWh)')
    assert not has_telnet_commands(b'\xff' * 100)
