"""Diagnosis: for each row of its tables the code, the sentence and the advice that follow from what was seen."""

import errno
from typing import Any

import pytest

from dsmr_rest.faults import METER_FAULTS, MeterError
from dsmr_rest.p1.diagnosis import (
    KEY_FAILURES,
    LOSSES,
    REFUSALS,
    WAITS,
    cannot_decrypt,
    cannot_open,
    no_reading,
    port_lost,
)
from dsmr_rest.p1.evidence import Evidence, KeyFailure, Loss, PortFacts, Refusal
from dsmr_rest.p1.line import LineCounters, LineState
from tests.p1.test_foreign import FRAMES

PORT = '/dev/ttyUSB0'
REMOTE = 'socket://cupboard:2001'
OTHER = ('minicom (pid 812)',)
TELNET = b'1-0:1.8.1(\xff\xfd\x03'


def refusal(
    number: int = 0, *, port: str = PORT, reason: str = 'a reason', **facts: Any
) -> Refusal:
    users = facts.pop('users', ())
    return Refusal(port, '://' in port, number, reason, PortFacts(**facts), users)


def evidence(
    counted: LineCounters | None = None, *, port: str = PORT, waited: float = 30.0, **seen: Any
) -> Evidence:
    options = {key: seen.pop(key) for key in ('stalled', 'users') if key in seen}
    return Evidence(
        port=port,
        is_remote='://' in port,
        waited=waited,
        counted=counted or LineCounters(),
        seen=LineState(**seen),
        line='115200 8N1',
        **options,
    )


THERE: dict[str, Any] = {'is_there': True, 'user': 'pi', 'group': 'dialout'}


@pytest.mark.parametrize(
    ('seen', 'code', 'said', 'advised'),
    [
        (
            refusal(errno.EMFILE, reason='Too many open files', **THERE),
            'server_exhausted',
            'nothing left to open it with (Too many open files)',
            'LimitNOFILE',
        ),
        (
            refusal(port=REMOTE, reason='Connection refused'),
            'port_missing',
            'does not respond (Connection refused): check [meter] port, that ser2net',
            'max-connections',
        ),
        (
            refusal(errno.EISDIR, is_there=True, what_else='a folder'),
            'port_unusable',
            f'{PORT} is a folder, which cannot be used as a serial port: set [meter] port',
            'the name of the port of the cable',
        ),
        (
            refusal(errno.EACCES, is_there=True, what_else='a file'),
            'port_unusable',
            f'{PORT} is a file, which cannot be used',
            'the name of the port of the cable',
        ),
        (
            refusal(errno.ENOTTY, is_there=True),
            'port_unusable',
            'is a device without a line',
            'the name of the port of the cable',
        ),
        (
            refusal(errno.EAGAIN, users=OTHER, **THERE),
            'port_busy',
            'in use by another program (minicom (pid 812)): stop that program',
            'telegram_port',
        ),
        (
            refusal(errno.EBUSY, **THERE),
            'port_busy',
            'in use by another program: stop',
            'stop the other',
        ),
        (
            refusal(errno.EACCES, **(THERE | {'group_is_hidden': True, 'group': '65534'})),
            'port_denied',
            'SupplementaryGroups must have its group and DeviceAllow its driver',
            '/proc/devices',
        ),
        (
            refusal(errno.EACCES, **(THERE | {'group': 'root'})),
            'port_denied',
            f'sudo chgrp dialout {PORT} && sudo chmod 660 {PORT}',
            'KERNEL=="ttyUSB0"',
        ),
        (
            refusal(errno.EACCES, **(THERE | {'group_may_open': False})),
            'port_denied',
            'its group, dialout, is not one to join for that',
            '/etc/udev/rules.d/',
        ),
        (
            refusal(errno.EACCES, **(THERE | {'user_is_in_group': True})),
            'port_denied',
            'became a member of its group, dialout, after this login: log out and log in',
            'id -nG',
        ),
        (
            refusal(errno.EPERM, **THERE),
            'port_denied',
            'run `sudo usermod -a -G dialout pi`, then log in again',
            'next login',
        ),
        (
            refusal(errno.EACCES),
            'port_denied',
            'run `sudo usermod -a -G dialout this user`',
            'next login',
        ),
        (refusal(errno.ENOENT), 'port_missing', f'{PORT} is not there: check the cable', 'brltty'),
        (
            refusal(errno.EIO, **THERE),
            'port_missing',
            'there is no port behind it (a reason)',
            'Plug the cable in again',
        ),
    ],
)
def test_why_a_port_cannot_be_opened(seen: Refusal, code: str, said: str, advised: str) -> None:
    """What the system says of the port decides the code, the remedy and the advice."""
    check(cannot_open(seen), code, said, advised)


