"""The plain handler: it opens the port for each request and uses dsmr_parser unmodified.

python -m benchmarks.plain_handler PORT DEVICE
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dsmr_parser import telegram_specifications
from dsmr_parser.clients import SERIAL_SETTINGS_V5, SerialReader


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    device = ''

    def do_GET(self) -> None:
        reader = SerialReader(self.device, dict(SERIAL_SETTINGS_V5), telegram_specifications.V5)
        telegram = next(reader.read_as_object())
        body = telegram.to_json().encode()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == '__main__':
    Handler.device = sys.argv[2]
    ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
