"""How many instructions the server executes for a telegram, a response and a waiting client: no matter how fast.

valgrind counts them (callgrind, Debian package valgrind). The server is run twice with a different amount of work; the
difference of the counts, divided by that of the work, has neither the start nor the end of the server in it.
"""

import http.client
import json
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.clients import delays_of_many, get, streams
from benchmarks.line import Line
from benchmarks.servers import free_port, our_server

END_TIME = 60.0
"""Seconds that valgrind may take to write down what it has counted."""
MILLION = 1e6
RESPONSES = (200, 1200)
TELEGRAMS = (50, 250)
WAITING_CLIENTS = (20, 270)
"""The smaller and the larger amount of work."""


class Subject(NamedTuple):
    """The server whose instructions are counted, and the line that it reads."""

    process: subprocess.Popen[bytes]
    port: int
    line: Line


@contextmanager
def counted(line: Line, port: int, counts: list[int]) -> Iterator[Subject]:
    """The server under callgrind; after the block `counts` has the number of its instructions as well."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'counts')
        prefix = ('valgrind', '--tool=callgrind', f'--callgrind-out-file={file}')
        meter = f'port = {line.device}\nline = 115200 8N1'
        with our_server(
            meter, f'max_connections = {max(WAITING_CLIENTS)}', port, prefix=prefix
        ) as process:
            yield Subject(process, port, line)
            process.send_signal(signal.SIGTERM)
            process.wait(END_TIME)
        found = re.search(r'^(?:summary|totals): (\d+)', file.read_text(), re.MULTILINE)
        assert found, 'callgrind has counted nothing'
        counts.append(int(found[1]))


def per_response() -> float:
    """Millions of instructions for a response from memory, on a connection that is kept."""

    def work(subject: Subject, amount: int) -> int:
        get(subject.port)
        with closing(http.client.HTTPConnection('127.0.0.1', subject.port)) as connection:
            for _ in range(amount):
                connection.request('GET', '/', headers={'Cache-Control': 'max-age=3600'})
                connection.getresponse().read()
        return amount

    return _per_piece(work, RESPONSES)


def per_telegram() -> float:
    """Millions of instructions for a telegram: received, framed, checked, read, and sent as JSON to one stream."""

    def work(subject: Subject, amount: int) -> int:
        with streams(subject.port, 1):
            received = 0
            while received < amount:
                received = _telegrams_received(subject.port)
        return _telegrams_received(subject.port)

    return _per_piece(work, TELEGRAMS)


def per_waiting_client() -> float:
    """Millions of instructions for a client that connects, waits for a telegram with others, and gets its response."""

    def work(subject: Subject, amount: int) -> int:
        get(subject.port)
        delays_of_many(subject.line, subject.process, subject.port, amount)
        return amount

    return _per_piece(work, WAITING_CLIENTS, interval=1)


def _per_piece(
    work: Callable[[Subject, int], int], amounts: tuple[int, int], interval: float = 0
) -> float:
    """`work` does at least so much with the server, and returns how much it was. `interval` is that of the line."""
    counts: list[int] = []
    pieces = []
    for amount in amounts:
        port = free_port()
        with closing(Line(interval)) as line, counted(line, port, counts) as subject:
            pieces.append(work(subject, amount))
    instructions = counts[1] - counts[0]
    return instructions / (pieces[1] - pieces[0]) / MILLION


def _telegrams_received(port: int) -> int:
    document = json.loads(get(port, '/health'))
    number: int = document['counters']['telegrams']
    return number
