"""What the server needs of its own process and machine: ages, threads, troubles, the log, addresses, and its end.

Each module keeps one promise that holds when memory, threads, descriptors or whoever reads the log run out. Nothing
here knows a meter, HTTP, or what the server consists of. Start reading at `ending` and `log_output`.
"""
