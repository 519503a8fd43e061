"""Clients that ask a silent meter and vanish, as many as may be connected, again and again.

python -m benchmarks.vanishing_clients [--seconds 90] [--period 30] [--leave reset|close]

Meanwhile a polite client asks for readings. Each of its responses should be 504, because the meter is silent; 503 means
that the vanished clients still held their places. Exit status 1 when 5 % or more of its requests were refused so.
"""

import argparse
import http.client
import socket
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from http import HTTPStatus

from benchmarks.servers import free_port, our_server
from dsmr_rest.simulated.meter import PseudoTerminal

CLIENTS = 64
"""As many as max_connections allows by default."""
PAUSE = 0.1
"""Seconds between two polite requests."""
MOST_REFUSED = 0.05
PATIENCE = 'wait=1'
RESET = struct.pack('ii', 1, 0)
"""SO_LINGER without time: close() then resets the connection."""


def vanish(port: int, leave: str) -> None:
    """Connects all clients, lets each send its request, and disconnects them a moment later."""
    clients = [socket.create_connection(('127.0.0.1', port)) for _ in range(CLIENTS)]
    for client in clients:
        client.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    time.sleep(PAUSE)
    for client in clients:
        if leave == 'reset':
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()


def ask_politely(port: int, over: threading.Event, statuses: Counter[int]) -> None:
    """Sends one request after the other until it is over, and counts the statuses."""
    while not over.wait(PAUSE):
        with closing(http.client.HTTPConnection('127.0.0.1', port, timeout=10)) as connection:
            connection.request('GET', '/', headers={'Prefer': PATIENCE})
            statuses[connection.getresponse().status] += 1


def main() -> int:
    parser = argparse.ArgumentParser(
        'python -m benchmarks.vanishing_clients', description='Clients that ask and vanish.'
    )
    parser.add_argument('--seconds', type=float, default=90, help='in all (default: 90)')
    parser.add_argument('--period', type=float, default=30, help='seconds from attack to attack')
    parser.add_argument('--leave', choices=('reset', 'close'), default='reset')
    options = parser.parse_args()
    port = free_port()
    over = threading.Event()
    statuses: Counter[int] = Counter()
    with closing(PseudoTerminal()) as line, our_server(f'port = {line.name}', '', port):
        polite = threading.Thread(target=ask_politely, args=(port, over, statuses))
        polite.start()
        deadline = time.monotonic() + options.seconds
        while time.monotonic() < deadline:
            vanish(port, options.leave)
            time.sleep(options.period)
        over.set()
        polite.join()
    refused = statuses[HTTPStatus.SERVICE_UNAVAILABLE]
    share = refused / statuses.total()
    print(
        f'{refused} of {statuses.total()} polite requests refused ({share:.1%}): {dict(statuses)}'
    )
    return int(share >= MOST_REFUSED)


if __name__ == '__main__':
    sys.exit(main())
