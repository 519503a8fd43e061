"""Why there is no reading, and what to do about it: from what was seen to a code, a sentence and advice.

The moments at which there may be none have a table each: the port cannot be opened (REFUSALS), the open port is lost
(LOSSES), telegrams cannot be decrypted (KEY_FAILURES), and a wait is over (WAITS). A row says what must have been seen,
the fault that it is, the sentence, the remedy, and the next steps for the person who sets up the meter. The first row
that applies is the diagnosis, so each table begins with what explains most. The responses of the server, its log,
/health and take_one_reading.py all say what stands here, and nothing else does.

Pure: evidence in, a MeterError out. This module opens nothing, asks the system for nothing, and reads no clock.
"""

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.p1.evidence import Evidence, KeyFailure, Loss, Refusal
from dsmr_rest.p1.foreign import has_telnet_commands, other_protocol

SEVERAL = 2
"""Telegrams from which on a checksum that never holds is no accident."""
MISSED_INTERVALS = 2.0
"""Intervals of the meter that must pass before its silence means anything."""

_BUSY = (errno.EAGAIN, errno.EBUSY)  # another program has locked the port
_DENIED = (errno.EACCES, errno.EPERM)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_NO_TERMINAL = (errno.ENOTTY, errno.EISDIR)


class Row(NamedTuple):
    """A row of a table. `finding`, `remedy` and `advice` are templates of str.format(), filled with facts()."""

    applies: Callable[[Any], bool]
    fault: Fault
    finding: str
    remedy: str
    advice: str = ''


# What may have been seen when the port cannot be opened.


def _is_exhausted(refusal: Refusal) -> bool:
    return refusal.number in _EXHAUSTED


def _is_no_serial_port(refusal: Refusal) -> bool:
    is_something_else = bool(refusal.facts.what_else)
    return is_something_else or refusal.number in _NO_TERMINAL


def _is_denied(refusal: Refusal) -> bool:
    return refusal.number in _DENIED


def _is_denied_by_the_unit(refusal: Refusal) -> bool:
    return _is_denied(refusal) and refusal.facts.group_is_hidden


def _is_denied_to_every_group(refusal: Refusal) -> bool:
    """Membership of the port's group would not help, or would give far too much."""
    facts = refusal.facts
    return _is_denied(refusal) and (not facts.group_may_open or facts.group == 'root')


def _is_denied_until_the_next_login(refusal: Refusal) -> bool:
    return _is_denied(refusal) and refusal.facts.user_is_in_group


def _is_busy(refusal: Refusal) -> bool:
    return refusal.number in _BUSY


def _is_remote(evidence: Refusal | Loss | Evidence) -> bool:
    return evidence.is_remote


def _is_missing(refusal: Refusal) -> bool:
    return not refusal.facts.is_there


def _always(_: object) -> bool:
    return True


_TRY_ANOTHER_PORT = 'Set [meter] port to the name of the port of the cable.'
_RULE_FOR_THE_PORT = (
    'To keep that over the next start, make it a rule of udev: a file /etc/udev/rules.d/90-p1.rules with the line'
    ' SUBSYSTEM=="tty", KERNEL=="{name}", GROUP="dialout", MODE="0660"'
)
_STOP_THE_OTHER = (
    'Only one program at a time can read a serial port, so stop the other one. If it needs the meter too, let it'
    ' connect to [server] telegram_port of dsmr_rest_server.py instead. If it is dsmr_rest_server.py itself, the'
    ' cable works: take the reading from it over HTTP.'
)

