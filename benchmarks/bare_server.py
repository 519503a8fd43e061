"""The bare server: the standard library's threaded server, which sends the bytes of a file from memory.

python -m benchmarks.bare_server PORT FILE
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
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
