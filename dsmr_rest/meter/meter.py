"""Meter: one serial port, shared by all requests that wait for a telegram.

A serial port has one reader, so requests cannot each open it. Instead, a request becomes a waiter: it joins those who
wait for the next event, and sleeps. The first waiter starts the reading thread, which opens the port. Every telegram,
and every fault of the port, is an event: it is handed to all who wait at that moment. When nobody waits any more, and
`keep_open` seconds have passed, the thread closes the port and ends; so nothing runs while nobody asks. A client that
follows the meter (a stream) is a waiter that waits again and again; there is no queue per client, so a slow one skips
to the newest reading.

An event wakes one waiter, and each waiter that has woken wakes the next. Hundreds woken at once would compete for the
interpreter lock: each thread that wants it asks for it every few milliseconds and makes its holder pass it on, which
costs more than the responses do. Each waiter sleeps on a Condition of its own, all of them with the one lock of the
Meter, so exactly the next one wakes; and one whose client may have left is woken alone. Until then each sleeps, without
a look at its client.

A client that waits costs about twice the instructions of a response from memory on a connection that is kept
(`python -m benchmarks instructions-waiting instructions-response`). The rest is for its connection and its thread,
which are made and ended for it, so only fewer threads would make a difference.

The reading thread is the only one that touches the port. Nothing blocks and nothing is rendered while the lock is held.
This module does not know HTTP, nor how a telegram is read.
"""

import logging
import threading
import time
from collections import OrderedDict
from contextlib import closing

from dsmr_rest.faults import Fault, IsWanted, MeterError, NotWantedError
from dsmr_rest.meter.log import CALM, MeterLog
from dsmr_rest.meter.tally import Tally
from dsmr_rest.p1.line import LONGEST_SILENCE, LineCounters
from dsmr_rest.p1.reader import P1Reader
from dsmr_rest.process import clock, threads
from dsmr_rest.reading.document import Reading

log = logging.getLogger(__name__)

STOP_TIME = 1.0
"""Seconds for the reading thread to end. It checks four times a second; only connecting to a peer may take longer."""
SLOW_INTERVAL = 2.0
"""Seconds between telegrams above which a meter is slow: up to DSMR 4 one is sent every 10 s, later every second."""
LATE = 1.5
"""Intervals of the meter after which its next telegram is late."""
LATE_WAKING = 2.0
"""Seconds after its deadline at which a waiter wakes only if this program did not run."""
POLL_PAUSE = 90.0
"""Seconds that a slow meter's port is kept open after a poll: by default, Prometheus polls every minute."""


class _Event:
    """A telegram or a fault that some wait for. `outcome` is None until it happens, and never changes afterwards.

    So whoever wakes late gets what happened when it was waiting, whatever has happened since. `waiters` are those that
    have not been woken for it, in the order in which they began to wait. The lock of the Meter guards both.
    """

    def __init__(self) -> None:
        self.outcome: Reading | MeterError | None = None
        self.waiters: OrderedDict[threading.Condition, None] = OrderedDict()

    def wake_next(self) -> None:
        """Wakes the first of the waiters, if there is one."""
        if self.waiters:
            waiter, _ = self.waiters.popitem(last=False)
            waiter.notify()


