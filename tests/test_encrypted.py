"""Encrypted telegrams on a real pty: the right keys give readings, anything else its code, and a key is never shown."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, cycle

import pytest
from conftest import new_meter
from reading_loop import read_until
from telegrams import KEY, PUBLIC_KEY, cipher_frame, from_lines, of_specification, of_version

from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import MeterError
from dsmr_rest.p1_reader import P1Reader
from dsmr_rest.reading import Reading
from dsmr_rest.serial_line import LineCounters
from dsmr_rest.simulated_meter import SimulatedMeter

INTERVAL = 0.05
OWN_KEY = bytes.fromhex('A0A1A2A3A4A5A6A7A8A9AAABACADAEAF')
WRONG_KEY = bytes.fromhex('DEADBEEFDEADBEEFDEADBEEFDEADBEEF')


def counting(number: int) -> bytes:
    """A telegram that differs from its neighbours in a counter."""
    return from_lines(
        '1-3:0.2.8(50)',
        f'1-0:1.8.0({number:06}.000*kWh)',
        '0-0:42.0.0(4C)',
        '0-0:96.13.2()',
        header='/Lux5\\253',
    )


@contextmanager
def meter(frames: Iterator[bytes], interval: float = INTERVAL) -> Iterator[SimulatedMeter]:
    with new_meter(interval=interval, source=lambda: next(frames)) as simulated:
        yield simulated


def reader(
    port: str,
    key: bytes = KEY,
    authentication_key: bytes = b'',
    specification: str = 'auto',
    line: str = '115200 8N1',
) -> P1Reader:
    return P1Reader(
        MeterSettings(
            port=port,
            line=line,
            specification=specification,
            decryption_key=key.hex(),
            authentication_key=authentication_key.hex(),
        )
    )


@pytest.mark.parametrize(
    ('name', 'authentication_key', 'chosen'),
    [
        ('MSN', b'', 'MSN'),
        ('MSN', PUBLIC_KEY, 'MSN'),
        ('SAGEMCOM_T210_D_R', OWN_KEY, 'SAGEMCOM_T210_D_R'),
        ('AUSTRIA_ENERGIENETZE_STEIERMARK', OWN_KEY, 'SAGEMCOM_T210_D_R'),
    ],
)
@pytest.mark.parametrize('by_name', [True, False])
def test_the_right_keys_give_readings(
    name: str, authentication_key: bytes, chosen: str, by_name: bool
) -> None:
    """The plain telegram is read by the specification that is set, or found between MSN and the Austrian ones."""
    plain, _ = of_specification(name)
    frame = cipher_frame(plain, KEY, authentication_key or PUBLIC_KEY)
    with meter(cycle([frame])) as simulated:
        source = reader(simulated.port, KEY, authentication_key, name if by_name else 'auto')
        reading = read_until(source, bool)[0]
    assert reading.telegram == plain
    assert reading.specification == (name if by_name else chosen)
    assert reading.document['electricityImportedTotal']['value'] > 0
    assert (reading.unsure, reading.not_understood) == (False, ())


def test_an_encrypted_telegram_of_a_plain_specification_is_read_when_it_is_set() -> None:
    """A specification that is set is used for encrypted telegrams too."""
    with meter(cycle([cipher_frame(of_version('5.0'))])) as simulated:
        reading = read_until(reader(simulated.port, specification='V5'), bool)[0]
    assert (reading.specification, reading.telegram) == ('V5', of_version('5.0'))


@pytest.mark.parametrize(
    ('key', 'authentication_key', 'advice'),
    [
        (b'', b'', 'set [meter] decryption_key'),
        (WRONG_KEY, b'', 'check both'),
        (KEY, WRONG_KEY, 'check both'),
        (WRONG_KEY, PUBLIC_KEY, 'check both'),
    ],
    ids=['no key', 'wrong key', 'wrong authentication key', 'wrong key with the right other'],
)
def test_without_the_right_keys_the_error_says_so_and_shows_no_key(
    key: bytes, authentication_key: bytes, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is decryption_failed, names the port and the setting, and neither it nor the log has a key."""
    caplog.set_level(logging.DEBUG)
    with meter(cycle([cipher_frame(counting(1))])) as simulated:
        source = reader(simulated.port, key, authentication_key)
        with pytest.raises(MeterError) as caught:
            read_until(source, bool)
        assert caught.value.fault.code == 'decryption_failed'
        assert simulated.port in caught.value.detail and advice in caught.value.detail
    shown = ''.join(traceback.format_exception(caught.value)) + caplog.text
    shown += repr(source.settings) + repr(source.counters)
    for secret in (key, authentication_key, PUBLIC_KEY):
        if secret:
            assert secret.hex() not in shown.lower()
            assert repr(secret) not in shown


def telegrams_of(readings: list[Reading]) -> set[bytes]:
    return {reading.telegram for reading in readings}


def damaged(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


FIRST, SECOND = (cipher_frame(counting(number), counter=number) for number in (1, 2))


@pytest.mark.parametrize(
    'between',
    [
        damaged(FIRST, 60),
        damaged(FIRST, len(FIRST) - 1),
        damaged(FIRST, 5),
        damaged(FIRST, 17),
        FIRST[: len(FIRST) // 2],
        FIRST[:20],
        b'\xdb\x08',
        b'noise\r\n',
    ],
    ids=['text', 'tag', 'title', 'counter', 'half', 'head', 'tag byte', 'noise'],
)
def test_a_damaged_frame_between_good_ones_costs_itself(between: bytes) -> None:
    """What is damaged or cut short gives no reading, and the good frame after it is served."""
    with meter(chain([FIRST], cycle([between + SECOND, FIRST]))) as simulated:
        source = reader(simulated.port)
        wanted = {counting(1), counting(2)}
        found = read_until(source, lambda found: telegrams_of(found) >= wanted and len(found) > 3)
    assert telegrams_of(found) == wanted


def test_a_damaged_frame_is_counted() -> None:
    """Once the keys have worked, a frame that cannot be decrypted is counted and is not a fault."""
    with meter(cycle([FIRST, damaged(SECOND, 60)])) as simulated:
        source = reader(simulated.port)
        read_until(
            source,
            lambda _: source.counters.decryption_failures > 1 and source.counters.telegrams > 2,
        )
        error = source.nothing_usable(LineCounters(), 1.0)
    assert error.fault.code == 'decryption_failed'


def test_the_checksum_within_counts_too() -> None:
    """A telegram whose own checksum is wrong is not served, though its frame could be decrypted."""
    wrong = counting(2).replace(b'000002', b'000003')
    with meter(cycle([cipher_frame(wrong, counter=2), FIRST])) as simulated:
        source = reader(simulated.port)
        found = read_until(
            source, lambda found: len(found) > 2 and source.counters.checksum_failures > 1
        )
    assert telegrams_of(found) == {counting(1)}


def test_a_meter_that_is_not_encrypted_needs_no_key() -> None:
    """A key that is set does not keep plain telegrams from being read."""
    with new_meter(interval=INTERVAL) as simulated:
        assert read_until(reader(simulated.port), bool)[0].specification == 'V5'


def test_the_baud_rate_of_an_encrypted_meter_is_found() -> None:
    """The bytes of a frame, which are not text, do not keep `line = auto` from the right baud rate."""
    frame = cipher_frame(of_specification('MSN')[0])
    with meter(cycle([frame]), interval=0.5) as simulated:
        source = reader(simulated.port, line='auto')
        read_until(source, lambda found: len(found) > 2)
        assert source.line == '115200 8N1'
