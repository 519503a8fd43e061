"""Many meters: a demo server for each, all scraped by one real Prometheus (Debian package) through file_sd.

python -m benchmarks.fleet [--servers 30] [--seconds 60]
"""

import argparse
import http.client
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import quote

from benchmarks.servers import ROOT, free_port
from dsmr_rest.meter.meter import POLL_PAUSE

LOOPBACK = '127.0.0.1'
MAX_SERVERS = 200
MAX_SECONDS = 3600
SCRAPE_INTERVAL = 5
"""Seconds; shorter than USUAL_INTERVAL, so that a minute has enough scrapes."""
USUAL_INTERVAL = 15
"""Seconds between scrapes, from which the number of meters is extrapolated."""
CAPACITY = 100_000
"""Samples per second that one Prometheus is assumed to ingest."""
OWN_SAMPLES = 5
"""Samples that Prometheus adds to each scrape: up, its duration, samples before and after relabelling, new series."""
START_TIME = 60.0
"""Seconds within which Prometheus must be ready, and must then have scraped all servers."""
TIME_TO_END = 10.0
"""Seconds after which a process that still runs is killed."""
SETTLE_TIME = POLL_PAUSE + SCRAPE_INTERVAL
"""Seconds: until then a server that does not yet know its meter's baud rate keeps the port open and responds sooner."""
STOPPED_BY_CTRL_C = 130
"""Exit status: 128 and SIGINT, as shells have it."""

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
    """A process that ends with the block. Its stderr goes to the log."""
    with (
        log.open('w') as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(TIME_TO_END)
            process.kill()  # has no effect if it has ended


def start_servers(stack: ExitStack, folder: Path, count: int) -> dict[str, subprocess.Popen[str]]:
    """Demo servers by their addresses, which the stack ends."""
    config = folder / 'config.ini'
    config.write_text(f'[server]\nhost = {LOOPBACK}\nport = 0\n')
    command: list[str | Path] = [
        sys.executable,
        ROOT / 'dsmr_rest_server.py',
        '--demo',
        '--config',
        config,
    ]
    logs = [folder / f'server{number}.log' for number in range(count)]
    servers = [stack.enter_context(running(command, log)) for log in logs]
    return {address_of(server, log): server for server, log in zip(servers, logs, strict=True)}


def address_of(server: subprocess.Popen[str], log: Path) -> str:
    """Host and port, from the line that says where it serves. Exits when the server did not start."""
    assert server.stdout
    line = server.stdout.readline()
    found = re.search(r'http://([\d.]+:\d+)/', line)
    if found is None:
        sys.exit(log.read_text() or 'a server did not start')
    return found[1]


class Prometheus:
    """Its process and its HTTP API."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._port = free_port()
        self._log = folder / 'prometheus.log'
        options = [
            f'--config.file={folder / "prometheus.yml"}',
            f'--storage.tsdb.path={folder / "data"}',
            f'--web.listen-address={LOOPBACK}:{self._port}',
        ]
        self.process = stack.enter_context(running(['prometheus', *options], self._log))
        self._wait_until(self._is_ready)

    def wait_for_targets(self, count: int) -> None:
        """Return when so many targets have been scraped."""
        self._wait_until(lambda: len(self.query('up')) == count)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query. Exits when the query failed."""
        response = json.loads(self._get(f'/api/v1/query?query={quote(expression)}'))
        if response['status'] != 'success':
            sys.exit(f'{expression}: {response}')
        return list(response['data']['result'])

    def values(self, metric: str, seconds: int) -> list[float]:
        """All samples of a metric over the last seconds, with any labels."""
        values = []
        for series in self.query(f'{metric}[{seconds}s]'):
            for _, value in series['values']:
                values.append(float(value))
        return values

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIME
        while not condition():
            has_ended = self.process.poll() is not None
            if has_ended or time.monotonic() > deadline:
                sys.exit(f'Prometheus did not start:\n{self._log.read_text()}')
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        with suppress(ConnectionRefusedError):
            return b'is Ready' in self._get('/-/ready')
        return False

    def _get(self, path: str) -> bytes:
        with closing(http.client.HTTPConnection(LOOPBACK, self._port, timeout=30)) as connection:
            connection.request('GET', path)
            return connection.getresponse().read()


class Memory(NamedTuple):
    """Resident MB; and the same with shared pages divided among the processes that share them."""

    rss: float
    pss: float


def memory(process: subprocess.Popen[str]) -> Memory:
    rollup = Path(f'/proc/{process.pid}/smaps_rollup').read_text(encoding='ascii')
    kilobytes = dict(re.findall(r'^(\w+): +(\d+) kB$', rollup, re.MULTILINE))
    return Memory(int(kilobytes['Rss']) / 1024, int(kilobytes['Pss']) / 1024)


def report(prometheus: Prometheus, servers: Sequence[subprocess.Popen[str]], seconds: int) -> None:
    """Print what happened in the last seconds."""
    report_scrapes(prometheus, len(servers), seconds)
    report_memory(prometheus, servers)
    report_capacity(prometheus, seconds)


def report_scrapes(prometheus: Prometheus, servers: int, seconds: int) -> None:
    up = prometheus.values('up', seconds)
    failed = up.count(0.0)
    without_reading = prometheus.values('dsmr_up', seconds).count(0.0)
    due = servers * seconds // SCRAPE_INTERVAL
    print(
        f'scrapes             {len(up)} of {due} due: {servers} servers every {SCRAPE_INTERVAL} s for {seconds} s'
    )
    print(
        f'missed              {failed + without_reading} (up == 0: {failed}, dsmr_up == 0: {without_reading})'
    )
    durations = prometheus.values('scrape_duration_seconds', seconds)
    percentiles = statistics.quantiles(durations, n=100, method='inclusive')
    p50_ms = percentiles[49] * 1000
    p95_ms = percentiles[94] * 1000
    longest_ms = max(durations) * 1000
    print(
        f'scrape duration     p50 {p50_ms:.0f} ms, p95 {p95_ms:.0f} ms, longest {longest_ms:.0f} ms'
    )


def report_memory(prometheus: Prometheus, servers: Sequence[subprocess.Popen[str]]) -> None:
    of_servers = [memory(server) for server in servers]
    rss = [of_server.rss for of_server in of_servers]
    pss = [of_server.pss for of_server in of_servers]
    rss_text = f'RSS {statistics.mean(rss):.1f} MB (most {max(rss):.1f})'
    pss_text = f'PSS {statistics.mean(pss):.1f} MB (most {max(pss):.1f})'
    print(f'memory per server   {rss_text}, {pss_text}')
    of_prometheus = memory(prometheus.process)
    print(f'memory Prometheus   RSS {of_prometheus.rss:.1f} MB, PSS {of_prometheus.pss:.1f} MB')


def report_capacity(prometheus: Prometheus, seconds: int) -> None:
    scraped = max(prometheus.values('scrape_samples_scraped', seconds))
    per_second = (scraped + OWN_SAMPLES) / USUAL_INTERVAL
    meters = CAPACITY / per_second
    print(f'samples per scrape  {scraped:.0f}, and {OWN_SAMPLES} that Prometheus adds')
    print(
        f'extrapolated        scraped every {USUAL_INTERVAL} s, a meter makes {per_second:.2f} samples/s;'
    )
    print(
        f'                    a Prometheus that ingests {CAPACITY:,} samples/s can handle {meters:,.0f} meters'
    )


def number(most: int) -> Callable[[str], int]:
    """A parser of an argument from 1 to `most`."""

    def parse(text: str) -> int:
        if not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f'must be from 1 to {most}')
        return int(text)

    return parse


def main() -> int:
    description = 'Many demo servers, scraped by one Prometheus.'
    parser = argparse.ArgumentParser('python -m benchmarks.fleet', description=description)
    parser.add_argument('--servers', type=number(MAX_SERVERS), default=30, help='default: 30')
    parser.add_argument('--seconds', type=number(MAX_SECONDS), default=60, help='default: 60')
    options = parser.parse_args()
    if not shutil.which('prometheus'):
        parser.error('prometheus is missing: apt-get install prometheus')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        servers = start_servers(stack, folder, options.servers)
        targets = [{'targets': list(servers)}]
        (folder / 'targets.json').write_text(json.dumps(targets))
        (folder / 'prometheus.yml').write_text(CONFIGURATION)
        prometheus = Prometheus(stack, folder)
        prometheus.wait_for_targets(len(servers))
        wait = SETTLE_TIME + options.seconds
        print(f'{len(servers)} servers are scraped; the report comes in {wait:.0f} s', flush=True)
        time.sleep(wait)
        report(prometheus, list(servers.values()), options.seconds)
        return 0
    return STOPPED_BY_CTRL_C


if __name__ == '__main__':
    sys.exit(main())
