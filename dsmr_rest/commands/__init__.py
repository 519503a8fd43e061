"""What the two commands at the top of the project consist of, and what they share.

The daemon puts all other parts together; the options and the report of --check know the settings, and not what is done
with them. No other package knows a command. Start reading at `daemon.serve`.
"""
