"""One meter shared by all who wait: a serial port has one reader, and any number of clients ask.

It decides when the port is open, who gets which reading, and what the log says about it. It knows neither HTTP nor how
a telegram is read. Start reading at `meter.Meter.read`.
"""
