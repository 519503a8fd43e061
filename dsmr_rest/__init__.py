"""One smart meter, served honestly over HTTP.

The accepting thread (ThreadingHTTPServer) starts a thread per connection, up to a limit. A connection's thread parses
the request and, when its route needs a reading, waits in Meter.read() until its own deadline. The first to wait starts
the meter's thread, the only one that touches the port: it opens it, hands every telegram to all who wait at that
moment, and when nobody waits any more closes it and ends. So nothing runs while nobody asks.

Imports run one way: dsmr_rest_server, take_one_reading -> http_server -> meter -> p1_reader -> telegram,
specification, reading. Only meter has threads and locks of its own, only p1_reader touches pyserial, only http_server
knows HTTP; telegram, specification and reading do no I/O and have no clock.
"""

__version__ = '1.0.0'
