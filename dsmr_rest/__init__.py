"""One smart meter, served honestly over HTTP.

The accepting thread (ThreadingHTTPServer) starts a thread per connection, up to a limit. A connection's thread parses
the request and, when its route needs a reading, waits in Meter.read() until its own deadline. The first to wait starts
the meter's thread, the only one that touches the port: it opens it, hands every telegram to all who wait at that
moment, and when nobody waits any more closes it and ends. So nothing runs while nobody asks.

Imports run one way: dsmr_rest_server -> discovery, http_server -> routes -> homewizard, metrics, http_message, meter
-> p1_reader -> config, reading -> specification, telegram; take_one_reading begins at p1_reader. Only meter has threads
and locks of its own (zeroconf brings one when the server is announced), only p1_reader touches pyserial, only the http
modules and routes know HTTP; http_message, homewizard, metrics, reading, specification and telegram do no I/O.
"""

__version__ = '1.0.0'
