"""A long life in a short time: telegrams as fast as the line passes them, a stream, and clients. What grows?

python -m benchmarks.soak [--telegrams 1000000] [--requests 100000] [--load 60]

The telegrams have only one line of each kind, because a pseudo-terminal passes 4 kB at a time, and no two are equal.
Exit status 1 when memory grew by more than LIMIT after the first tenth, when a thread or a file was left, or when a
request got another status than 200.
"""

import argparse
import http.client
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.servers import free_port, roomy_server
from dsmr_rest.simulated.meter import SimulatedMeter
from dsmr_rest.simulated.telegrams import with_checksum

LIMIT = 1024
"""kB of resident memory."""
ROWS = 20
ROWS_IN_FIRST_TENTH = ROWS // 10
CLIENTS_PER_SECOND = 500
LOAD_THREADS = 8
THREADS_AT_REST = 4
"""One waits for a signal, one accepts connections, one watches those that wait, and one writes the log."""
SETTLE_TIME = 60.0
"""Seconds within which threads must end and files be closed after the last request."""
TIMEOUT = 30.0
"""Seconds that a client waits for a response."""
FROM_MEMORY = {'Cache-Control': 'max-age=60'}
HEAD = f'{"telegrams":>10} {"requests":>9} {"seconds":>8} {"RSS kB":>8} {"threads":>8} {"files":>6}'


@dataclass(frozen=True)
class Usage:
    """What a process holds; `rss` in kB."""

    rss: int
    threads: int
    files: int

    @classmethod
    def of(cls, process_id: int) -> 'Usage':
        folder = Path(f'/proc/{process_id}')
        lines = (folder / 'status').read_text().splitlines()
        status = dict(line.split(':', 1) for line in lines)
        rss, _ = status['VmRSS'].split()
        files = list((folder / 'fd').iterdir())
        return cls(int(rss), int(status['Threads']), len(files))


@dataclass(frozen=True)
class Growth:
    """The result of a soak: kB of memory after the first tenth, and requests that got another status than 200."""

    kilobytes: int
    failures: int


def telegrams() -> Iterator[bytes]:
    """Telegrams with a power failure log, a gas meter, numbers, texts and times, whose values change each time."""
    for number in count():
        month = number // 2419200 % 12 + 1
        day = number // 86400 % 28 + 1
        hour = number // 3600 % 24
        minute = number // 60 % 60
        stamp = f'24{month:02}{day:02}{hour:02}{minute:02}{number % 60:02}W'
        lines = (
            '/SIM5\\2SOAK',
            '',
            '1-3:0.2.8(50)',
            f'0-0:1.0.0({stamp})',
            '0-0:96.1.1(4530303031)',
            f'1-0:1.8.1({number / 1000:010.3f}*kWh)',
            f'1-0:1.7.0({number % 99999 / 1000:06.3f}*kW)',
            f'1-0:99.97.0(1)(0-0:96.7.19)({stamp})({number % 10**9:010}*s)',
            '0-1:24.1.0(003)',
            f'0-1:24.2.1({stamp})({number / 1000:09.3f}*m3)',
            '',
        )
        yield with_checksum('\r\n'.join(lines))


class Clients:
    """One stream, and two clients that keep their connection: one takes new readings, one those of the last minute.

    `telegrams` counts the readings of the stream, `requests` and `failures` the responses to the two clients.
    """

    def __init__(self, port: int, requests: int) -> None:
        self.telegrams = 0
        self.requests = 0
        self.failures = 0
        self._port = port
        self._wanted = requests
        self._lock = threading.Lock()
        """Held by a client that changes `requests` and `failures`; a reader may see a count that is a moment old."""
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._listen, name='stream'),
            threading.Thread(target=self._send_requests, args=({},), name='new-readings'),
            threading.Thread(
                target=self._send_requests, args=(FROM_MEMORY,), name='readings-from-memory'
            ),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        with closing(
            http.client.HTTPConnection('127.0.0.1', self._port, timeout=TIMEOUT)
        ) as connection:
            connection.request('GET', '/stream')
            response = connection.getresponse()
            for line in response:
                if self._closed.is_set():
                    return
                if line.startswith(b'data: {'):
                    self.telegrams += 1

    def _send_requests(self, headers: dict[str, str]) -> None:
        with closing(
            http.client.HTTPConnection('127.0.0.1', self._port, timeout=TIMEOUT)
        ) as connection:
            while not self._closed.is_set() and self.requests < self._wanted:
                connection.request('GET', '/', headers=headers)
                response = connection.getresponse()
                response.read()
                with self._lock:
                    self.requests += 1
                    self.failures += response.status != http.HTTPStatus.OK


