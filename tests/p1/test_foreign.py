"""Frames of other protocols: perfect ones are recognized wherever they are, and noise is not taken for one."""

import random

import pytest

from dsmr_rest.p1.foreign import has_telnet_commands, other_protocol
from dsmr_rest.p1.framing import Framer
from dsmr_rest.simulated.telegrams import VERSIONS
from tests.telegrams import at_8n1, cipher_frame, of_version


def hdlc(size: int, *, head: int = 0xA0) -> bytes:
    """A frame of HDLC, type 3, with so many bytes between its flags; a head of 0xA8 says that more segments follow."""
    content = b'\xcf\x02\x23' + b'\x10' * (size - 5)
    return b'\x7e' + bytes([head | size >> 8, size & 0xFF]) + content + b'\x7e'


def m_bus(size: int) -> bytes:
    """A long frame of M-Bus with so many bytes of content."""
    content = b'\x53\xff' + b'\x20' * (size - 2)
    return bytes([0x68, size, size, 0x68]) + content + bytes([sum(content) & 0xFF]) + b'\x16'


SHORT_CODES = b'/LGZ4TST\r\n\r\nF.F(00)\r\n1.8.0*01(000123.4*kWh)\r\n!\r\n'
SML = b'\x1b\x1b\x1b\x1b\x01\x01\x01\x01\x76\x05\x00\x00\x00\x01'
WITHOUT_TITLE = b'/EGM5 210.D1\r\n\r\n\xdb\x00\x82\x01\x10\x30\x00\x00\x00\x01' + b'\x55' * 40
FRAMES = {
    'short HDLC': (hdlc(120), 'HDLC frames of DLMS'),
    'HDLC in segments': (hdlc(0xA4, head=0xA8), 'HDLC frames of DLMS'),
    'short codes': (SHORT_CODES, 'IEC 62056-21 with short codes'),
    'short codes at 7E1': (at_8n1(SHORT_CODES), 'IEC 62056-21 with short codes'),
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


@pytest.mark.parametrize('frame', [hdlc(120), hdlc(0x234), m_bus(250)])
def test_a_frame_must_end_where_its_head_says(frame: bytes) -> None:
    """Noise may begin as a frame does; its length does not fit."""
    assert other_protocol(frame)
    assert other_protocol(frame[:-1] + b'\x00' * 10) == ''
    assert other_protocol(frame[:-1]) == ''


@pytest.mark.parametrize('cut', [1, 7, 4096])
@pytest.mark.parametrize(
    'head',
    [
        b'\x7e\xa0\xd2\xce\xff\x03\x13\x38\xbd\xe6\xe7\x00',
        b'\x7e\xa8\xa4\xcf\x02\x23\x03\x99\x96\xe6\xe7\x00',
        b'\x68\xfa\xfa\x68\x53\xff\x00\x01\x67',
    ],
)
def test_an_encrypted_frame_within_another_is_none_of_p1(head: bytes, cut: int) -> None:
    """No key makes a telegram of it, so nobody is sent to ask for one; by itself it is a frame."""
    content = cipher_frame(b'\x0f' * 150)
    assert frames_in(content + head, cut) == 1
    assert frames_in(head + content, cut) == 0
    assert frames_in(b'\x16' * 100 + head + content + content, cut) == 1


def frames_in(data: bytes, cut: int) -> int:
    """The encrypted frames that a framer finds in pieces of this size."""
    framer = Framer()
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]
    return sum(len(framer.feed(piece)) for piece in pieces)


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