REFUSALS = (
    Row(
        _is_exhausted,
        Fault.SERVER_EXHAUSTED,
        '{port} cannot be opened, because this program has nothing left to open it with ({reason})',
        'close connections, or raise the limits that it runs with',
        '`ulimit -a` shows the limits; a systemd unit has them as LimitNOFILE, TasksMax and MemoryMax.',
    ),
    Row(
        _is_remote,
        Fault.PORT_MISSING,
        '{port} does not respond ({reason})',
        (
            'check [meter] port, that ser2net or a similar program is running there, and that it lets another client'
            ' connect'
        ),
        (
            'Check on that machine, too, that no firewall blocks the connection, and that its cable is plugged in.'
            ' Most such programs serve one client at a time: stop the other one, or allow more (in ser2net:'
            ' max-connections).'
        ),
    ),
    Row(
        _is_no_serial_port,
        Fault.PORT_UNUSABLE,
        '{port} is {what_else}, which cannot be used as a serial port',
        'set [meter] port to the name of the port of the cable',
        _TRY_ANOTHER_PORT,
    ),
    Row(
        _is_busy,
        Fault.PORT_BUSY,
        '{port} is in use by another program{by_whom}',
        'stop that program',
        _STOP_THE_OTHER,
    ),
    Row(
        _is_denied_by_the_unit,
        Fault.PORT_DENIED,
        '{port} may not be opened by {user}',
        'in the systemd unit, SupplementaryGroups must have its group and DeviceAllow its driver',
        '`ls -l {port}`, outside the unit, shows the group; its driver is one of the names in /proc/devices.',
    ),
    Row(
        _is_denied_to_every_group,
        Fault.PORT_DENIED,
        '{port} may not be opened by {user}, and its group, {group}, is not one to join for that',
        'run `sudo chgrp dialout {port} && sudo chmod 660 {port}`, then `sudo usermod -a -G dialout {user}`',
        'Then log out and log in again. ' + _RULE_FOR_THE_PORT,
    ),
    Row(
        _is_denied_until_the_next_login,
        Fault.PORT_DENIED,
        '{port} may not be opened by {user} yet, who became a member of its group, {group}, after this login',
        'log out and log in again, or restart the service',
        '`id -nG` lists the groups of this login.',
    ),
    Row(
        _is_denied,
        Fault.PORT_DENIED,
        '{port} may not be opened by {user}',
        'run `sudo usermod -a -G {group} {user}`, then log in again',
        (
            'Run that command, then log out and log in again, because a new group takes effect at the next login.'
            ' `id -nG` lists your groups.'
        ),
    ),
    Row(
        _is_missing,
        Fault.PORT_MISSING,
        '{port} is not there',
        'check the cable and [meter] port',
        (
            'Plug in the cable, set [meter] port to the name of its port, and try again. `sudo dmesg | tail` shows'
            ' what Linux detected. If it shows that a cable was attached and at once disconnected again by brltty,'
            ' which takes it for a braille display: `sudo apt remove brltty`.'
        ),
    ),
    Row(
        _always,
        Fault.PORT_MISSING,
        '{port} has a name, but there is no port behind it ({reason})',
        'check the cable and [meter] port',
        'Plug the cable in again. `sudo dmesg | tail` shows what Linux detected.',
    ),
)


# What may have been seen when the open port is lost.


def _is_shared(loss: Loss) -> bool:
    """A port that is still there and yet gives nothing that was announced is read by somebody else."""
    return loss.is_there and not loss.is_remote


LOSSES = (
    Row(
        _is_remote,
        Fault.PORT_LOST,
        '{port} was lost during a reading ({reason})',
        'check the network, and the program that serves the port there',
        'If it is lost each time that another client connects, the program there serves one client at a time.',
    ),
    Row(
        _is_shared,
        Fault.PORT_LOST,
        '{port} is there, but another program reads it too and took what had arrived{by_whom}',
        'stop that program',
        _STOP_THE_OTHER
        + ' `sudo fuser -v {port}` shows which programs have it open; ModemManager may be one of them.',
    ),
    Row(
        _always,
        Fault.PORT_LOST,
        '{port} was lost during a reading ({reason})',
        'check the cable',
        (
            'Plug the cable in again. If `sudo dmesg | tail` shows that it keeps disconnecting, try another USB'
            ' port; if it speaks of under-voltage, the Pi needs a stronger power supply.'
        ),
    ),
)