@pytest.mark.parametrize(
    ('seen', 'said', 'advised'),
    [
        (
            Loss(REMOTE, is_remote=True, reason='socket disconnected', is_there=False),
            'lost during a reading (socket disconnected): check the network',
            'one client at a time',
        ),
        (
            Loss(PORT, is_remote=False, reason='no data', is_there=True, users=OTHER),
            'is there, but another program reads it too and took what had arrived (minicom (pid 812))',
            'sudo fuser -v /dev/ttyUSB0',
        ),
        (
            Loss(PORT, is_remote=False, reason='Input/output error', is_there=False),
            'was lost during a reading (Input/output error): check the cable',
            'stronger power supply',
        ),
    ],
)
def test_why_an_open_port_is_lost(seen: Loss, said: str, advised: str) -> None:
    """A port that is still there is read by another program, and only one that has gone is blamed on the cable."""
    check(port_lost(seen), 'port_lost', said, advised)
    assert ('cable' in port_lost(seen).detail) == (not seen.is_remote and not seen.is_there)


@pytest.mark.parametrize(
    ('seen', 'said', 'advised'),
    [
        (
            KeyFailure(PORT, has_key=False),
            'set [meter] decryption_key',
            '32 hexadecimal digits',
        ),
        (
            KeyFailure(PORT, has_key=True, is_text=True),
            'decryption_key, which is right',
            '32 hexadecimal digits',
        ),
        (
            KeyFailure(PORT, has_key=True, is_text=True, has_tag=False),
            'decryption_key, which is right',
            'checksum = ignore',
        ),
        (
            KeyFailure(PORT, has_key=True),
            'check both',
            '32 hexadecimal digits',
        ),
    ],
)
def test_why_telegrams_cannot_be_decrypted(seen: KeyFailure, said: str, advised: str) -> None:
    """It is said which key is missing, right or wrong, and that no key helps where there is no authentication."""
    check(cannot_decrypt(seen), 'decryption_failed', said, advised)


BYTES = LineCounters(received_bytes=500)
DAMAGED = LineCounters(received_bytes=500, checksum_failures=3, parity_failures=1)
INCOMPLETE = LineCounters(received_bytes=500, incomplete_telegrams=1)


@pytest.mark.parametrize(
    ('seen', 'code', 'said', 'advised'),
    [
        (
            evidence(stalled=29.0, waited=30.0),
            'server_stalled',
            f'this server did not run for 29.0 s, and what arrived on {PORT} meanwhile is of unknown age',
            'kill -STOP',
        ),
        (
            evidence(LineCounters(internal_errors=2, checksum_failures=1)),
            'internal_error',
            '2 telegrams arrived intact',
            'traceback',
        ),
        (
            evidence(LineCounters(invalid_telegrams=1), is_encrypted=True, invalid_because='why'),
            'telegram_invalid',
            'the cable and the keys are right',
            'The cable and the keys are right',
        ),
        (
            evidence(LineCounters(invalid_telegrams=1), invalid_because='no line can be read'),
            'telegram_invalid',
            'are not valid (no line can be read): the cable is right; check [meter] specification',
            'specification = auto',
        ),
        (
            evidence(LineCounters(decryption_failures=1)),
            'decryption_failed',
            'could be decrypted (1 failed): check the cable, and',
            'grid operator',
        ),
        (
            evidence(LineCounters(checksum_failures=4), foreign_checksums=4),
            'checksum_failed',
            'the meter computes another checksum: `checksum = ignore` reads it unprotected',
            'damaged or not',
        ),
        (
            evidence(DAMAGED, port=REMOTE, last_bytes=TELNET),
            'checksum_failed',
            'telnet commands are among the bytes',
            'ser2net',
        ),
        (
            evidence(DAMAGED, users=OTHER),
            'checksum_failed',
            'may take part of what arrives (minicom (pid 812)): stop that program',
            'telegram_port',
        ),
        (
            evidence(DAMAGED, foreign_checksums=2),
            'checksum_failed',
            '(3 with a wrong or missing checksum, 1 with a wrong parity bit): check the cable',
            'E360',
        ),
        (
            evidence(LineCounters(parity_failures=2)),
            'checksum_failed',
            'only damaged telegrams were received on /dev/ttyUSB0 in 30.0 s (2 with a wrong parity bit)',
            'shorter cable',
        ),
        (
            evidence(LineCounters(unconfirmed_telegrams=1)),
            'checksum_failed',
            'one telegram was received',
            'two of its telegrams in a row',
        ),
        *[
            (
                evidence(BYTES, last_bytes=frame),
                'line_garbled',
                f'the meter speaks {name}: line and cable are right',
                'grid operator',
            )
            for frame, name in FRAMES.values()
        ],
        (
            evidence(INCOMPLETE, port=REMOTE, last_bytes=TELNET),
            'telegram_incomplete',
            'telnet commands are among the bytes',
            'ser2net',
        ),
        (
            evidence(INCOMPLETE, users=OTHER),
            'telegram_incomplete',
            'may take part of what arrives (minicom (pid 812))',
            'stop the other one',
        ),
        (
            evidence(INCOMPLETE),
            'telegram_incomplete',
            'but no complete telegram: check the cable, and that [meter] timeout is long enough',
            'fully inserted',
        ),
        (
            evidence(BYTES, is_inside_telegram=True),
            'telegram_incomplete',
            '500 bytes were received',
            'fully inserted',
        ),
        (
            evidence(BYTES, port=REMOTE, last_bytes=TELNET),
            'line_garbled',
            'telnet commands are among the bytes',
            'ser2net',
        ),
        (
            evidence(BYTES, users=OTHER),
            'line_garbled',
            'may take part of what arrives (minicom (pid 812))',
            'stop the other one',
        ),
        (
            evidence(BYTES),
            'line_garbled',
            'check [meter] line (now 115200 8N1), and that the cable is made for the P1 port',
            'pull-up',
        ),
        (
            evidence(interval=1.0, waited=3.0),
            'meter_silent',
            'although the meter had sent a telegram every 1.0 s: check the cable, and that the P1 port is still',
            '1. Is the cable',
        ),
        (
            evidence(interval=10.0, waited=10.0),
            'meter_silent',
            'wait longer, because some meters send only every 10 s',
            '1. Is the cable',
        ),
        (evidence(waited=10.0), 'meter_silent', 'wait longer', '1. Is the cable'),
        (
            evidence(port=REMOTE),
            'meter_silent',
            'check the cable there, that the P1 port is switched on, and that no other client',
            '1. Is the cable',
        ),
        (
            evidence(),
            'meter_silent',
            'no byte was received on /dev/ttyUSB0 in 30.0 s: check the cable, and that the P1 port is switched on',
            '5. Is it an old meter',
        ),
    ],
)
def test_why_a_wait_ends_without_a_reading(
    seen: Evidence, code: str, said: str, advised: str
) -> None:
    """What was received, or not, decides the code, the remedy and the advice."""
    check(no_reading(seen), code, said, advised)


