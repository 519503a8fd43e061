"""Slow clients in the four ways of slowhttptest (Debian package), against a server of our own on loopback.

python -m benchmarks.rude_clients [--seconds 12] [--mode headers|body|read|range]

While it attacks, a polite client asks for a reading all the time. Exit status 1 when slowhttptest saw no service at the
end, or when the polite client once waited in vain.
"""

import argparse
import http.client
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.__main__ import free_port, process
from dsmr_rest.simulated_meter import SimulatedMeter

MODES = {
    'headers': ('-H', '-i', '2'),
    'body': ('-B', '-i', '2', '-s', '8192'),
    'read': ('-X', '-w', '1', '-y', '64', '-z', '8', '-n', '2', '-k', '5'),
    'range': ('-R', '-a', '5', '-b', '2000'),
}
CONNECTIONS, A_SECOND = 300, 100
"""Several times max_connections, which is left at its default."""
PATIENCE = 5.0
"""Seconds that slowhttptest and the polite client wait for an answer before they call it none."""
DROPPED, NONE = -1, 0
HEAD = f'{"mode":8} {"available":>9} {"answered":>9} {"refused":>8} {"dropped":>8} {"unanswered":>11} {"slowest":>8}'
REST = 0.2
"""Seconds between two requests of the polite client."""


class PoliteClient:
    """Asks for a reading on a new connection again and again.

    `answers` are status and seconds, with DROPPED for a connection that was closed at once and NONE for a timeout.
    """

    def __init__(self, port: int) -> None:
        self.answers: list[tuple[int, float]] = []
        self._port = port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def row(self) -> str:
        good = [seconds for status, seconds in self.answers if status == http.HTTPStatus.OK]
        statuses = [status for status, _ in self.answers]
        refused, dropped = statuses.count(http.HTTPStatus.SERVICE_UNAVAILABLE), statuses.count(DROPPED)
        slowest = max((seconds for _, seconds in self.answers), default=0.0)
        return f'{len(good):9} {refused:8} {dropped:8} {self.unanswered:11} {slowest:8.2f}'

    @property
    def unanswered(self) -> int:
        return sum(status == NONE for status, _ in self.answers)

    def _run(self) -> None:
        while not self._ended.wait(REST):
            began, status = time.monotonic(), DROPPED
            try:
                with closing(http.client.HTTPConnection('127.0.0.1', self._port, timeout=PATIENCE)) as connection:
                    connection.request('GET', '/', headers={'Cache-Control': 'max-age=60'})
                    status = connection.getresponse().status
            except TimeoutError:
                status = NONE
            except (OSError, http.client.HTTPException):
                pass
            self.answers.append((status, time.monotonic() - began))


def attack(mode: str, port: int, seconds: int) -> bool:
    """Whether slowhttptest saw the service at its end."""
    program = shutil.which('slowhttptest')
    assert program, 'slowhttptest is missing: apt-get install slowhttptest'
    limits = ('-c', CONNECTIONS, '-r', A_SECOND, '-l', seconds, '-p', int(PATIENCE))
    command = [program, *MODES[mode], *map(str, limits), '-u', f'http://127.0.0.1:{port}/dashboard']
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 60)
    shown = re.sub(r'\x1b\[[\d;]*\w', '', run.stdout)
    return re.findall(r'service available:\s*(\w+)', shown)[-1:] == ['YES']


def row(mode: str, port: int, seconds: int) -> bool:
    """Prints a row of the table; whether nobody was denied."""
    with closing(PoliteClient(port)) as polite:
        available = attack(mode, port, seconds)
    served = any(status == http.HTTPStatus.OK for status, _ in polite.answers)
    print(f'{mode:8} {"YES" if available else "NO":>9} {polite.row}', flush=True)
    return available and served and not polite.unanswered


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser('python -m benchmarks.rude_clients', description='Slow clients, in four ways.')
    parser.add_argument('--seconds', type=int, default=12, help='of each (default: 12)')
    parser.add_argument('--mode', choices=MODES, action='append', help='one of the four; may be repeated')
    options = parser.parse_args(arguments)
    port = free_port()
    with SimulatedMeter() as meter, tempfile.TemporaryDirectory() as folder:
        config = Path(folder, 'config.ini')
        config.write_text(f'[meter]\nport = {meter.port}\n[server]\nhost = 127.0.0.1\nport = {port}\n')
        with process('dsmr_rest_server.py', '--config', config, port=port):
            print(HEAD)
            passed = [row(mode, port, options.seconds) for mode in options.mode or MODES]
    print('passed' if all(passed) else 'failed')
    return 0 if all(passed) else 1


if __name__ == '__main__':
    sys.exit(main())