# What may have been seen when encrypted telegrams cannot be decrypted.


def _has_no_key(failure: KeyFailure) -> bool:
    return not failure.has_key


def _is_text(failure: KeyFailure) -> bool:
    return failure.is_text


def _is_text_without_tag(failure: KeyFailure) -> bool:
    """No authentication key can help."""
    return failure.is_text and not failure.has_tag


_KEYS = (
    'Ask the grid operator for the keys of the meter, 32 hexadecimal digits each, and set [meter] decryption_key. Set'
    ' authentication_key too, unless it is the one that all meters in Luxembourg share.'
)

KEY_FAILURES = (
    Row(
        _has_no_key,
        Fault.DECRYPTION_FAILED,
        'the meter at {port} sends encrypted telegrams',
        'ask the grid operator for its key and set [meter] decryption_key',
        _KEYS,
    ),
    Row(
        _is_text_without_tag,
        Fault.DECRYPTION_FAILED,
        (
            'the telegrams of the meter at {port} are decrypted by [meter] decryption_key, which is right, but they'
            ' have neither authentication nor a checksum that holds'
        ),
        '`checksum = ignore` reads them unprotected',
        (
            'The keys are right. [meter] checksum = ignore serves what the meter sends, damaged or not. Please report'
            ' the make and model of the meter, so that its checksum can be supported.'
        ),
    ),
    Row(
        _is_text,
        Fault.DECRYPTION_FAILED,
        (
            'the telegrams of the meter at {port} are decrypted by [meter] decryption_key, which is right, but not'
            ' authenticated by authentication_key, and they have no checksum of their own that holds'
        ),
        'set the authentication_key of this meter',
        _KEYS,
    ),
    Row(
        _always,
        Fault.DECRYPTION_FAILED,
        'the telegrams of the meter at {port} cannot be decrypted with [meter] decryption_key',
        'check both it and authentication_key',
        _KEYS,
    ),
)


# What may have been seen during a wait.


def _shortest_silence(evidence: Evidence) -> float:
    """Seconds of silence that a healthy meter may take."""
    interval = evidence.seen.interval
    if interval is None:
        return evidence.longest_silence
    return min(evidence.longest_silence, MISSED_INTERVALS * interval)


def _did_not_listen(evidence: Evidence) -> bool:
    """So much of the wait was lost that a healthy meter may have sent in that time only."""
    listened = evidence.waited - evidence.stalled
    return evidence.stalled > 0 and listened < _shortest_silence(evidence)


def _had_internal_errors(evidence: Evidence) -> bool:
    return evidence.counted.internal_errors > 0


def _were_invalid(evidence: Evidence) -> bool:
    return evidence.counted.invalid_telegrams > 0


def _were_invalid_and_encrypted(evidence: Evidence) -> bool:
    return _were_invalid(evidence) and evidence.seen.is_encrypted


def _were_not_decrypted(evidence: Evidence) -> bool:
    return evidence.counted.decryption_failures > 0


def _have_a_foreign_checksum(evidence: Evidence) -> bool:
    """Each telegram of the wait had all its lines in their form, and a checksum that has never held."""
    failures = evidence.counted.checksum_failures
    return SEVERAL <= failures <= evidence.seen.foreign_checksums


def _were_damaged(evidence: Evidence) -> bool:
    return evidence.counted.damaged > 0


def _were_unconfirmed(evidence: Evidence) -> bool:
    return evidence.counted.unconfirmed_telegrams > 0


def _has_bytes(evidence: Evidence) -> bool:
    return evidence.counted.received_bytes > 0


def _is_other_protocol(evidence: Evidence) -> bool:
    return _has_bytes(evidence) and bool(other_protocol(evidence.seen.last_bytes))


def _were_incomplete(evidence: Evidence) -> bool:
    has_begun = _has_bytes(evidence) and evidence.seen.is_inside_telegram
    return has_begun or evidence.counted.incomplete_telegrams > 0


