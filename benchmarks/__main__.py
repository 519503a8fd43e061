"""What the server costs. Each row compares it, in one run, with a floor or a rival that the row names.

python -m benchmarks [--share 0.1] [ROW ...]
"""

import argparse
import compileall
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from benchmarks.clients import (
    delays,
    delays_of_bare_floor,
    delays_of_many,
    get,
    responses_per_second,
    streams,
    telegrams_of_stream,
)
from benchmarks.instructions import per_response, per_telegram, per_waiting_client
from benchmarks.line import Line
from benchmarks.page import bytes_of_next_visit, opened_page
from benchmarks.servers import MACHINE, ROOT, free_port, roomy_server, running
from benchmarks.usage import cpu_seconds, open_files, resident_mb, wake_ups

RUNS = 5
STARTS = 15
REQUESTS_PER_RUN = 20
"""Requests, one after the other, of whose delays a run has the median."""
CLIENTS = 60
TELEGRAMS_PER_RUN = 40
"""Telegrams over which a run measures the CPU time."""
TELEGRAM_INTERVAL = 0.25
TELEGRAMS_OF_STREAM = 100
REQUESTS_BEFORE_MEMORY = 10_000
IDLE_TIME = 10.0
MOST_PER_TELEGRAM = 4.5
MOST_PER_RESPONSE = 0.25
MOST_PER_WAITING_CLIENT = 0.47
"""Millions of instructions, of which other versions of Python need more or fewer: these are for 3.11."""
WAITING_CLIENTS = (1, 10, 100, 400)
OPEN_STREAMS = (1, 10, 60)
"""The horizontal axes of docs/cost.png."""


class Result(NamedTuple):
    """Two columns of a row."""

    ratio: str
    measured: str


def compare(runs: Sequence[tuple[float, float]], template: str) -> Result:
    """The median of the ratios of the runs; the template shows the two medians, ours first."""
    ours = statistics.median(our_figure for our_figure, _ in runs)
    theirs = statistics.median(their_figure for _, their_figure in runs)
    ratio = statistics.median(our_figure / their_figure for our_figure, their_figure in runs)
    return Result(f'{ratio:.2f}', template.format(ours, theirs))