class Meter:
    """The meter as any number of threads see it. `errors` counts the requests that got no reading, by fault code.

    It is longer than a class should be, because one lock guards all of its state: two classes would share that lock.
    """

    def __init__(self, reader: P1Reader, *, calm: float = CALM) -> None:
        self.reader = reader
        self.errors = Tally()
        self._settings = reader.settings
        # Guards everything below, and is that of each waiter's Condition. At each event the reading thread wakes the
        # first waiter, and each waiter the next; stop() wakes them all, and who watches a client its waiter.
        self._lock = threading.RLock()
        self._next_event = _Event()  # which all waiters share
        self._latest: Reading | None = None
        self._fault: MeterError | None = None  # set when the last event was a fault
        self._interval: float | None = None  # seconds between the last two telegrams of one opening
        self._keep_open = 0.0  # seconds; the most that the present waiters ask for
        self._open_until = 0.0  # monotonic; the port stays open until then even if nobody waits
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._log = MeterLog(self._settings.timeout, calm)

    @property
    def latest(self) -> Reading | None:
        """The last reading, however old; None before the first."""
        with self._lock:
            return self._latest

    @property
    def waiters(self) -> int:
        """How many requests are waiting for a telegram."""
        with self._lock:
            return len(self._next_event.waiters)

    @property
    def counters(self) -> LineCounters:
        """What happened on the line since the start."""
        return self.reader.counters

    @property
    def interval(self) -> float | None:
        """Seconds between two telegrams of the meter; None before they are known."""
        with self._lock:
            return self._interval

    @property
    def longest_silence(self) -> float:
        """Seconds without a telegram after which the meter is lost for those who follow it.

        Never shorter than an unknown meter's, so that one damaged telegram of a fast meter loses nothing.
        """
        with self._lock:
            return max(self.reader.longest_silence, self._longest_silence())

    def read(
        self,
        deadline: float | None = None,
        max_age: float | None = None,
        after: Reading | None = None,
        keep_open: float | None = None,
        is_wanted: IsWanted | None = None,
    ) -> Reading:
        """Returns a reading that arrives after this call and before `deadline` (monotonic).

        A reading from memory is returned at once if it is at most `max_age` seconds old, or if `after` is given and it
        is a newer one. Afterwards the port is kept open for `keep_open` seconds. Omitted arguments default to the
        settings. Raises MeterError: at once for a fault of the port, at the deadline for a silent or garbled line, and
        when the meter is stopped. Raises NotWantedError when `is_wanted`, which must not block, returns False: it is
        asked before the wait, and again when it calls for that.
        """
        began = clock.now()
        if deadline is None:
            deadline = time.monotonic() + self._settings.timeout
        if max_age is None:
            max_age = self._settings.max_age
        if keep_open is None:
            keep_open = self._settings.keep_open
        counters = self.counters
        with self._lock:
            reading = self._from_memory(began, max_age, after)
            if reading is not None:
                self._stay_open(keep_open)
                return reading
            self._keep_open = max(self._keep_open, keep_open)
            outcome = self._wait(began, deadline, is_wanted)
        if outcome is None:
            outcome = self._failure(counters, began, deadline)
        if isinstance(outcome, Reading):
            return outcome
        self.errors.add(outcome.fault.code)
        self._log.write()
        # Many waiters may get the same fault; an exception object of their own keeps their tracebacks apart.
        raise MeterError(outcome.fault, outcome.detail, outcome.advice)

    def poll(self, deadline: float, is_wanted: IsWanted | None = None) -> Reading:
        """A reading for a client that polls, perhaps more often than the meter sends. Raises what read() raises.

        The reading may be as old as the time between two telegrams, and a slow meter's port is kept open until the next
        poll: otherwise each poll would open the port and wait up to 10 s.
        """
        with self._lock:
            interval = self._interval
            has_fault = self._fault is not None
        if interval is None or interval > LONGEST_SILENCE:
            interval = LONGEST_SILENCE
        max_age = self._settings.max_age
        if not has_fault:
            max_age = max(max_age, interval)
        keep_open = self._settings.keep_open
        if interval > SLOW_INTERVAL:
            keep_open = max(keep_open, POLL_PAUSE)
        return self.read(deadline, max_age=max_age, keep_open=keep_open, is_wanted=is_wanted)

    def open(self, seconds: float) -> None:
        """Opens the port for at least that long, before anybody asks."""
        with self._lock:
            self._stay_open(seconds)
            self._start_reading()

    def stop(self) -> None:
        """Ends the reading thread and every wait; takes at most STOP_TIME."""
        with self._lock:
            self._stopping = True
            for waiter in self._next_event.waiters:
                waiter.notify()
            thread = self._thread
        if thread is not None:
            thread.join(STOP_TIME)

    def _failure(self, before: LineCounters, began: float, deadline: float) -> MeterError:
        """Why nothing arrived since `began`, noted for the log. Without the lock, because that takes a look around."""
        overslept = time.monotonic() - max(deadline, began)
        if overslept < LATE_WAKING:
            overslept = 0.0
        error = self.reader.why_nothing(before, clock.now() - began, overslept=overslept)
        with self._lock:
            self._log.wait_failed(error, began, self._longest_silence())
        return error

    def _longest_silence(self) -> float:
        """Seconds of silence that this meter may keep. The lock is held."""
        if self._interval is None:
            return self.reader.longest_silence
        return LATE * self._interval

    # The waiters' side. The lock is held in all of these, except while a waiter sleeps.

    def _from_memory(self, now: float, max_age: float, after: Reading | None) -> Reading | None:
        """The last reading, if the caller accepts it as it is."""
        latest = self._latest
        if latest is None:
            return None
        is_newer = after is not None and latest is not after
        is_young = now - latest.arrived <= max_age
        if is_newer or is_young:
            return latest
        return None

    def _wait(
        self, began: float, deadline: float, is_wanted: IsWanted | None
    ) -> Reading | MeterError | None:
        """The first reading that arrived after `began` (clock.now()), or a fault of the port; None at the deadline."""
        waiter = threading.Condition(self._lock)

        def look_again() -> None:
            with self._lock:
                waiter.notify()

        while not self._stopping:
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                return None
            if is_wanted is not None and not is_wanted(look_again):
                raise NotWantedError
            outcome = self._outcome_of_next_event(waiter, seconds)
            if isinstance(outcome, MeterError):
                return outcome
            # A telegram that arrived before the request, but was parsed after it, is not a response to it.
            if outcome is not None and outcome.arrived >= began:
                return outcome
        return MeterError(Fault.STOPPING, 'the server is stopping')

    def _outcome_of_next_event(
        self, waiter: threading.Condition, seconds: float
    ) -> Reading | MeterError | None:
        """Sleeps until the next event, and then wakes the next waiter.

        None when there is no event within that time, or the waiter was woken for something else.
        """
        event = self._next_event
        event.waiters[waiter] = None
        try:
            self._start_reading()
            if event.outcome is None:
                waiter.wait(seconds)
        finally:
            if waiter in event.waiters:  # whoever was woken for the event wakes the others
                del event.waiters[waiter]
            else:
                event.wake_next()
        return event.outcome

    def _start_reading(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name='meter', daemon=True)
            try:
                threads.start(self._thread)
            except threads.NoThreadError as error:
                self._thread = None
                self._fail(MeterError(Fault.SERVER_EXHAUSTED, f'the meter cannot be read: {error}'))

    # The reading thread.

    def _run(self) -> None:
        """The thread. Even when it ends because it cannot go on, the next waiter must be able to start another."""
        try:
            self._read_while_needed()
        finally:
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _read_while_needed(self) -> None:
        """Reads until nobody waits. Errors end here: whatever fails, the waiters get a fault."""
        is_needed = True
        while is_needed:
            fault = self._read_until_idle()
            with self._lock:
                if fault is not None:
                    self._fail(fault)
                is_needed = bool(self._next_event.waiters) and not self._stopping
                if not is_needed:
                    self._thread = None
            self._log.write()

    def _read_until_idle(self) -> MeterError | None:
        """Opens the port and hands out readings until nobody waits; the fault that ended it, if one did."""
        try:
            with closing(self.reader.read()) as readings:
                previous: Reading | None = None
                for reading in readings:
                    if reading is not None:
                        self._receive(reading, previous)
                        previous = reading
                    if self._is_idle():
                        break
        except MeterError as error:
            # Without the traceback, whose frames hold the port.
            return MeterError(error.fault, error.detail, error.advice)
        except Exception as unforeseen:
            with self._lock:
                is_repeated = self._fault is not None
            if not is_repeated:
                log.exception('reading failed')
            detail = (
                f'{self._settings.port} could not be read, because of an error of this server ({unforeseen}): the log'
                ' has the details; please report them'
            )
            return MeterError(Fault.INTERNAL_ERROR, detail)
        return None

    def _receive(self, reading: Reading, previous: Reading | None) -> None:
        """Hands out a reading; `previous` is the one before it in this opening of the port."""
        with self._lock:
            self._log.reading_arrived(reading, self.counters)
            self._stay_open(self._keep_open)
            if previous is not None:
                self._interval = reading.arrived - previous.arrived
            self._latest = reading
            self._fault = None
            self._hand_out(reading)
        self._log.write()

    def _stay_open(self, seconds: float) -> None:
        """Keeps the port open for at least that long. The lock is held."""
        self._open_until = max(self._open_until, time.monotonic() + seconds)

    def _is_idle(self) -> bool:
        with self._lock:
            is_needed = bool(self._next_event.waiters) or time.monotonic() < self._open_until
            return self._stopping or not is_needed

    def _fail(self, fault: MeterError) -> None:
        """Hands out a fault of the port, or of what reading needs. The lock is held."""
        self._log.port_failed(fault)
        self._fault = fault
        self._hand_out(fault)

    def _hand_out(self, outcome: Reading | MeterError) -> None:
        """Gives all who wait the outcome, and wakes the first of them. The lock is held."""
        event = self._next_event
        event.outcome = outcome
        self._next_event = _Event()
        self._keep_open = 0.0
        event.wake_next()