def _with_telnet(seen: Callable[[Evidence], bool]) -> Callable[[Evidence], bool]:
    """The same, and the program that serves the port talks telnet among the bytes."""

    def applies(evidence: Evidence) -> bool:
        is_telnet = evidence.is_remote and has_telnet_commands(evidence.seen.last_bytes)
        return is_telnet and seen(evidence)

    return applies


def _with_other_users(seen: Callable[[Evidence], bool]) -> Callable[[Evidence], bool]:
    """The same, and another program has the port open, which may have taken what is missing."""

    def applies(evidence: Evidence) -> bool:
        return bool(evidence.users) and seen(evidence)

    return applies


def _went_silent(evidence: Evidence) -> bool:
    """A meter that sent until just now does not send for longer than it ever takes."""
    interval = evidence.seen.interval
    return interval is not None and evidence.waited >= MISSED_INTERVALS * interval


def _was_short(evidence: Evidence) -> bool:
    return evidence.waited < evidence.longest_silence


_DAMAGED = 'only damaged telegrams were received {where} ({failures})'
_INCOMPLETE = '{received}, but no complete telegram'
_GARBLED = '{received}, but they are not a telegram'
_SHARED = (
    'another program has the port open, too, and may take part of what arrives{by_whom}: stop that program; if that'
    ' does not help, check the cable and [meter] line'
)
_TELNET = 'telnet commands are among the bytes: let the program that serves the port there serve it raw, not as telnet'
_TELNET_ADVICE = 'In ser2net the accepter must be `tcp,PORT`, without `telnet`.'
_WEAK_CABLE = (
    'A cable that works with other meters may be too weak for this one: some (Landis+Gyr E360, Kaifa MA105C and'
    ' MA304C) need a lower pull-up resistor on the data line.'
)
_SILENT_ADVICE = """Check, in this order:
1. Is the cable plugged into the P1 port of the meter, not into another socket of the same shape, and into USB?
2. Is the P1 port switched on? The grid operator does that; in Belgium you do it yourself on its website.
3. Is [meter] port the port of this cable, and not another serial port?
4. Is it a P1 cable? It must hold the data request line (pin 2) high and invert the signal (pin 5): try another one.
5. Is it an old meter (DSMR 2.2, 3)? Set [meter] line = 9600 7E1: auto tries 9600 baud only after 11 s of silence."""

