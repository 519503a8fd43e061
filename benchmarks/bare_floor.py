"""The bare floor: the fastest server that the standard library gives, which sends the bytes of a file from memory.

It buffers a response, so that the header section and the body are sent in one write, and logs nothing.

python -m benchmarks.bare_floor PORT FILE
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    wbufsize = -1  # BaseHTTPRequestHandler flushes after each request
    body = b''

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == '__main__':
    Handler.body = Path(sys.argv[2]).read_bytes()
    ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
