"""The wire: the serial port as a series of readings.

Bytes come in at the port, framing finds telegrams among them, encrypted frames are decrypted, and P1Reader yields a
Reading for each telegram that is proved intact; when there is none, it says why. Nothing here knows who waits for a
reading, and nothing here knows HTTP. Start reading at `reader.P1Reader`.
"""
