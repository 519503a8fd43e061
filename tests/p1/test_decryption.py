"""Encrypted telegrams on a real pty: the right keys give readings, anything else its code, and a key is never shown."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, cycle

import pytest

from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import MeterError
from dsmr_rest.p1.decryption import Decryptor, Plain
from dsmr_rest.p1.framing import EncryptedFrame
from dsmr_rest.p1.line import LineCounters
from dsmr_rest.p1.problem_log import ProblemLog
from dsmr_rest.p1.proof import Prover
from dsmr_rest.p1.reader import P1Reader
from dsmr_rest.p1.unpacking import Unpacker
from dsmr_rest.reading.document import Reading
from dsmr_rest.reading.telegram import Proof
from dsmr_rest.simulated.meter import SimulatedMeter
from tests.conftest import StartServer, new_meter, wait_for
from tests.reading_loop import read_until
from tests.telegrams import KEY, PUBLIC_KEY, cipher_frame, from_lines, of_specification, of_version

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
        (WRONG_KEY, PUBLIC_KEY, 'check both'),
    ],
    ids=['no key', 'wrong key', 'wrong key with the right other'],
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
        error = source.why_nothing(LineCounters(), 1.0)
    assert error.fault.code == 'decryption_failed'


WRONG_CHECKSUM = counting(2).replace(b'000002', b'000003')
MISSING_CHECKSUM = counting(2).rpartition(b'!')[0] + b'!\r\n'


def test_the_checksum_within_counts_too() -> None:
    """A telegram whose own checksum is wrong is not served though its frame is authentic; the line is not blamed."""
    with meter(cycle([cipher_frame(WRONG_CHECKSUM, counter=2), FIRST])) as simulated:
        source = reader(simulated.port)
        found = read_until(
            source, lambda found: len(found) > 2 and source.counters.invalid_telegrams > 1
        )
    assert telegrams_of(found) == {counting(1)}
    assert source.counters.checksum_failures == source.counters.decryption_failures == 0


@pytest.mark.parametrize(
    ('plain', 'reason'),
    [
        (WRONG_CHECKSUM, 'the checksum is wrong or missing'),
        (from_lines('0-0:96.13.0'), 'no line of the telegram can be read'),
        (counting(2)[:-20], 'no whole telegram is in the frame'),
        (b'\x0f\x00\x00\x00\x01', 'no whole telegram is in the frame'),
    ],
    ids=['wrong checksum', 'no value', 'half', 'no text'],
)
def test_a_telegram_in_an_authentic_frame_is_not_blamed_on_the_line(
    plain: bytes, reason: str
) -> None:
    """If no telegram is valid, the code is telegram_invalid; the detail gives the reason and acquits the cable."""
    with meter(cycle([cipher_frame(plain)])) as simulated:
        source = reader(simulated.port)
        assert read_until(source, lambda _: source.counters.invalid_telegrams > 1) == []
        error = source.why_nothing(LineCounters(), 2.0)
    assert error.fault.code == 'telegram_invalid'
    assert f'encrypted telegrams arrived intact on {simulated.port} in 2.0 s' in error.detail
    assert f'({reason}): the cable and the keys are right;' in error.detail


def test_damaged_frames_do_not_hide_that_the_others_are_not_valid() -> None:
    """A meter whose frames are authentic has the right keys: damaged frames among them are not the reason."""
    wrong = cipher_frame(WRONG_CHECKSUM)
    with meter(cycle([wrong, damaged(wrong, 60)])) as simulated:
        source = reader(simulated.port)
        read_until(
            source,
            lambda _: source.counters.decryption_failures and source.counters.invalid_telegrams,
        )
        error = source.why_nothing(LineCounters(), 1.0)
    assert error.fault.code == 'telegram_invalid'


AUTHENTICATED, ENCRYPTED, BOTH = 0x10, 0x20, 0x30
"""Security control: what protects the content of a frame of security suite 0 (IEC 62056-5-3)."""


def without_tag(plain: bytes) -> bytes:
    """A frame that is encrypted and not authenticated, as the standard has it: without a tag."""
    frame = cipher_frame(plain, control=ENCRYPTED)
    head, content = frame[:13], frame[13:-12]
    return head[:-2] + len(content).to_bytes(2, 'big') + content


@pytest.mark.parametrize(
    'frame',
    [
        damaged(cipher_frame(WRONG_CHECKSUM, control=AUTHENTICATED), 60),
        damaged(cipher_frame(WRONG_CHECKSUM, control=ENCRYPTED), 60),
        damaged(cipher_frame(WRONG_CHECKSUM, control=BOTH), 60),
        without_tag(WRONG_CHECKSUM),
        without_tag(MISSING_CHECKSUM),
    ],
    ids=['authenticated', 'encrypted', 'both', 'no tag, wrong checksum', 'no tag, no checksum'],
)
@pytest.mark.parametrize('authentication_key', [b'', PUBLIC_KEY], ids=['default key', 'key set'])
def test_nothing_is_served_that_neither_tag_nor_checksum_proves(
    frame: bytes, authentication_key: bytes
) -> None:
    """Whatever protection a frame states, without a tag that holds its telegram needs a checksum that does."""
    with meter(cycle([frame])) as simulated:
        source = reader(simulated.port, authentication_key=authentication_key)
        with pytest.raises(MeterError) as caught:
            read_until(source, bool)
    assert caught.value.fault.code == 'decryption_failed'
    assert source.counters.invalid_telegrams == source.counters.telegrams == 0


def test_the_server_reports_a_telegram_that_is_not_valid_as_such(start_server: StartServer) -> None:
    """The response, /health, /metrics and the log have the same code, and none of them blames the line."""
    with meter(cycle([cipher_frame(WRONG_CHECKSUM)]), interval=0.2) as simulated:
        settings = {'decryption_key': KEY.hex(), 'timeout': 1, 'line': '115200 8N1'}
        server = start_server(simulated.port, meter=settings)
        response = server.get('/')
        health = server.get('/health').json
        scrape = server.get('/metrics').body.decode()
    problem = response.json
    assert (response.status, problem['code']) == (502, 'telegram_invalid')
    assert 'the cable and the keys are right' in problem['detail']
    assert (health['status'], health['code']) == ('unavailable', 'telegram_invalid')
    assert health['counters']['invalidTelegrams'] > 0
    assert health['counters']['checksumFailures'] == 0
    assert health['counters']['errorsByCode'].keys() == {'telegram_invalid'}
    samples = dict(line.rsplit(' ', 1) for line in scrape.splitlines() if line[0] != '#')
    assert float(samples['dsmr_invalid_telegrams_total']) > 0
    assert float(samples['dsmr_checksum_failures_total']) == 0
    assert float(samples['dsmr_errors_total{code="telegram_invalid"}']) > 0
    (lost,) = [line for line in server.log.splitlines() if simulated.port in line]
    assert 'meter lost: telegram_invalid: ' in lost
    assert 'checksum trouble' not in server.log


def test_telegrams_that_are_not_valid_among_others_are_no_checksum_trouble(
    start_server: StartServer,
) -> None:
    """While other telegrams are served they are only counted: the log does not say that telegrams arrive damaged."""
    frames = cycle([cipher_frame(WRONG_CHECKSUM, counter=2), FIRST])
    with meter(frames) as simulated:
        # A line that never pauses can be taken for one of another speed; so the speed is set.
        settings = {'decryption_key': KEY.hex(), 'keep_open': 30, 'line': '115200 8N1'}
        server = start_server(simulated.port, meter=settings)
        wait_for(lambda: server.health['counters']['invalidTelegrams'] > 2)
        assert server.get('/').status == 200
        assert 'checksum' not in server.log


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


@pytest.mark.parametrize(
    ('frame', 'authentication_key', 'proof'),
    [
        (cipher_frame(counting(2)), b'', Proof.AUTHENTICATION),
        (cipher_frame(counting(2)), WRONG_KEY, Proof.CHECKSUM),
        (without_tag(counting(2)), b'', Proof.CHECKSUM),
        (cipher_frame(MISSING_CHECKSUM), b'', Proof.AUTHENTICATION),
    ],
    ids=['tag', 'wrong authentication key', 'no tag', 'no checksum within'],
)
def test_a_telegram_in_a_frame_is_proved_by_tag_or_checksum(
    frame: bytes, authentication_key: bytes, proof: Proof
) -> None:
    """The decryption key is enough where the telegram's own checksum holds, and the reading says what proved it."""
    with meter(cycle([frame])) as simulated:
        source = reader(simulated.port, authentication_key=authentication_key)
        reading = read_until(source, bool)[0]
    assert reading.verified_by is proof


