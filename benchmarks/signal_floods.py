"""Floods the server with signals while it starts, again and again: does it always end cleanly?

python -m benchmarks.signal_floods [--floods 300]

A flood is SIGTERM and SIGINT without a pause until the server ends. The floods begin at moments that are spread evenly
from the first line of the server's main() to some time after it serves. A flood is clean if the exit status is 0 and
stderr is empty. Exit status 1 when a flood was not clean.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import ROOT

AT_ONCE = 3
"""Servers that run at the same time."""
CONFIGURATION = """\
[meter]
port = /dev/serial/none
[server]
host = 127.0.0.1
port = 0
"""
SPREAD = 4.0
"""The last flood begins after so many times the time from the first line of main() to the line that says it serves."""
TIME_TO_END = 20.0
"""Seconds after which a flooded server that still runs is killed, and its flood is not clean."""

MAIN_WITH_REPORT = """
import sys

sys.path.insert(0, sys.argv.pop(1))
import dsmr_rest_server

end_at_once_on_signals = dsmr_rest_server.end_at_once_on_signals


def end_and_report():
    end_at_once_on_signals()
    print('signals end it', flush=True)


dsmr_rest_server.end_at_once_on_signals = end_and_report
sys.exit(dsmr_rest_server.main())
"""
"""Runs main(), and says on stdout when its first line, from which on signals end it, has been run."""


@dataclass(frozen=True)
class Flood:
    """How a server ended that was flooded `delay` seconds after the first line of its main()."""

    delay: float
    exit_status: int
    errors: str

    @property
    def is_clean(self) -> bool:
        return self.exit_status == 0 and not self.errors


@contextmanager
def server_in_main(config: Path) -> Iterator[subprocess.Popen[str]]:
    """A server that has run the first line of main(). It is killed if it outlives the block."""
    command = [sys.executable, '-c', MAIN_WITH_REPORT, str(ROOT), '--config', str(config)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            line = process.stdout.readline()
            assert line, 'the server ended before the first line of main()'
            yield process
        finally:
            process.kill()


def time_to_serve(config: Path) -> float:
    """Seconds from the first line of main() to the line that says it serves, without signals."""
    with server_in_main(config) as process:
        assert process.stdout
        began = time.monotonic()
        line = process.stdout.readline()
        assert line.startswith('serving'), line
        return time.monotonic() - began


def flood(config: Path, delay: float) -> Flood:
    """Start a server, and flood it until it ends."""
    with server_in_main(config) as process:
        time.sleep(delay)
        deadline = time.monotonic() + TIME_TO_END
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        process.kill()  # has no effect if it has ended
        _, errors = process.communicate()
    return Flood(delay, process.returncode, errors)


def flood_all(config: Path, count: int) -> list[Flood]:
    """Flood so many servers, at delays that are spread evenly."""
    # Measured with as many servers at once as there will be: their starts delay each other.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        longest = SPREAD * max(pool.map(time_to_serve, [config] * AT_ONCE))
        print(
            f'{count} floods, from 0 to {longest * 1000:.0f} ms after the first line of main()',
            flush=True,
        )
        delays = [longest * number / count for number in range(count)]
        return list(pool.map(flood, [config] * count, delays))


def main() -> int:
    description = 'Floods the server with signals while it starts, and checks that it ends cleanly.'
    parser = argparse.ArgumentParser('python -m benchmarks.signal_floods', description=description)
    parser.add_argument(
        '--floods', type=int, default=300, help='how many servers are flooded (default: 300)'
    )
    options = parser.parse_args()
    if options.floods < 1:
        parser.error('argument --floods: must be at least 1')
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, 'config.ini')
        config.write_text(CONFIGURATION)
        floods = flood_all(config, options.floods)
    unclean = [result for result in floods if not result.is_clean]
    for result in unclean:
        print(f'after {result.delay * 1000:.1f} ms: exit status {result.exit_status}')
        print(result.errors)
    print(f'{len(unclean)} of {len(floods)} floods were not clean')
    if unclean:
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
