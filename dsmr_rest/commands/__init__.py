"""What dsmr_rest_server.py and take_one_reading.py share, and what --check reports.

Nothing here knows what a command does with its settings. Start reading at `options.configuration`.
"""
