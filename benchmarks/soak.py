"""A long life in a short time: telegrams as fast as the line goes, a stream and clients; what grows in the server?

python -m benchmarks.soak [--telegrams 1000000] [--requests 100000] [--load 60]

The telegrams are short, with one line of each kind, and all differ: a pseudo-terminal passes 4 kB at a time, and so
more of them pass. Exit status 1 when memory grew by more than LIMIT behind the first tenth, when a thread or a file was
left, or when a request was not answered with 200.
"""

import argparse
import http.client
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.__main__ import free_port, our_server
from dsmr_rest.simulated_meter import SimulatedMeter, with_checksum

LIMIT = 1024
"""kB of resident memory."""
ROWS = 20
CLIENTS_A_SECOND, LOADERS = 500, 8
SETTLE_TIME = 10.0
HEAD = f'{"telegrams":>10} {"requests":>9} {"seconds":>8} {"RSS kB":>8} {"threads":>8} {"files":>6}'


@dataclass(frozen=True)
class Usage:
    """What a process holds; `rss` in kB."""

    rss: int
    threads: int
    files: int

    @classmethod
    def of(cls, process: int) -> 'Usage':
        folder = Path(f'/proc/{process}')
        status = dict(line.split(':', 1) for line in (folder / 'status').read_text().splitlines())
        return cls(int(status['VmRSS'].split()[0]), int(status['Threads']), len(list((folder / 'fd').iterdir())))


def telegrams() -> Iterator[bytes]:
    """Telegrams with a power failure log, a gas meter, numbers, texts and times, each with values of its own."""
    for number in count():
        stamp = f'24{number // 2419200 % 12 + 1:02}{number // 86400 % 28 + 1:02}'
        stamp += f'{number // 3600 % 24:02}{number // 60 % 60:02}{number % 60:02}W'
        lines = (
            '/SIM5\\2SOAK', '', '1-3:0.2.8(50)', f'0-0:1.0.0({stamp})', '0-0:96.1.1(4530303031)',
            f'1-0:1.8.1({number / 1000:010.3f}*kWh)', f'1-0:1.7.0({number % 99999 / 1000:06.3f}*kW)',
            f'1-0:99.97.0(1)(0-0:96.7.19)({stamp})({number % 10**9:010}*s)',
            '0-1:24.1.0(003)', f'0-1:24.2.1({stamp})({number / 1000:09.3f}*m3)', '',
        )  # fmt: skip
        yield with_checksum('\r\n'.join(lines))


class Clients:
    """One stream, and two clients that keep their connection: one takes what is new, one what is a minute old."""

    def __init__(self, port: int, requests: int) -> None:
        self.telegrams, self.requests, self.failures = 0, 0, 0
        self._port, self._wanted = port, requests
        self._lock = threading.Lock()  # guards the counts of requests
        self._ended = threading.Event()
        jobs: list[tuple[Callable[..., None], tuple[dict[str, str], ...]]] = [
            (self._listen, ()),
            (self._ask, ({},)),
            (self._ask, ({'Cache-Control': 'max-age=60'},)),
        ]
        self._threads = [threading.Thread(target=job, args=given) for job, given in jobs]
        for each in self._threads:
            each.start()

    def close(self) -> None:
        self._ended.set()
        for each in self._threads:
            each.join()

    def _listen(self) -> None:
        with closing(http.client.HTTPConnection('127.0.0.1', self._port, timeout=30)) as connection:
            connection.request('GET', '/stream')
            answer = connection.getresponse()
            while not self._ended.is_set() and (line := answer.readline()):
                self.telegrams += line.startswith(b'data: {')

    def _ask(self, headers: dict[str, str]) -> None:
        with closing(http.client.HTTPConnection('127.0.0.1', self._port, timeout=30)) as connection:
            while not self._ended.is_set() and self.requests < self._wanted:
                connection.request('GET', '/', headers=headers)
                answer = connection.getresponse()
                answer.read()
                with self._lock:
                    self.requests += 1
                    self.failures += answer.status != http.HTTPStatus.OK


def soak(process: int, port: int, meter: SimulatedMeter, wanted: int, requests: int) -> tuple[int, int]:
    """Prints a row per twentieth; gives the growth in kB behind the first tenth and how many requests failed."""
    began, rows = time.monotonic(), []
    with closing(Clients(port, requests)) as clients:
        for row in range(1, ROWS + 1):
            while meter.sent < wanted * row // ROWS or (row == ROWS and clients.requests < requests):
                time.sleep(0.05)
            usage, seconds = Usage.of(process), time.monotonic() - began
            rows.append((meter.sent, usage.rss))
            print(
                f'{meter.sent:10} {clients.requests:9} {seconds:8.1f} {usage.rss:8} {usage.threads:8} {usage.files:6}',
                flush=True,
            )
    (sent, before), (sent_at_last, after) = rows[ROWS // 10 - 1], rows[-1]
    print(
        f'{clients.telegrams} readings came through the stream, {clients.failures} of {clients.requests} requests'
        f' failed; behind the first tenth memory grew by {after - before} kB,'
        f' {(after - before) * 1_000_000 / (sent_at_last - sent):.0f} kB per million telegrams'
    )
    return after - before, clients.failures


def load(process: int, port: int, seconds: int) -> int:
    """CLIENTS_A_SECOND new connections each second, each with one request; how many were not answered with 200."""

    def one(_: int) -> bool:
        with closing(http.client.HTTPConnection('127.0.0.1', port, timeout=30)) as connection:
            connection.request('GET', '/', headers={'Cache-Control': 'max-age=60'})
            answer = connection.getresponse()
            return bool(answer.read()) and answer.status == http.HTTPStatus.OK

    began, answered = time.monotonic(), 0
    with ThreadPoolExecutor(LOADERS) as pool:
        for second in range(seconds):
            answered += sum(pool.map(one, range(CLIENTS_A_SECOND)))
            time.sleep(max(0.0, began + second + 1 - time.monotonic()))
    asked, took = seconds * CLIENTS_A_SECOND, time.monotonic() - began
    usage = Usage.of(process)
    print(f'load: {answered} of {asked} clients answered in {took:.0f} s; now {usage}')
    return asked - answered


def settled(process: int, rest: Usage) -> bool:
    """Whether threads and files come back to what they were at rest."""
    deadline = time.monotonic() + SETTLE_TIME
    while (now := Usage.of(process)).threads > rest.threads or now.files > rest.files:
        if time.monotonic() > deadline:
            print(f'left behind: {now}, at rest it was {rest}')
            return False
        time.sleep(0.05)
    return True


@contextmanager
def server_at(device: str) -> Iterator[tuple[int, int]]:
    """Process and port of a server."""
    port = free_port()
    with our_server(device, port) as process:
        yield process.pid, port


def main() -> int:
    parser = argparse.ArgumentParser('python -m benchmarks.soak', description='What grows in the server?')
    parser.add_argument('--telegrams', type=int, default=1_000_000)
    parser.add_argument('--requests', type=int, default=100_000)
    parser.add_argument('--load', type=int, default=60, metavar='SECONDS')
    options = parser.parse_args()
    with SimulatedMeter(interval=0, source=telegrams().__next__) as meter, server_at(meter.port) as (process, port):
        rest = Usage.of(process)
        print(HEAD)
        grown, failures = soak(process, port, meter, options.telegrams, options.requests)
        failures += load(process, port, options.load) if options.load else 0
        passed = settled(process, rest) and grown <= LIMIT and not failures
    print('passed' if passed else 'failed')
    return 0 if passed else 1


if __name__ == '__main__':
    sys.exit(main())
