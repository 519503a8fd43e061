"""A rough life: the cable is pulled again and again while streams, a telegram client, a scraper and requests go on.

python -m benchmarks.rough_life [--cycles 10] [--plugged 27] [--unplugged 3]

Exit status 1 when memory, threads or files grow from the first third of the cycles to the last, when a response has
anything but a telegram that was really sent whole and is no older than the response says, when a scrape fails, or when
a fault is reported that an unplugged cable does not explain.
"""

import argparse
import http.client
import json
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from benchmarks.servers import free_port, our_server
from benchmarks.soak import HEAD, LIMIT, Usage
from dsmr_rest.simulated.telegrams import with_checksum
from tests.faulty_meter import FaultyMeter

INTERVAL = 0.2
"""Seconds between two telegrams."""
TIME_ON_THE_WAY = 1.0
"""Seconds that a telegram may take from its making to the end of the response, on a busy machine."""
STREAMS = 4
EXPLAINED = {'port_lost', 'port_missing', 'meter_silent', 'telegram_incomplete'}
"""The codes of faults that an unplugged cable may cause."""
LOOKS = 20
LOOK_PAUSE = 0.05
"""Seconds between two looks at what the server holds."""
NUMBER = re.compile(rb'1-0:1\.8\.1\((\d+)\.000\*kWh\)')
TIMEOUT = 60.0


