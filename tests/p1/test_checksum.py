"""The checksums: the P1 standard's is dsmr_parser's, and X-25 is what its standard says."""

from dsmr_parser.parsers import TelegramParser
from hypothesis import given
from hypothesis import strategies as st

from dsmr_rest.p1.checksum import crc16, crc16_x25


@given(st.binary(max_size=2000))
def test_the_checksum_is_the_library_s(data: bytes) -> None:
    """crc16() returns what dsmr_parser's returns."""
    assert crc16(data) == TelegramParser.crc16(data.decode('latin-1'))


def test_x25_has_its_check_value() -> None:
    """The digits 1 to 9 give 0x906E, the check value of CRC-16/X-25 in the catalogues; nothing gives 0."""
    assert crc16_x25(b'123456789') == 0x906E
    assert crc16_x25(b'') == 0


@given(st.binary(min_size=1, max_size=200))
def test_x25_finds_each_damaged_bit(data: bytes) -> None:
    """One bit that is turned changes it."""
    for at in range(len(data)):
        turned = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        assert crc16_x25(turned) != crc16_x25(data)
