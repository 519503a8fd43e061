"""One smart meter, served honestly over HTTP.

From `GET /` to the serial port and back:

1. `http.server.HttpServer`, a ThreadingHTTPServer, accepts the connection and starts a thread for it.
2. `http.server.RequestHandler` reads the request in that thread and passes it to `api.dispatch.Api`, which checks who
   may ask and calls `api.routes.whole_reading`.
3. The route calls `meter.meter.Meter.read()`, where the request waits until its deadline. The first to wait starts the
   meter's thread.
4. In that thread `p1.reader.P1Reader`, a subclass of dsmr_parser's SerialReader, opens the serial port with pyserial
   and reads telegrams, which `p1.framing.Framer` finds among the bytes.
5. `reading.document.make_reading` turns a telegram into a Reading, with dsmr_parser's tables of the telegram
   specification.
6. The meter hands the Reading to all who wait. The route returns its JSON, and the handler sends that in one write.

When nobody waits any more, the port is closed and the meter's thread ends: nothing runs while nobody asks. The main
thread only waits for a signal.

Imports run one way, from the commands down to values. The layers, and what each package must not know, are contracts
in pyproject.toml ([tool.importlinter]), which `lint-imports` checks.
"""

__version__ = '2.0.0'
