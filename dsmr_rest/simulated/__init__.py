"""The meter of --demo, of the tests, and to try things by hand (`python -m dsmr_rest.simulated`).

A house whose power and counters depend on the moment alone, the telegrams that a meter makes of it, and a
pseudo-terminal on which they are sent. Nothing here may repeat a mistake of the server that reads it: of that server it
knows the checksum and the facts of the line. Start reading at `meter.SimulatedMeter`.
"""
