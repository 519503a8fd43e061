"""Slow clients in the four modes of slowhttptest (Debian package), against a server on loopback.

python -m benchmarks.rude_clients [--seconds 12] [--mode headers|body|read|range]

During the attack a polite client requests readings, one after the other. Exit status 1 when slowhttptest found the
service unavailable at the end, when the polite client never got a reading, or when one of its requests timed out.
"""

import argparse
import http.client
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from benchmarks.servers import free_port, our_server
from dsmr_rest.simulated.meter import SimulatedMeter

MODES = {
    'headers': ('-H', '-i', '2'),
    'body': ('-B', '-i', '2', '-s', '8192'),
    'read': ('-X', '-w', '1', '-y', '64', '-z', '8', '-n', '2', '-k', '5'),
    'range': ('-R', '-a', '5', '-b', '2000'),
}
CONNECTIONS = 300
"""Several times max_connections, which is left at its default."""
CONNECTIONS_PER_SECOND = 100
TIMEOUT = 5.0
"""Seconds that slowhttptest and the polite client wait for a response."""
PAUSE = 0.2
"""Seconds between two requests of the polite client."""
DROPPED = -1
"""The status of a request whose connection was closed without a response."""
TIMED_OUT = 0
"""The status of a request without a response within TIMEOUT."""
HEAD = f'{"mode":8} {"available":>9} {"readings":>9} {"refused":>8} {"dropped":>8} {"timed out":>9} {"slowest":>8}'
TERMINAL_CODE = re.compile(r'\x1b\[[\d;]*\w')


@dataclass(frozen=True)
class Outcome:
    """How a request ended: an HTTP status, DROPPED or TIMED_OUT; after so many seconds."""

    status: int
    seconds: float


class PoliteClient:
    """Requests a reading again and again, each time on a new connection."""

    def __init__(self, port: int) -> None:
        self.outcomes: list[Outcome] = []
        """Complete once the client is closed."""
        self._port = port
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name='polite-client')
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def count(self, status: int) -> int:
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def columns(self) -> str:
        """Its part of a row under HEAD."""
        readings = self.count(http.HTTPStatus.OK)
        refused = self.count(http.HTTPStatus.SERVICE_UNAVAILABLE)
        dropped = self.count(DROPPED)
        timed_out = self.count(TIMED_OUT)
        slowest = max((outcome.seconds for outcome in self.outcomes), default=0.0)
        return f'{readings:9} {refused:8} {dropped:8} {timed_out:9} {slowest:8.2f}'

    def _run(self) -> None:
        while not self._closed.wait(PAUSE):
            began = time.monotonic()
            status = self._request_reading()
            self.outcomes.append(Outcome(status, time.monotonic() - began))

    def _request_reading(self) -> int:
        try:
            with closing(
                http.client.HTTPConnection('127.0.0.1', self._port, timeout=TIMEOUT)
            ) as connection:
                connection.request('GET', '/', headers={'Cache-Control': 'max-age=60'})
                return connection.getresponse().status
        except TimeoutError:
            return TIMED_OUT
        except (OSError, http.client.HTTPException):
            return DROPPED


def attack(mode: str, port: int, seconds: int) -> bool:
    """Run slowhttptest; return whether it found the service available at the end."""
    program = shutil.which('slowhttptest')
    assert program, 'slowhttptest is missing: apt-get install slowhttptest'
    limits = ('-c', CONNECTIONS, '-r', CONNECTIONS_PER_SECOND, '-l', seconds, '-p', int(TIMEOUT))
    command = [program, *MODES[mode], *map(str, limits), '-u', f'http://127.0.0.1:{port}/dashboard']
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 60)
    report = TERMINAL_CODE.sub('', run.stdout)
    availability = re.findall(r'service available:\s*(\w+)', report)
    return availability[-1:] == ['YES']


def withstands(mode: str, port: int, seconds: int) -> bool:
    """Print a row of the table; return whether the server served everybody during the attack."""
    with closing(PoliteClient(port)) as polite:
        is_available = attack(mode, port, seconds)
    shown = 'NO'
    if is_available:
        shown = 'YES'
    print(f'{mode:8} {shown:>9} {polite.columns}', flush=True)
    has_served = polite.count(http.HTTPStatus.OK) > 0
    return is_available and has_served and polite.count(TIMED_OUT) == 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        'python -m benchmarks.rude_clients', description='Slow clients, in four modes.'
    )
    parser.add_argument('--seconds', type=int, default=12, help='of each mode (default: 12)')
    parser.add_argument(
        '--mode', choices=MODES, action='append', help='may be repeated (default: all four)'
    )
    options = parser.parse_args(arguments)
    port = free_port()
    with SimulatedMeter() as meter, our_server(f'port = {meter.port}', '', port):
        print(HEAD)
        results = [withstands(mode, port, options.seconds) for mode in options.mode or MODES]
    if not all(results):
        print('failed')
        return 1
    print('passed')
    return 0


if __name__ == '__main__':
    sys.exit(main())