def plain_handler(device: str, port: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return running('-m', 'benchmarks.plain_handler', port, device, port=port)


def responses_from_memory(*, keep_alive: bool) -> Result:
    our_port = free_port()
    floor_port = free_port()
    measure = partial(responses_per_second, keep_alive=keep_alive)
    with (
        closing(Line(1)) as line,
        roomy_server(line.device, our_port),
        bare_floor(get(our_port), floor_port),
    ):
        runs = [(measure(our_port), measure(floor_port)) for _ in range(RUNS)]
    return compare(runs, '{:.0f} against {:.0f} responses/s')


@contextmanager
def bare_floor(body: bytes, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The bare floor, which sends this body."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        with running('-m', 'benchmarks.bare_floor', port, file.name, port=port) as floor:
            yield floor


def delay_of_one_client(chunk: int) -> Result:
    our_port = free_port()
    plain_port = free_port()
    with (
        closing(Line(0.25, chunk)) as line,
        roomy_server(line.device, our_port),
        plain_handler(line.device, plain_port),
    ):
        runs = [
            (median_delay_ms(line, our_port), median_delay_ms(line, plain_port))
            for _ in range(RUNS)
        ]
    return compare(runs, '{:.1f} ms against {:.1f} ms')


def median_delay_ms(line: Line, port: int) -> float:
    """The delay of one client that sends requests one after the other."""
    time.sleep(0.2)  # until the other server has closed the serial port
    return statistics.median(delays(line, port, 1)[0] for _ in range(REQUESTS_PER_RUN)) * 1000


def delay_of_many_clients() -> Result:
    port = free_port()
    runs = []
    with closing(Line(1)) as line, roomy_server(line.device, port) as server:
        for _ in range(RUNS):
            of_one = statistics.median(delays(line, port, 1)[0] for _ in range(5))
            percentiles_of_many = statistics.quantiles(
                delays_of_many(line, server, port, CLIENTS), n=20
            )
            of_many = percentiles_of_many[-1]
            runs.append((of_many, of_one))
    ratio = statistics.median(of_many / of_one for of_many, of_one in runs)
    of_many, of_one = statistics.median_low(runs)
    return Result(f'{ratio:.2f}', f'{of_many * 1000:.1f} ms against {of_one * 1000:.1f} ms')


def cpu_of_one_stream() -> Result:
    runs = []
    for _ in range(RUNS):
        port = free_port()
        with closing(Line(0.15)) as line:
            with roomy_server(line.device, port) as server, streams(port, 1):
                ours = cpu_ms_per_telegram(line, server.pid)
            with running('-m', 'benchmarks.library_loop', line.device) as library:
                theirs = cpu_ms_per_telegram(line, library.pid)
        runs.append((ours, theirs))
    return compare(runs, '{:.2f} ms against {:.2f} ms')


def cpu_ms_per_telegram(line: Line, process_id: int, telegrams: int = TELEGRAMS_PER_RUN) -> float:
    time.sleep(1)
    sent_before = line.sent
    cpu_before = cpu_seconds(process_id)
    while line.sent < sent_before + telegrams:
        time.sleep(0.05)
    cpu_spent = cpu_seconds(process_id) - cpu_before
    return cpu_spent / (line.sent - sent_before) * 1000


def wake_ups_when_idle() -> Result:
    """How often a thread ran in ten seconds without requests, and whether the serial port was closed."""
    port = free_port()
    with closing(Line(1)) as line, roomy_server(line.device, port) as server:
        get(port)
        time.sleep(1)
        before = wake_ups(server.pid)
        time.sleep(IDLE_TIME)
        woken = wake_ups(server.pid) - before
        is_open = Path(line.device) in open_files(server.pid)
    if is_open:
        return Result(str(woken), 'port OPEN')
    return Result(str(woken), 'port closed')


def lost_telegrams() -> Result:
    """How many telegrams a stream lacks of those that the line has sent meanwhile."""
    port = free_port()
    with closing(Line(TELEGRAM_INTERVAL)) as line, roomy_server(line.device, port):
        numbers = telegrams_of_stream(port, TELEGRAMS_OF_STREAM)
    sent = round((numbers[-1] - numbers[0]) * 1000) + 1
    return Result(str(sent - len(numbers)), f'of {sent}, four a second')


def memory_after_requests(path: str = '') -> Result:
    """`path` is asked for once after the others."""
    with closing(Line(0)) as line:
        our_port = free_port()
        with roomy_server(line.device, our_port) as server:
            ours = mb_after_requests(our_port, server.pid)
            if path:
                get(our_port, path)
                ours = resident_mb(server.pid)
        plain_port = free_port()
        with plain_handler(line.device, plain_port) as plain:
            theirs = mb_after_requests(plain_port, plain.pid)
    return compare([(ours, theirs)], '{:.1f} MB against {:.1f} MB')


def mb_after_requests(port: int, process_id: int) -> float:
    for _ in range(REQUESTS_BEFORE_MEMORY):
        get(port)
    return resident_mb(process_id)


def instructions(count: Callable[[], float]) -> Result:
    """Instructions by valgrind, which are the same on a slow machine of this kind."""
    millions = count()
    return Result(f'{millions:.2f}', f'callgrind, Python {platform.python_version()}')


def start() -> Result:
    """From the start of a process to its first connection, against the whole life of one that only imports."""
    runs = []
    for _ in range(STARTS):
        with closing(Line(1)) as line:
            port = free_port()
            began = time.monotonic()
            with roomy_server(line.device, port):
                ours = (time.monotonic() - began) * 1000
            began = time.monotonic()
            with running('-c', 'import dsmr_parser.clients, http.server') as importing:
                assert importing.wait() == 0
                theirs = (time.monotonic() - began) * 1000
        runs.append((ours, theirs))
    return compare(runs, '{:.0f} ms against {:.0f} ms')


def growth() -> Result:
    """How costs grow with the number of clients, as a picture in docs/cost.png.

    The row has the delay of the last of 400 clients, against that of the bare floor, which need not read a meter.
    """
    runs: dict[int, list[tuple[float, float]]] = {}
    cpu_ms: dict[int, float] = {}
    port = free_port()
    floor_port = free_port()
    with closing(Line(1)) as line, roomy_server(line.device, port) as server:
        with bare_floor(get(port), floor_port) as floor:
            for clients in WAITING_CLIENTS:
                ours = partial(delays_of_many, line, server, port, clients)
                theirs = partial(delays_of_bare_floor, floor, floor_port, clients)
                runs[clients] = [(last_ms(ours), last_ms(theirs)) for _ in range(RUNS)]
        for count in OPEN_STREAMS:
            with streams(port, count):
                cpu_ms[count] = cpu_ms_per_telegram(line, server.pid, telegrams=10)
    if MACHINE.share == 1.0:
        draw(runs, cpu_ms)
    return compare(runs[WAITING_CLIENTS[-1]], '{:.1f} ms against {:.1f} ms')


def last_ms(measure: Callable[[], list[float]]) -> float:
    """The delay of the last of some clients."""
    return max(measure()) * 1000


def draw(runs: dict[int, list[tuple[float, float]]], cpu_ms: dict[int, float]) -> None:
    """The medians of the runs by number of waiting clients, ours first, and the CPU time by number of streams."""
    ours: dict[int, float] = {}
    floors: dict[int, float] = {}
    for clients, delays_of_runs in runs.items():
        ours[clients] = statistics.median(our_delay for our_delay, _ in delays_of_runs)
        floors[clients] = statistics.median(their_delay for _, their_delay in delays_of_runs)
    figure = Figure(figsize=(8, 3), layout='constrained')
    left, right = figure.subplots(1, 2)
    left.plot(list(ours), list(ours.values()), marker='o', label='this server')
    left.plot(list(floors), list(floors.values()), marker='o', label='bare floor')
    left.legend()
    left.set(xlabel='waiting clients', ylabel='ms from last byte in to last byte out')
    right.plot(list(cpu_ms), list(cpu_ms.values()), marker='o')
    right.set(xlabel='open streams', ylabel='ms of CPU time per telegram')
    for panel in (left, right):
        panel.set(xlim=0, ylim=0)
        panel.grid(alpha=0.3)
    figure.savefig(ROOT / 'docs/cost.png', dpi=100)


def page_requests() -> Result:
    """How many requests a browser sends to show the dashboard live."""
    port = free_port()
    with closing(Line(1)) as line, roomy_server(line.device, port):
        files = len(opened_page(port))
    page, texts, stream = 1, 1, 1  # one after the other, and what the page names at once
    return Result(str(files + stream), f'{files - page - texts} of them at once')


def page_bytes() -> Result:
    """How many kB travel until the dashboard is complete, with the header sections of the responses."""
    port = free_port()
    with closing(Line(1)) as line, roomy_server(line.device, port):
        responses = opened_page(port)
        again = bytes_of_next_visit(port, responses)
    kilobytes = sum(map(len, responses.values())) / 1000
    return Result(f'{kilobytes:.1f}', f'{again / 1000:.1f} kB when the browser has them already')


class Row(NamedTuple):
    """A row of the table in docs/costs.md, in its words."""

    what: str
    target: str
    measure: Callable[[], Result]

    def is_met(self, result: Result) -> bool:
        """Whether the ratio keeps the target, which is 'at most' or 'at least' a number."""
        bound, _, number = self.target.rpartition(' ')
        if bound == 'at least':
            return float(result.ratio) >= float(number)
        return float(result.ratio) <= float(number)


ROWS = {
    'responses': Row(
        'responses from memory, 16 keep-alive connections, x bare floor',
        'at least 1.0',
        partial(responses_from_memory, keep_alive=True),
    ),
    'responses-close': Row(
        'the same, a connection per request',
        'at least 1.0',
        partial(responses_from_memory, keep_alive=False),
    ),
    'delay': Row(
        'last byte in to last byte out, 16 bytes at a time, x plain handler',
        'at most 1.0',
        partial(delay_of_one_client, 16),
    ),
    'delay-180': Row(
        'the same, 180 bytes at a time', 'at most 1.0', partial(delay_of_one_client, 180)
    ),
    'delay-60': Row(
        'the same with 60 clients, p95, x one client', 'at most 10', delay_of_many_clients
    ),
    'growth': Row(
        'the same with 400 clients, the last one, x bare floor (docs/cost.png)',
        'at most 1.0',
        growth,
    ),
    'lost': Row('telegrams lost by a stream at 115200 baud', 'at most 0', lost_telegrams),
    'cpu': Row(
        'CPU time per telegram, one stream, 16 bytes at a time, x `SerialReader.read()`',
        'at most 0.35',
        cpu_of_one_stream,
    ),
    'idle': Row('wake-ups in 10 s without requests', 'at most 0', wake_ups_when_idle),
    'memory': Row(
        'memory after 10,000 requests, x plain handler', 'at most 1.05', memory_after_requests
    ),
    'memory-scrape': Row(
        'the same after a scrape of `/metrics`',
        'at most 1.10',
        partial(memory_after_requests, '/metrics'),
    ),
    'instructions-telegram': Row(
        'million instructions per telegram, one stream',
        f'at most {MOST_PER_TELEGRAM}',
        partial(instructions, per_telegram),
    ),
    'instructions-response': Row(
        'million instructions per response from memory, keep-alive',
        f'at most {MOST_PER_RESPONSE}',
        partial(instructions, per_response),
    ),
    'instructions-waiting': Row(
        'million instructions per client that connects and waits for a telegram, of 270',
        f'at most {MOST_PER_WAITING_CLIENT}',
        partial(instructions, per_waiting_client),
    ),
    'page-requests': Row('requests until the dashboard is live', 'at most 20', page_requests),
    'page-bytes': Row('kB that the dashboard needs until then', 'at most 40', page_bytes),
    'start': Row('start to first connection, x importing its libraries', 'at most 1.0', start),
}


NEEDS_NO_QUOTA = (
    'instructions-telegram',
    'instructions-response',
    'instructions-waiting',
    'memory',
    'memory-scrape',
    'page-requests',
    'page-bytes',
)
"""What does not depend on the speed of the machine."""
MEANS_NOTHING_WITH_QUOTA = ('delay-60',)
"""One client needs less CPU time than the quota allows at once, so it is as fast as ever."""


def machine() -> str:
    libraries = ', '.join(f'{name} {version(name)}' for name in ('dsmr_parser', 'pyserial'))
    return f'{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}'


def main() -> int:
    """The command. Exit status 1 when a target is missed, which holds for a machine that does nothing else."""
    parser = argparse.ArgumentParser(
        'python -m benchmarks', description='Measures what the server costs.'
    )
    parser.add_argument(
        'rows', nargs='*', metavar='ROW', help=f'which rows (default: all): {", ".join(ROWS)}'
    )
    parser.add_argument(
        '--share',
        type=float,
        default=1.0,
        help='give each process that is measured this share of one processor only, such as 0.1',
    )
    options = parser.parse_args()
    MACHINE.share = options.share
    full_speed = options.share == 1.0
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f'unknown rows: {", ".join(sorted(unknown))}')
    for program in ('wrk', 'valgrind'):
        if not shutil.which(program):
            sys.exit(f'{program} is missing: apt-get install {program}')
    # As on a machine on which the server has run before; the libraries were compiled when they were installed.
    compileall.compile_dir(ROOT / 'dsmr_rest', quiet=1)
    today = time.strftime('%Y-%m-%d')
    print(f'{today}, {machine()}, share of a processor {options.share:g}\n')
    print('| what | ratio | target | measured |\n|---|---|---|---|')
    missed = []
    left_out = [*NEEDS_NO_QUOTA, *MEANS_NOTHING_WITH_QUOTA]
    names = options.rows or [name for name in ROWS if full_speed or name not in left_out]
    for name in names:
        row = ROWS[name]
        result = row.measure()
        print(f'| {row.what} | {result.ratio} | {row.target} | {result.measured} |', flush=True)
        if not row.is_met(result):
            missed.append(name)
    if missed:
        print(f'\nmissed: {", ".join(missed)}', file=sys.stderr)
    return bool(missed)


if __name__ == '__main__':
    sys.exit(main())