class Record:
    """The telegrams that were made, by number with their times, and what was wrong with what clients got."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._made: dict[int, float] = {}  # monotonic
        self._complaints: list[str] = []
        self._numbers = count()
        self.checked = 0

    def next_telegram(self) -> bytes:
        """A telegram with its number."""
        with self._lock:
            number = next(self._numbers)
            self._made[number] = time.monotonic()
        lines = ('/SIM5\\2ROUGH', '', '1-3:0.2.8(50)', f'1-0:1.8.1({number:06}.000*kWh)', '')
        return with_checksum('\r\n'.join(lines))

    def check(self, number: int, oldest: float, what: str) -> None:
        """Notes a complaint unless the telegram was made, and not before the monotonic time `oldest`."""
        with self._lock:
            self.checked += 1
            made = self._made.get(number)
            if made is None:
                self._complaints.append(f'{what}: telegram {number} was never sent')
            elif made < oldest - TIME_ON_THE_WAY:
                self._complaints.append(
                    f'{what}: telegram {number} is {oldest - made:.1f} s too old'
                )

    def complain(self, text: str) -> None:
        with self._lock:
            self._complaints.append(text)

    def complaints(self) -> list[str]:
        with self._lock:
            return list(self._complaints)


class Clients:
    """All clients of the server, each in a thread of its own, until close()."""

    def __init__(self, port: int, telegram_port: int, record: Record) -> None:
        self._port = port
        self._telegram_port = telegram_port
        self._record = record
        self._closed = threading.Event()
        work: list[Callable[[], None]] = [self._request, self._scrape, self._take_telegrams]
        work += [self._follow] * STREAMS
        self._threads = [threading.Thread(target=self._repeat, args=(each,)) for each in work]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, work: Callable[[], None]) -> None:
        """Does the work again and again; connections that the server closes are part of it."""
        while not self._closed.is_set():
            with suppress(ConnectionError):
                work()

    def _request(self) -> None:
        began = time.monotonic()
        response = self._get('/')
        document = json.loads(response.read())
        if response.status == http.HTTPStatus.OK:
            number = int(document['electricityUsedTariff1']['value'])
            self._record.check(number, began - int(response.headers['Age']), 'GET /')
        elif document['code'] not in EXPLAINED:
            self._record.complain(f'GET /: {document["code"]}: {document["detail"]}')
        self._closed.wait(0.05)

    def _scrape(self) -> None:
        response = self._get('/metrics')
        response.read()
        if response.status != http.HTTPStatus.OK:
            self._record.complain(f'GET /metrics: {response.status}')
        self._closed.wait(1)

    def _get(self, path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection('127.0.0.1', self._port, timeout=TIMEOUT)
        connection.request('GET', path, headers={'Connection': 'close'})
        return connection.getresponse()

    def _follow(self) -> None:
        response = self._get('/stream')
        for line in response:
            if line.startswith(b'data: {"p1'):
                document = json.loads(line.removeprefix(b'data: '))
                number = int(document['electricityUsedTariff1']['value'])
                self._record.check(number, time.monotonic(), '/stream')
            if self._closed.is_set():
                response.close()
                return

    def _take_telegrams(self) -> None:
        with socket.create_connection(('127.0.0.1', self._telegram_port), TIMEOUT) as client:
            received = b''
            while not self._closed.is_set():
                data = client.recv(4096)
                if not data:
                    self._closed.wait(0.5)
                    return
                *lines, received = (received + data).split(b'!')
                for telegram in lines:
                    number = NUMBER.search(telegram)
                    if number:
                        self._record.check(int(number[1]), time.monotonic(), 'telegram_port')


def live(meter: FaultyMeter, process_id: int, options: argparse.Namespace) -> list[Usage]:
    """Pulls the cable once in each cycle, and prints what the server holds before that."""
    print(HEAD)
    usages = []
    began = time.monotonic()
    for _ in range(options.cycles):
        time.sleep(options.plugged)
        usage = least_usage(process_id)
        usages.append(usage)
        seconds = time.monotonic() - began
        print(
            f'{meter.sent:10} {"":9} {seconds:8.1f} {usage.rss:8} {usage.threads:8} {usage.files:6}',
            flush=True,
        )
        meter.unplug()
        time.sleep(options.unplugged)
        meter.plug_in()
    return usages


def least_usage(process_id: int) -> Usage:
    """The least that the server holds in a few looks: what more there is at a moment belongs to a request."""
    looks = []
    for _ in range(LOOKS):
        looks.append(Usage.of(process_id))
        time.sleep(LOOK_PAUSE)
    return Usage(
        rss=min(look.rss for look in looks),
        threads=min(look.threads for look in looks),
        files=min(look.files for look in looks),
    )


def growth(usages: list[Usage]) -> list[str]:
    """What the server holds more of in the last third than in the first, as complaints."""
    third = max(1, len(usages) // 3)
    first, last = usages[:third], usages[-third:]
    complaints = []
    kilobytes = min(usage.rss for usage in last) - max(usage.rss for usage in first)
    if kilobytes > LIMIT:
        complaints.append(f'memory grew by {kilobytes} kB')
    for what in ('threads', 'files'):
        least = min(getattr(usage, what) for usage in last)
        most = max(getattr(usage, what) for usage in first)
        if least > most:
            complaints.append(f'{what} grew from {most} to {least}')
    return complaints


def main() -> int:
    parser = argparse.ArgumentParser('python -m benchmarks.rough_life', description=__doc__)
    parser.add_argument('--cycles', type=int, default=10)
    parser.add_argument('--plugged', type=float, default=27.0, metavar='SECONDS')
    parser.add_argument('--unplugged', type=float, default=3.0, metavar='SECONDS')
    options = parser.parse_args()
    record = Record()
    port, telegram_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        link = str(Path(folder, 'meter'))
        settings = f'port = {link}\nline = 115200 8N1'
        server_settings = f'telegram_port = {telegram_port}'
        with (
            FaultyMeter(interval=INTERVAL, link=link, source=record.next_telegram) as meter,
            our_server(settings, server_settings, port) as server,
            closing(Clients(port, telegram_port, record)),
        ):
            usages = live(meter, server.pid, options)
    complaints = [*record.complaints(), *growth(usages)]
    print(f'{record.checked} telegrams checked, {len(complaints)} complaints')
    if complaints:
        print(*complaints[:20], 'failed', sep='\n')
        return 1
    print('passed')
    return 0


if __name__ == '__main__':
    sys.exit(main())