WAITS = (
    Row(
        _did_not_listen,
        Fault.SERVER_STALLED,
        'this server did not run for {stalled}, and what arrived on {port} meanwhile is of unknown age',
        'try again; the meter and the cable are not at fault',
        'It was stopped (Ctrl-Z, kill -STOP), or the machine was suspended or far too busy.',
    ),
    Row(
        _had_internal_errors,
        Fault.INTERNAL_ERROR,
        '{internal_errors} arrived intact {where}, but this server failed to read them',
        'the cable is right; the log has the details: please report them',
        'The cable and the meter are right. The log has a traceback: please report it, with the make of the meter.',
    ),
    Row(
        _were_invalid_and_encrypted,
        Fault.TELEGRAM_INVALID,
        '{invalid_encrypted} arrived intact {where}, but are not valid ({invalid_because})',
        'the cable and the keys are right; check [meter] specification, or report it',
        (
            'The cable and the keys are right: the authentication of the encrypted telegrams shows that they arrive'
            ' as the meter sends them. Set [meter] specification = auto. If it is auto already, please report it,'
            ' with the make and model of the meter.'
        ),
    ),
    Row(
        _were_invalid,
        Fault.TELEGRAM_INVALID,
        '{invalid} arrived intact {where}, but are not valid ({invalid_because})',
        'the cable is right; check [meter] specification, or report it',
        (
            'The cable is right: the telegrams arrive as the meter sends them. Set [meter] specification = auto. If'
            ' it is auto already, please report it, with the make and model of the meter.'
        ),
    ),
    Row(
        _were_not_decrypted,
        Fault.DECRYPTION_FAILED,
        'no telegram that was received {where} could be decrypted ({decryption_failures})',
        'check the cable, and [meter] decryption_key and authentication_key',
        _KEYS,
    ),
    Row(
        _have_a_foreign_checksum,
        Fault.CHECKSUM_FAILED,
        '{failed} were received {where}; every line has its form, but the checksum has never held',
        'the meter computes another checksum: `checksum = ignore` reads it unprotected',
        (
            'Line and cable seem right. [meter] checksum = ignore serves what the meter sends, damaged or not.'
            ' Please report the make and model of the meter, so that its checksum can be supported.'
        ),
    ),
    Row(_with_telnet(_were_damaged), Fault.CHECKSUM_FAILED, _DAMAGED, _TELNET, _TELNET_ADVICE),
    Row(
        _with_other_users(_were_damaged), Fault.CHECKSUM_FAILED, _DAMAGED, _SHARED, _STOP_THE_OTHER
    ),
    Row(
        _were_damaged,
        Fault.CHECKSUM_FAILED,
        _DAMAGED,
        'check the cable, and that no other program reads the port',
        (
            (
                'Check that the plugs are fully inserted, use a shorter cable, and stop other programs that read the'
                ' port. '
            )
            + _WEAK_CABLE
        ),
    ),
    Row(
        _were_unconfirmed,
        Fault.CHECKSUM_FAILED,
        '{unconfirmed} without the proof that other meters send, and the next one must confirm it',
        'wait longer: [meter] timeout must be more than twice the time between two telegrams',
        'A meter without a checksum is read once two of its telegrams in a row have the same lines.',
    ),
    Row(
        _is_other_protocol,
        Fault.LINE_GARBLED,
        '{received}, but they are not a telegram: the meter speaks {protocol}',
        'line and cable are right, and this server does not read that protocol',
        (
            'Ask the grid operator whether it can switch the port to P1 (DSMR). If it cannot, this meter needs'
            ' another program that reads its protocol.'
        ),
    ),
    Row(
        _with_telnet(_were_incomplete),
        Fault.TELEGRAM_INCOMPLETE,
        _INCOMPLETE,
        _TELNET,
        _TELNET_ADVICE,
    ),
    Row(
        _with_other_users(_were_incomplete),
        Fault.TELEGRAM_INCOMPLETE,
        _INCOMPLETE,
        _SHARED,
        _STOP_THE_OTHER,
    ),
    Row(
        _were_incomplete,
        Fault.TELEGRAM_INCOMPLETE,
        _INCOMPLETE,
        'check the cable, and that [meter] timeout is long enough',
        (
            'Check that the plugs are fully inserted, that no other program reads the port, that [meter] timeout is'
            ' longer than the time between two telegrams (10 s before DSMR 5), and that [meter] line is auto or'
            ' correct.'
        ),
    ),
    Row(_with_telnet(_has_bytes), Fault.LINE_GARBLED, _GARBLED, _TELNET, _TELNET_ADVICE),
    Row(_with_other_users(_has_bytes), Fault.LINE_GARBLED, _GARBLED, _SHARED, _STOP_THE_OTHER),
    Row(
        _has_bytes,
        Fault.LINE_GARBLED,
        _GARBLED,
        'check [meter] line (now {line}), and that the cable is made for the P1 port',
        (
            'Set [meter] line = auto to try both baud rates. If both were tried, the cable is damaged or does not'
            ' invert the signal: use a cable that is made for the P1 port. ' + _WEAK_CABLE
        ),
    ),
    Row(
        _went_silent,
        Fault.METER_SILENT,
        'no byte was received {where}, although the meter had sent a telegram every {interval}',
        'check the cable, and that the P1 port is still switched on',
        _SILENT_ADVICE,
    ),
    Row(
        _was_short,
        Fault.METER_SILENT,
        'no byte was received {where}',
        (
            'wait longer, because some meters send only every 10 s, or check the cable, and that the P1 port is'
            ' switched on'
        ),
        _SILENT_ADVICE,
    ),
    Row(
        _is_remote,
        Fault.METER_SILENT,
        'no byte was received {where}',
        'check the cable there, that the P1 port is switched on, and that no other client holds the connection',
        _SILENT_ADVICE,
    ),
    Row(
        _always,
        Fault.METER_SILENT,
        'no byte was received {where}',
        'check the cable, and that the P1 port is switched on',
        _SILENT_ADVICE,
    ),
)


