"""python -m benchmarks: what the server costs, each row a ratio in one run against a floor or a rival it names."""

import argparse
import http.client
import json
import os
import platform
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.line import Line

ROOT = Path(__file__).parent.parent
RUNS = 5


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    try:
        socket.create_connection(('127.0.0.1', port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def process(*command: object, port: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is there when its port answers, and gone behind the block."""
    quiet = subprocess.DEVNULL
    started = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, stdout=quiet, stderr=quiet)
    try:
        deadline = time.monotonic() + 20
        while port and not answers(port):
            assert time.monotonic() < deadline, f'{command} does not answer'
            assert started.poll() is None, f'{command} ended'
            time.sleep(0.01)
        yield started
    finally:
        started.kill()
        started.wait()


@contextmanager
def our_server(device: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, 'config.ini')
        config.write_text(
            f'[meter]\nport = {device}\nline = 115200 8N1\n'
            f'[server]\nhost = 127.0.0.1\nport = {port}\nmax_connections = 900\nmax_streams = 100\n'
        )
        with process('dsmr_rest_server.py', '--config', config, port=port) as started:
            yield started


def plain_shape(device: str, port: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return process('-m', 'benchmarks.plain_shape', port, device, port=port)


def cpu(pid: int) -> float:
    """Seconds of CPU of a process so far, threads that have ended included: its CPU clock, clock_getcpuclockid(3)."""
    return time.clock_gettime(~pid << 3 | 2)


def memory(pid: int) -> float:
    """Resident MB of a process."""
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def get(port: int) -> bytes:
    """The body of one answer."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    connection.request('GET', '/')
    body = connection.getresponse().read()
    connection.close()
    return body


def number(body: bytes) -> float:
    """The number of the telegram that an answer holds."""
    document = json.loads(body)
    item = document.get('electricityUsedTariff1') or document['ELECTRICITY_USED_TARIFF_1']
    value: float = item['value']
    return value


def wrk(port: int, seconds: int = 3) -> float:
    """Answers a second on 16 keep-alive connections."""
    command = ['wrk', '-t1', '-c16', f'-d{seconds}s', '-H', 'Cache-Control: max-age=3600', f'http://127.0.0.1:{port}/']
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 'Non-2xx' not in text, text
    return float(text.rpartition('Requests/sec:')[2].split()[0])


def delays(line: Line, port: int, clients: int) -> list[float]:
    """Seconds from a telegram's last byte on the wire to the last byte of each answer, for clients that ask at once."""
    received: dict[socket.socket, bytes] = {}
    done: dict[socket.socket, float] = {}
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            connection = socket.create_connection(('127.0.0.1', port))
            connection.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
            received[connection] = b''
            selector.register(connection, selectors.EVENT_READ)
        while len(done) < clients:
            for key, _ in selector.select():
                connection = key.fileobj  # type: ignore[assignment]
                chunk = connection.recv(65536)
                received[connection] += chunk
                head, _, body = received[connection].partition(b'\r\n\r\n')
                length = int(head.lower().partition(b'content-length: ')[2].split(b'\r\n')[0]) if body else 0
                if body and len(body) == length:
                    done[connection] = time.monotonic()
                    selector.unregister(connection)
                assert chunk or connection in done, received[connection]
    for connection in received:
        connection.close()
    bodies = {connection: answer.partition(b'\r\n\r\n')[2] for connection, answer in received.items()}
    return [at - line.ended[number(bodies[connection])] for connection, at in done.items()]


def from_memory() -> tuple[str, float]:
    line, ours, floor = Line(1), free_port(), free_port()
    with ExitStack() as stack, tempfile.NamedTemporaryFile() as file:
        stack.callback(line.close)
        stack.enter_context(our_server(line.device, ours))
        file.write(get(ours))
        file.flush()
        stack.enter_context(process('-m', 'benchmarks.bare_floor', floor, file.name, port=floor))
        runs = [(wrk(ours), wrk(floor)) for _ in range(RUNS)]
    mine, other = (statistics.median(each) for each in zip(*runs, strict=True))
    return f'{mine:.0f} against {other:.0f} answers/s', statistics.median(a / b for a, b in runs)


def delay_of_one(arrival: int) -> tuple[str, float]:
    line = Line(0.25, arrival)
    ours, plain = free_port(), free_port()
    with ExitStack() as stack:
        stack.callback(line.close)
        stack.enter_context(our_server(line.device, ours))
        stack.enter_context(plain_shape(line.device, plain))
        runs = [[delay_in_a_row(line, port) for port in (ours, plain)] for _ in range(RUNS)]
    mine, other = (statistics.median(each) * 1000 for each in zip(*runs, strict=True))
    return f'{mine:.1f} ms against {other:.1f} ms', statistics.median(a / b for a, b in runs)


def delay_in_a_row(line: Line, port: int) -> float:
    time.sleep(0.2)  # the other server lets go of the port
    return statistics.median(delays(line, port, 1)[0] for _ in range(20))


def delay_of_many(clients: int = 60) -> tuple[str, float]:
    line, port = Line(1), free_port()
    with ExitStack() as stack:
        stack.callback(line.close)
        stack.enter_context(our_server(line.device, port))
        ratios, shown = [], []
        for _ in range(RUNS):
            one = statistics.median(delays(line, port, 1)[0] for _ in range(5))
            many = statistics.quantiles(delays(line, port, clients), n=20)[-1]
            ratios.append(many / one)
            shown.append((many * 1000, one * 1000))
    return '{:.1f} ms against {:.1f} ms'.format(*statistics.median_low(shown)), statistics.median(ratios)


@contextmanager
def streams(port: int, count: int) -> Iterator[None]:
    """So many open streams, whose events are read and dropped."""
    connections = []
    for _ in range(count):
        connection = socket.create_connection(('127.0.0.1', port))
        connection.sendall(b'GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
        connections.append(connection)
    stop = threading.Event()

    def drain() -> None:
        while not stop.wait(0.05):
            for connection in connections:
                try:
                    while connection.recv(65536, socket.MSG_DONTWAIT):
                        pass
                except BlockingIOError:
                    pass

    thread = threading.Thread(target=drain)
    thread.start()
    yield
    stop.set()
    thread.join()
    for connection in connections:
        connection.close()


def cpu_per_telegram(line: Line, pid: int, telegrams: int = 40) -> float:
    """CPU milliseconds per telegram."""
    time.sleep(1)
    sent, spent = line.sent, cpu(pid)
    while line.sent < sent + telegrams:
        time.sleep(0.05)
    return (cpu(pid) - spent) / (line.sent - sent) * 1000


def cpu_of_a_stream(arrival: int = 16) -> tuple[str, float]:
    runs = []
    for _ in range(RUNS):
        line, port = Line(0.15, arrival), free_port()
        with ExitStack() as stack:
            stack.callback(line.close)
            with our_server(line.device, port) as server, streams(port, 1):
                mine = cpu_per_telegram(line, server.pid)
            with process('-m', 'benchmarks.library_loop', line.device) as library:
                runs.append((mine, cpu_per_telegram(line, library.pid)))
    mine, other = (statistics.median(each) for each in zip(*runs, strict=True))
    return f'{mine:.2f} ms against {other:.2f} ms', statistics.median(a / b for a, b in runs)


def idle() -> tuple[str, float]:
    """How often any thread woke in ten seconds while nobody asked, and whether the port was closed."""
    line, port = Line(1), free_port()
    with ExitStack() as stack:
        stack.callback(line.close)
        server = stack.enter_context(our_server(line.device, port))
        get(port)
        time.sleep(1)
        before = switches(server.pid)
        time.sleep(10)
        woken = switches(server.pid) - before
        closed = Path(line.device) not in [each.readlink() for each in Path(f'/proc/{server.pid}/fd').iterdir()]
    return f'port {"closed" if closed else "OPEN"}', float(woken)


def switches(pid: int) -> int:
    return sum(
        int(text.split()[1])
        for task in Path(f'/proc/{pid}/task').iterdir()
        for text in Path(task, 'status').read_text().splitlines()
        if 'ctxt_switches' in text
    )


def memory_after_requests(requests: int = 10_000) -> tuple[str, float]:
    line = Line(0)
    ours, plain = free_port(), free_port()
    used = []
    with ExitStack() as stack:
        stack.callback(line.close)
        for start, port in ((our_server, ours), (plain_shape, plain)):
            with start(line.device, port) as server:
                for _ in range(requests):
                    get(port)
                used.append(memory(server.pid))
    return f'{used[0]:.1f} MB against {used[1]:.1f} MB', used[0] / used[1]


def start() -> tuple[str, float]:
    runs = []
    for _ in range(RUNS):
        line, port = Line(1), free_port()
        began = time.monotonic()
        with our_server(line.device, port):
            mine = time.monotonic() - began
        began = time.monotonic()
        subprocess.run([sys.executable, '-c', 'import dsmr_parser.clients, http.server'], check=True)
        runs.append((mine, time.monotonic() - began))
        line.close()
    mine, other = (statistics.median(each) * 1000 for each in zip(*runs, strict=True))
    return f'{mine:.0f} ms against {other:.0f} ms', statistics.median(a / b for a, b in runs)


def growth() -> tuple[str, float]:
    """How cost grows with clients, as a picture in docs/cost.png; the ratio is of 400 clients to one."""
    waiting: dict[int, float] = {}
    open_streams: dict[int, float] = {}
    line, port = Line(1), free_port()
    with ExitStack() as stack:
        stack.callback(line.close)
        server = stack.enter_context(our_server(line.device, port))
        for clients in (1, 10, 100, 400):
            runs = [statistics.median(delays(line, port, clients)) for _ in range(RUNS)]
            waiting[clients] = statistics.median(runs) * 1000
        for count in (1, 10, 60):
            with streams(port, count):
                open_streams[count] = cpu_per_telegram(line, server.pid, 10)
    draw(waiting, open_streams)
    shown = ', '.join(f'{clients}: {delay:.1f} ms' for clients, delay in waiting.items())
    return shown, waiting[400] / waiting[1]


def draw(waiting: dict[int, float], open_streams: dict[int, float]) -> None:
    figure = Figure(figsize=(8, 3), layout='constrained')
    panels = figure.subplots(1, 2)
    for panel, points, title, unit in (
        (panels[0], waiting, 'clients that wait together', 'ms from last byte in to last byte out'),
        (panels[1], open_streams, 'open streams', 'ms of CPU per telegram'),
    ):
        panel.plot(list(points), list(points.values()), marker='o')
        panel.set(xlabel=title, ylabel=unit, xlim=0, ylim=0)
        panel.grid(alpha=0.3)
    figure.savefig(ROOT / 'docs/cost.png', dpi=100)


ROWS: dict[str, tuple[str, str, Callable[[], tuple[str, float]]]] = {
    'memory-answers': ('answers from memory, 16 connections, x bare floor', 'at least 0.95', from_memory),
    'delay': (
        'last byte in to last byte out, 16-byte arrivals, x plain shape',
        'at most 1.0',
        lambda: delay_of_one(16),
    ),
    'delay-180': ('the same, 180-byte arrivals', 'at most 1.0', lambda: delay_of_one(180)),
    'delay-60': ('the same with 60 clients, p95, x one client', 'under 20', delay_of_many),
    'cpu': ('CPU per telegram, one stream, 16-byte arrivals, x SerialReader.read()', 'at most 0.5', cpu_of_a_stream),
    'idle': ('wake-ups in 10 s while nobody asks', '0', idle),
    'memory': ('memory after 10,000 requests, x plain shape', 'at most 1.10', memory_after_requests),
    'growth': ('400 waiting clients, median, x one client (docs/cost.png)', '', growth),
    'start': ('start to first connection, x importing its libraries', 'at most 1.15', start),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('rows', nargs='*', metavar='ROW', help=f'which rows (default: all): {", ".join(ROWS)}')
    chosen = parser.parse_args().rows or list(ROWS)
    if not shutil.which('wrk'):
        sys.exit('wrk is missing: apt-get install wrk')
    libraries = ', '.join(f'{name} {version(name)}' for name in ('dsmr_parser', 'pyserial'))
    where = f'{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}'
    print(f'{time.strftime("%Y-%m-%d")}, {where}\n')
    print('| what | ratio | target | measured |\n|---|---|---|---|')
    for name in chosen:
        what, target, measure = ROWS[name]
        shown, ratio = measure()
        print(f'| {what} | {ratio:.2f} | {target} | {shown} |', flush=True)


if __name__ == '__main__':
    main()
