"""A telegram becomes a reading: the immutable document that is served.

Pure: no I/O, no clock, no threads. Nothing here knows where a telegram comes from, nor who is given the reading.
Start reading at `document.make_reading`.
"""