def soak(process_id: int, port: int, meter: SimulatedMeter, wanted: int, requests: int) -> Growth:
    """Send so many telegrams and requests, and print a row per twentieth of the telegrams."""
    began = time.monotonic()
    sent: list[int] = []
    rss: list[int] = []
    print(HEAD)
    with closing(Clients(port, requests)) as clients:
        for row in range(1, ROWS + 1):
            wait_for_telegrams(meter, wanted * row // ROWS)
            if row == ROWS:
                wait_for_requests(clients, requests)
            usage = Usage.of(process_id)
            sent.append(meter.sent)
            rss.append(usage.rss)
            seconds = time.monotonic() - began
            counts = f'{meter.sent:10} {clients.requests:9} {seconds:8.1f}'
            print(f'{counts} {usage.rss:8} {usage.threads:8} {usage.files:6}', flush=True)
    first = ROWS_IN_FIRST_TENTH - 1
    kilobytes = rss[-1] - rss[first]
    per_million = kilobytes * 1_000_000 / (sent[-1] - sent[first])
    print(
        f'{clients.telegrams} readings on the stream, {clients.failures} of {clients.requests} requests failed'
    )
    print(
        f'after the first tenth memory grew by {kilobytes} kB, {per_million:.0f} kB per million telegrams'
    )
    return Growth(kilobytes, clients.failures)


def wait_for_telegrams(meter: SimulatedMeter, number: int) -> None:
    while meter.sent < number:
        time.sleep(0.05)


def wait_for_requests(clients: Clients, number: int) -> None:
    while clients.requests < number:
        time.sleep(0.05)


def load(process_id: int, port: int, seconds: int) -> int:
    """Connect CLIENTS_PER_SECOND clients each second, with one request each; return how many did not get a 200."""

    def gets_reading(_: int) -> bool:
        with closing(http.client.HTTPConnection('127.0.0.1', port, timeout=TIMEOUT)) as connection:
            connection.request('GET', '/', headers=FROM_MEMORY)
            response = connection.getresponse()
            has_body = len(response.read()) > 0
            return has_body and response.status == http.HTTPStatus.OK

    began = time.monotonic()
    served = 0
    with ThreadPoolExecutor(LOAD_THREADS) as pool:
        for second in range(seconds):
            served += sum(pool.map(gets_reading, range(CLIENTS_PER_SECOND)))
            next_second = began + second + 1
            time.sleep(max(0.0, next_second - time.monotonic()))
    clients = seconds * CLIENTS_PER_SECOND
    took = time.monotonic() - began
    print(
        f'load: {served} of {clients} clients got a reading in {took:.0f} s; now {Usage.of(process_id)}'
    )
    return clients - served


def settles(process_id: int, files_at_rest: int) -> bool:
    """Whether the numbers of threads and files return to what they are at rest."""
    deadline = time.monotonic() + SETTLE_TIME
    while time.monotonic() < deadline:
        now = Usage.of(process_id)
        if now.threads <= THREADS_AT_REST and now.files <= files_at_rest:
            return True
        time.sleep(0.05)
    print(f'not settled: {now}, at rest there were {files_at_rest} files')
    return False


def main() -> int:
    parser = argparse.ArgumentParser(
        'python -m benchmarks.soak', description='What grows in the server?'
    )
    parser.add_argument('--telegrams', type=int, default=1_000_000)
    parser.add_argument('--requests', type=int, default=100_000)
    parser.add_argument('--load', type=int, default=60, metavar='SECONDS')
    options = parser.parse_args()
    port = free_port()
    source = telegrams().__next__
    with (
        SimulatedMeter(interval=0, source=source) as meter,
        roomy_server(meter.port, port) as server,
    ):
        files_at_rest = Usage.of(server.pid).files
        growth = soak(server.pid, port, meter, options.telegrams, options.requests)
        failures = growth.failures
        if options.load:
            failures += load(server.pid, port, options.load)
        has_settled = settles(server.pid, files_at_rest)
    if not has_settled or growth.kilobytes > LIMIT or failures:
        print('failed')
        return 1
    print('passed')
    return 0


if __name__ == '__main__':
    sys.exit(main())
