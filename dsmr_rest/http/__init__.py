"""HTTP/1.1 over TCP and TLS: who is served, who is refused, and that every request gets an honest response in time.

Nothing here knows a meter, a reading or a path: the server is given something that responds to requests.
Start reading at `server.RequestHandler`.
"""
