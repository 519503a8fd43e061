"""How many instructions the server executes for a telegram and for a response, whatever the speed of the machine.

valgrind counts them (callgrind, Debian package valgrind). The server is run twice with a different amount of work; the
difference of the counts, divided by that of the work, has neither the start nor the end of the server in it.
"""

import http.client
import json
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.clients import get, streams
from benchmarks.line import Line
from benchmarks.servers import free_port, our_server

END_TIME = 60.0
"""Seconds that valgrind may take to write down what it has counted."""
MILLION = 1e6
RESPONSES = (200, 1200)
TELEGRAMS = (50, 250)
"""The smaller and the larger amount of work."""


@contextmanager
def counted(device: str, port: int, counts: list[int]) -> Iterator[None]:
    """The server under callgrind; after the block `counts` has the number of its instructions as well."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'counts')
        prefix = ('valgrind', '--tool=callgrind', f'--callgrind-out-file={file}')
        meter = f'port = {device}\nline = 115200 8N1'
        with our_server(meter, '', port, prefix=prefix) as process:
            yield
            process.send_signal(signal.SIGTERM)
            process.wait(END_TIME)
        found = re.search(r'^(?:summary|totals): (\d+)', file.read_text(), re.MULTILINE)
        assert found, 'callgrind has counted nothing'
        counts.append(int(found[1]))


def per_response() -> float:
    """Millions of instructions for a response from memory, on a connection that is kept."""

    def work(port: int, amount: int) -> int:
        get(port)
        with closing(http.client.HTTPConnection('127.0.0.1', port)) as connection:
            for _ in range(amount):
                connection.request('GET', '/', headers={'Cache-Control': 'max-age=3600'})
                connection.getresponse().read()
        return amount

    return _per_piece(work, RESPONSES)


def per_telegram() -> float:
    """Millions of instructions for a telegram: received, framed, checked, read, and sent as JSON to one stream."""

    def work(port: int, amount: int) -> int:
        with streams(port, 1):
            received = 0
            while received < amount:
                received = _telegrams_received(port)
        return _telegrams_received(port)

    return _per_piece(work, TELEGRAMS)


def _per_piece(work: Callable[[int, int], int], amounts: tuple[int, int]) -> float:
    """`work` does at least so much with the server at a port, and returns how much it was."""
    counts: list[int] = []
    pieces = []
    for amount in amounts:
        port = free_port()
        with closing(Line(0)) as line, counted(line.device, port, counts):
            pieces.append(work(port, amount))
    instructions = counts[1] - counts[0]
    return instructions / (pieces[1] - pieces[0]) / MILLION


def _telegrams_received(port: int) -> int:
    document = json.loads(get(port, '/health'))
    number: int = document['counters']['telegrams']
    return number
