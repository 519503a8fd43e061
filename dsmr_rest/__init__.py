"""One smart meter, served honestly over HTTP.

From `GET /` to the serial port and back:

1. `http_server.HttpServer`, a ThreadingHTTPServer, accepts the connection and starts a thread for it.
2. `http_server.RequestHandler` reads the request in that thread and passes it to `api.Api`, which checks who may ask
   and calls `routes.whole_reading`.
3. The route calls `meter.Meter.read()`, where the request waits until its deadline. The first to wait starts the
   meter's thread.
4. In that thread `p1_reader.P1Reader`, a subclass of dsmr_parser's SerialReader, opens the serial port with pyserial
   and reads telegrams, which `telegram.Framer` finds among the bytes.
5. `reading.make_reading` turns a telegram into a Reading, with dsmr_parser's tables of the telegram specification.
6. The meter hands the Reading to all who wait. The route returns its JSON, and the handler sends that in one write.

When nobody waits any more, the port is closed and the meter's thread ends: nothing runs while nobody asks. The main
thread only waits for a signal.

Imports run one way, from the commands down:

    dsmr_rest_server -> discovery, telegram_server, http_server, api -> routes, listener
    -> metrics, homewizard, dashboard, meter -> p1_reader -> reading, baud_rate_search
    -> specification, mbus -> line_parser, telegram, quantities

config, serial_line and faults may be imported from anywhere above them, http_message only by the HTTP modules, and
connection only by the two servers. summary, which --check prints, knows only config; command_line, which both commands
share, knows config and simulated_meter. take_one_reading begins at p1_reader.
"""

__version__ = '1.0.0'