def cannot_open(refusal: Refusal) -> MeterError:
    """Why the port cannot be opened."""
    return _diagnosis(REFUSALS, refusal, _facts_of_refusal(refusal))


def port_lost(loss: Loss) -> MeterError:
    """Why the open port cannot be read any more."""
    words = {'port': loss.port, 'reason': loss.reason, 'by_whom': _by_whom(loss.users)}
    return _diagnosis(LOSSES, loss, words)


def cannot_decrypt(failure: KeyFailure) -> MeterError:
    """Why the encrypted telegrams of a meter cannot be decrypted."""
    return _diagnosis(KEY_FAILURES, failure, {'port': failure.port})


def no_reading(evidence: Evidence) -> MeterError:
    """Why a wait ended without a reading."""
    return _diagnosis(WAITS, evidence, _facts_of_wait(evidence))


def _diagnosis(rows: Sequence[Row], evidence: Any, words: Mapping[str, str]) -> MeterError:
    row = next(row for row in rows if row.applies(evidence))
    finding = row.finding.format_map(words)
    remedy = row.remedy.format_map(words)
    advice = row.advice.format_map(words)
    return MeterError(row.fault, f'{finding}: {remedy}', advice)


def _facts_of_refusal(refusal: Refusal) -> Mapping[str, str]:
    _, _, name = refusal.port.rpartition('/')
    return {
        'port': refusal.port,
        'name': name,
        'reason': refusal.reason,
        'by_whom': _by_whom(refusal.users),
        'user': refusal.facts.user,
        'group': refusal.facts.group or 'dialout',  # the group that Debian gives serial ports to
        'what_else': refusal.facts.what_else or 'a device without a line',
    }


def _facts_of_wait(evidence: Evidence) -> Mapping[str, str]:
    counted = evidence.counted
    where = f'on {evidence.port} in {evidence.waited:.1f} s'
    failures = []
    if counted.checksum_failures:
        failures.append(f'{counted.checksum_failures} with a wrong or missing checksum')
    if counted.parity_failures:
        failures.append(f'{counted.parity_failures} with a wrong parity bit')
    return {
        'port': evidence.port,
        'where': where,
        'received': f'{counted.received_bytes} bytes were received {where}',
        'failures': ', '.join(failures),
        'failed': f'{counted.checksum_failures} telegrams',
        'decryption_failures': f'{counted.decryption_failures} failed',
        'unconfirmed': f'{_telegrams(counted.unconfirmed_telegrams)} received {where}',
        'invalid': f'{counted.invalid_telegrams} telegrams',
        'invalid_encrypted': f'{counted.invalid_telegrams} encrypted telegrams',
        'invalid_because': evidence.seen.invalid_because,
        'internal_errors': f'{counted.internal_errors} telegrams',
        'interval': f'{evidence.seen.interval or 0:.1f} s',
        'stalled': f'{evidence.stalled:.1f} s',
        'line': evidence.line,
        'protocol': other_protocol(evidence.seen.last_bytes),
        'by_whom': _by_whom(evidence.users),
    }


def _telegrams(count: int) -> str:
    if count == 1:
        return 'one telegram was'
    return f'{count} telegrams were'


def _by_whom(users: Sequence[str]) -> str:
    """The programs in brackets; nothing when none is known."""
    if not users:
        return ''
    return f' ({", ".join(users)})'
