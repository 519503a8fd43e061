"""Inquiry: finds out what diagnosis.py must know, and asks it why there is no reading.

It asks the system about the port and about other programs that use it. It does not open the port, and it does not know
what follows from what it finds out.
"""

import threading
import time

from dsmr_rest.faults import MeterError
from dsmr_rest.p1.diagnosis import cannot_open, no_reading, port_lost
from dsmr_rest.p1.evidence import Evidence, Loss, Refusal
from dsmr_rest.p1.line import LineCounters, LineState
from dsmr_rest.p1.port_facts import facts_of, programs_using
from dsmr_rest.process import clock

USERS_KEPT = 1.0
"""Seconds for which the list of programs that use the port serves all who ask: it takes a look at every process."""


class Inquiry:
    """Asks about one port; for any thread. `longest_silence` is in seconds, see LONGEST_SILENCE."""

    def __init__(self, port: str, longest_silence: float, *, is_remote: bool) -> None:
        self._port = port
        self._is_remote = is_remote
        self._longest_silence = longest_silence
        self._users = PortUsers(port)

    def refused(self, error: OSError) -> MeterError:
        """Why the port cannot be opened."""
        return cannot_open(
            Refusal(
                port=self._port,
                is_remote=self._is_remote,
                number=error.errno or 0,
                reason=error.strerror or str(error),
                facts=facts_of(self._port),
                users=self._other_users(),
            )
        )

    def lost(self, error: OSError, *, is_there: bool) -> MeterError:
        """Why the open port cannot be read any more; `is_there` when the port itself is still there."""
        users: tuple[str, ...] = ()
        if is_there:
            users = self._other_users()
        reason = error.strerror or str(error)
        return port_lost(Loss(self._port, self._is_remote, reason, is_there, users))

    def nothing_arrived(
        self, seen: LineState, before: LineCounters, waited: float, line: str, overslept: float
    ) -> MeterError:
        """Why there was no reading for `waited` seconds, by what was `seen` since `before` was counted.

        `line` are the line settings in use; `overslept` are the seconds by which the waiter noticed the end of its wait
        too late.
        """
        counted = seen.counters.since(before)
        users: tuple[str, ...] = ()
        if counted.received_bytes:
            users = self._other_users()
        return no_reading(
            Evidence(
                port=self._port,
                is_remote=self._is_remote,
                waited=waited,
                counted=counted,
                seen=seen,
                line=line,
                stalled=max(overslept, _stall_during(waited, seen)),
                users=users,
                longest_silence=self._longest_silence,
            )
        )

    def _other_users(self) -> tuple[str, ...]:
        if self._is_remote:
            return ()
        return self._users.names()


def _stall_during(waited: float, seen: LineState) -> float:
    """How long this program did not run in the last so many seconds."""
    wait_began = clock.now() - waited
    if seen.stall_end is None or seen.stall_end < wait_began:
        return 0.0
    return seen.stall


class PortUsers:
    """The other programs that have a port open, for any thread."""

    def __init__(self, port: str) -> None:
        self._port = port
        self._lock = threading.Lock()  # guards the other two
        self._names: tuple[str, ...] = ()
        self._looked_at: float | None = None  # monotonic

    def names(self) -> tuple[str, ...]:
        """Those that can be seen, as they were at most USERS_KEPT seconds ago."""
        with self._lock:
            now = time.monotonic()
            if self._looked_at is None or now - self._looked_at > USERS_KEPT:
                self._names = tuple(programs_using(self._port).names)
                self._looked_at = now
            return self._names