def check(error: MeterError, code: str, said: str, advised: str) -> None:
    assert error.fault.code == code
    assert error.fault in METER_FAULTS
    assert said in error.detail
    assert advised in error.advice
    assert '{' not in error.detail + error.advice
    finding, _, remedy = error.detail.rpartition(': ')
    assert finding and remedy
    assert error.advice.endswith(('.', '"'))


@pytest.mark.parametrize('rows', [REFUSALS, LOSSES, KEY_FAILURES, WAITS])
def test_each_table_ends_with_a_row_that_always_applies(rows: tuple[Any, ...]) -> None:
    """So there is a diagnosis whatever was seen."""
    assert rows[-1].applies(object())


def test_a_short_stall_explains_nothing() -> None:
    """When the rest of the wait was long enough for a telegram, the stall is not the reason."""
    error = no_reading(evidence(stalled=2.0, waited=30.0))
    assert error.fault.code == 'meter_silent'
    error = no_reading(evidence(stalled=2.0, waited=6.0, interval=1.0))
    assert error.fault.code == 'meter_silent'


def test_a_single_foreign_checksum_is_damage() -> None:
    """One telegram with a wrong checksum says nothing about which checksum the meter computes."""
    error = no_reading(evidence(LineCounters(checksum_failures=1), foreign_checksums=1))
    assert 'check the cable' in error.detail


@pytest.mark.parametrize(
    'seen',
    [
        evidence(last_bytes=FRAMES['M-Bus'][0]),
        evidence(is_inside_telegram=True),
        evidence(stalled=15.0, interval=10.0),
    ],
    ids=['another protocol before', 'a telegram begun before', 'a stall, and time enough after it'],
)
def test_what_was_before_a_silent_wait_does_not_explain_it(seen: Evidence) -> None:
    """When no byte came while this server listened for as long as a meter may be silent, the meter is silent."""
    assert no_reading(seen).fault.code == 'meter_silent'


def test_only_a_program_at_the_other_end_talks_telnet() -> None:
    """On a local port the same bytes are noise."""
    counted = LineCounters(received_bytes=len(TELNET))
    assert 'telnet' in no_reading(evidence(counted, port=REMOTE, last_bytes=TELNET)).detail
    assert 'telnet' not in no_reading(evidence(counted, last_bytes=TELNET)).detail
