"""Many meters: one demo server each, all gathered by one real Prometheus through file_sd. On loopback only.

python -m benchmarks.fleet [--servers 30] [--seconds 60]
"""

import argparse
import http.client
import json
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from dsmr_rest.meter import POLL_PAUSE

ROOT = Path(__file__).parent.parent
LOOPBACK = '127.0.0.1'
MOST_SERVERS, LONGEST = 200, 3600
SCRAPE_INTERVAL = 5
"""Seconds; three times as often as in the reckoning, so that a minute has scrapes enough."""
USUAL_INTERVAL = 15
CAPACITY = 100_000
"""Samples a second: what the reckoning lets one Prometheus take in."""
OWN_SAMPLES = 5
"""What Prometheus adds to each scrape: up, its duration, its samples before and behind relabelling, new series."""
START_TIME = 60.0
SETTLE_TIME = POLL_PAUSE + SCRAPE_INTERVAL
"""Seconds: until then a server that does not yet know its meter's speed keeps the port open, and answers sooner."""

CONFIGURATION = f"""\
global:
  scrape_interval: {SCRAPE_INTERVAL}s
scrape_configs:
  - job_name: smart-meter
    file_sd_configs:
      - files: [targets.json]
"""


@contextmanager
def running(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A process, ended with the block; what it says about itself is in the log."""
    with (
        log.open('w') as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()  # nothing, if it has ended


def start_servers(stack: ExitStack, folder: Path, count: int) -> dict[str, subprocess.Popen[str]]:
    """Demo servers by their addresses."""
    config = folder / 'config.ini'
    config.write_text(f'[server]\nhost = {LOOPBACK}\nport = 0\n')
    command: list[str | Path] = [sys.executable, ROOT / 'dsmr_rest_server.py', '--demo', '--config', config]
    servers = [stack.enter_context(running(command, folder / f'server{n}.log')) for n in range(count)]
    addresses = {}
    for number, server in enumerate(servers):
        line = server.stdout.readline() if server.stdout else ''
        found = re.search(r'http://([\d.]+:\d+)/', line)
        if not found:
            sys.exit((folder / f'server{number}.log').read_text() or 'a server did not start')
        addresses[found[1]] = server
    return addresses


class Prometheus:
    """Its process and its HTTP API."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        with socket.create_server((LOOPBACK, 0)) as listening:
            self.port = listening.getsockname()[1]
        self._log = folder / 'prometheus.log'
        options = [
            f'--config.file={folder / "prometheus.yml"}',
            f'--storage.tsdb.path={folder / "data"}',
            f'--web.listen-address={LOOPBACK}:{self.port}',
        ]
        self.process = stack.enter_context(running(['prometheus', *options], self._log))
        self._wait_until(self._is_ready)

    def wait_for_targets(self, count: int) -> None:
        """Until each has been scraped once."""
        self._wait_until(lambda: len(self.query('up')) == count)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIME
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f'Prometheus did not get to work:\n{self._log.read_text()}')
            time.sleep(0.1)

    def _get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=30)
        try:
            connection.request('GET', path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def _is_ready(self) -> bool:
        with suppress(ConnectionRefusedError):
            return b'is Ready' in self._get('/-/ready')
        return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query."""
        answer = json.loads(self._get(f'/api/v1/query?query={quote(expression)}'))
        if answer['status'] != 'success':
            sys.exit(f'{expression}: {answer}')
        return list(answer['data']['result'])

    def values(self, name: str, seconds: int) -> list[float]:
        """All samples of a metric over the last seconds, whatever their labels."""
        series = self.query(f'{name}[{seconds}s]')
        return [float(value) for each in series for _, value in each['values']]


def memory(process: subprocess.Popen[str]) -> tuple[float, float]:
    """RSS and PSS in MB: resident, and with what is shared divided among those who share it."""
    rollup = Path(f'/proc/{process.pid}/smaps_rollup').read_text(encoding='ascii')
    kilobytes = dict(re.findall(r'^(\w+): +(\d+) kB$', rollup, re.MULTILINE))
    return int(kilobytes['Rss']) / 1024, int(kilobytes['Pss']) / 1024


def report(prometheus: Prometheus, servers: Sequence[subprocess.Popen[str]], seconds: int) -> None:
    """Prints what happened in the last seconds."""
    up, dsmr_up = (prometheus.values(name, seconds) for name in ('up', 'dsmr_up'))
    missed, empty = up.count(0.0), dsmr_up.count(0.0)
    due = len(servers) * seconds // SCRAPE_INTERVAL
    print(
        f'scrapes             {len(up)} of {due} due: {len(servers)} servers every {SCRAPE_INTERVAL} s for {seconds} s'
    )
    print(f'missed              {missed + empty} (up == 0: {missed}, dsmr_up == 0: {empty})')
    durations = sorted(prometheus.values('scrape_duration_seconds', seconds))
    percentiles = statistics.quantiles(durations, n=100, method='inclusive')
    print(
        f'scrape duration     p50 {percentiles[49] * 1000:.0f} ms, p95 {percentiles[94] * 1000:.0f} ms,'
        f' longest {durations[-1] * 1000:.0f} ms'
    )
    rss, pss = zip(*map(memory, servers), strict=True)
    print(
        f'memory per server   RSS {statistics.mean(rss):.1f} MB (most {max(rss):.1f}),'
        f' PSS {statistics.mean(pss):.1f} MB (most {max(pss):.1f})'
    )
    print('memory Prometheus   RSS {:.1f} MB, PSS {:.1f} MB'.format(*memory(prometheus.process)))
    scraped = max(prometheus.values('scrape_samples_scraped', seconds))
    print(f'samples per scrape  {scraped:.0f}, and {OWN_SAMPLES} of Prometheus itself')
    each = (scraped + OWN_SAMPLES) / USUAL_INTERVAL
    print(
        f'reckoning           every {USUAL_INTERVAL} s a meter makes ({scraped:.0f} + {OWN_SAMPLES}) / {USUAL_INTERVAL}'
        f' = {each:.2f} samples/s; at {CAPACITY:,} samples/s one Prometheus carries {CAPACITY / each:,.0f} meters'
    )


def number(most: int) -> Any:
    """An argument from 1 to `most`."""

    def parse(text: str) -> int:
        if not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f'must be from 1 to {most}')
        return int(text)

    return parse


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser('python -m benchmarks.fleet', description=__doc__)
    parser.add_argument('--servers', type=number(MOST_SERVERS), default=30)
    parser.add_argument('--seconds', type=number(LONGEST), default=60)
    options = parser.parse_args()
    if not shutil.which('prometheus'):
        parser.error('prometheus is missing: apt-get install prometheus')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        servers = start_servers(stack, folder, options.servers)
        (folder / 'targets.json').write_text(json.dumps([{'targets': list(servers)}]))
        (folder / 'prometheus.yml').write_text(CONFIGURATION)
        prometheus = Prometheus(stack, folder)
        prometheus.wait_for_targets(len(servers))
        wait = SETTLE_TIME + options.seconds
        print(f'{len(servers)} servers are scraped; the report comes in {wait:.0f} s', flush=True)
        time.sleep(wait)
        report(prometheus, list(servers.values()), options.seconds)
        return 0
    return 130


if __name__ == '__main__':
    sys.exit(main())