def test_a_wrong_authentication_key_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log says which key is right and which is not, once, and that the telegrams are proved all the same."""
    with meter(cycle([cipher_frame(counting(1)), cipher_frame(counting(2))])) as simulated:
        source = reader(simulated.port, authentication_key=WRONG_KEY)
        read_until(source, lambda found: len(found) > 2)
    (message,) = [text for text in caplog.messages if 'key' in text]
    assert 'decryption_key is right' in message
    assert 'not authenticated with authentication_key' in message


def test_it_is_said_which_key_is_right_and_which_is_not() -> None:
    """Text without any proof shows that the decryption key is right, so only the other one is blamed."""
    with meter(cycle([cipher_frame(MISSING_CHECKSUM)])) as simulated:
        source = reader(simulated.port, authentication_key=WRONG_KEY)
        with pytest.raises(MeterError) as caught:
            read_until(source, bool)
    assert caught.value.fault.code == 'decryption_failed'
    assert 'decryption_key, which is right' in caught.value.detail
    assert caught.value.detail.endswith('set the authentication_key of this meter')


def test_one_damaged_frame_is_no_wrong_key() -> None:
    """Neither the first frame ever nor a later one makes the keys wrong, if the next can be decrypted."""
    frames = chain([damaged(FIRST, 60)], cycle([SECOND]))
    with meter(frames) as simulated:
        source = reader(simulated.port)
        found = read_until(source, bool)
    assert telegrams_of(found) == {counting(2)}


def test_keys_are_right_once_a_frame_was_authentic() -> None:
    """However little use its text was: frames that are damaged afterwards cost themselves, and no key is blamed."""
    settings = MeterSettings(port='/dev/none', decryption_key=KEY.hex())
    unpacker = Unpacker(settings, Prover(), ProblemLog())
    useless = unpacker.unpack(EncryptedFrame(cipher_frame(b'no telegram')))
    assert useless.invalid_because == 'no whole telegram is in the frame'
    for _ in range(3):
        unpacked = unpacker.unpack(EncryptedFrame(damaged(FIRST, 60)))
        assert unpacked.counted == LineCounters(decryption_failures=1)


def test_a_frame_that_is_authenticated_and_not_encrypted_is_text_already() -> None:
    """When its tag does not hold, its text is what stands in it, for the checksum within to prove."""
    plain = counting(1)
    sealed = cipher_frame(plain, control=0x10)
    begin_of_text = len(sealed) - len(plain) - 12
    in_clear = sealed[:begin_of_text] + plain + sealed[-12:]
    decryptor = Decryptor(MeterSettings(port='/dev/none', decryption_key=KEY.hex()))
    with_short_length = in_clear[:10] + b'\x81' + in_clear[12:]
    for frame in (in_clear, with_short_length):
        assert decryptor.decrypt(EncryptedFrame(frame)) == Plain(plain, is_authentic=False)
