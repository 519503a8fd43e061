"""The checksums that meters put at the end of their telegrams.

Arithmetic only: this module does not know where in a telegram a checksum stands, nor which one a meter computes.
"""


def _table(polynomial: int) -> tuple[int, ...]:
    """The CRC of each byte alone, for a polynomial with its bits reversed (least significant bit first)."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            is_odd = crc & 1
            crc >>= 1
            if is_odd:
                crc ^= polynomial
        table.append(crc)
    return tuple(table)


_P1_TABLE = _table(0xA001)  # x16 + x15 + x2 + 1
_X25_TABLE = _table(0x8408)  # x16 + x12 + x5 + 1


def _crc(data: bytes, table: tuple[int, ...], crc: int) -> int:
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc


def crc16(data: bytes) -> int:
    """The checksum of the P1 companion standard: CRC-16, polynomial x16 + x15 + x2 + 1, least significant bit first."""
    return _crc(data, _P1_TABLE, 0)


def crc16_x25(data: bytes) -> int:
    """The checksum that HDLC has (ISO/IEC 13239) and some Hungarian meters send: CRC-16/X-25."""
    return _crc(data, _X25_TABLE, 0xFFFF) ^ 0xFFFF
