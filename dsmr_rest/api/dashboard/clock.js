/** How old the last reading is, although the server's clock and the reader's may differ. Pure. */

/** Seconds. A longer delay means that a clock was set: a stream skips the readings that a slow client missed. */
const LONGEST_DELAY = 35;

export class ServerClock {
  /** When the last reading arrived at the server, in seconds since 1970 on its clock; null before the first one. */
  received = null;
  /** Seconds that the reader's clock is ahead of the server's. The shortest delay seen on a connection is none. */
  offset = 0;
  #isNewConnection = true;

  /** From now on delays are those of a new connection. */
  connected() {
    this.#isNewConnection = true;
  }

  /** Notes when a reading was sent, on the server's clock, and when it arrived, on the reader's. */
  note(sent, arrived) {
    const delay = arrived - sent;
    const clockWasSet = delay - this.offset > LONGEST_DELAY;
    this.offset = Math.min(this.offset, delay);
    if (this.#isNewConnection || clockWasSet) this.offset = delay;
    this.#isNewConnection = false;
    this.received = sent;
  }

  /** The time on the server's clock when it is `now` on the reader's. */
  at(now) {
    return now - this.offset;
  }

  /** The age of the last reading in seconds when it is `now` on the reader's clock. */
  ageAt(now) {
    return this.at(now) - this.received;
  }
}
