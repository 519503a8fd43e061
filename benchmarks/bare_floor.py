"""The bare floor: the fastest server that the standard library gives, which sends the bytes of a file from memory.

It buffers a response, so that the header section and the body are sent in one write, and logs nothing. A request for
/next waits until a line comes on stdin, which all that wait are told at once.

python -m benchmarks.bare_floor PORT FILE
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    wbufsize = -1  # BaseHTTPRequestHandler flushes after each request
    body = b''
    released = threading.Condition()

    def do_GET(self) -> None:
        if self.path == '/next':
            with self.released:
                self.released.wait()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # by default connections are lost, and connecting takes a second more


def main() -> None:
    Handler.body = Path(sys.argv[2]).read_bytes()
    server = Server(('127.0.0.1', int(sys.argv[1])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for _ in sys.stdin:
        with Handler.released:
            Handler.released.notify_all()


if __name__ == '__main__':
    main()
