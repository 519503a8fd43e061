/**
 * What the page remembers of the readings it has seen, as far as later ones may lack it or do not state it: which keys
 * the meter sends, the present year, and what has been counted since the page was opened. Pure: it knows no page.
 */

import { devicesOf, kilowattHours, netPower, registersOf } from './reading.js';
import { meterTime, numberOf } from './formats.js';

/** A register that counts up. One that falls below its first value is another meter's, and starts anew. */
class Counter {
  constructor(value) {
    this.first = value;
    this.last = value;
  }

  note(value) {
    this.last = value;
    if (value < this.first) this.first = value;
  }

  get amount() {
    return this.last - this.first;
  }
}

export class Memory {
  /** The year on the meter's clock. */
  year = new Date().getFullYear();
  #everSent = new Set(); // keys that the meter has ever sent a value for
  #counters = new Map();
  #facts;

  /** `facts` are those of facts.json. */
  constructor(facts) {
    this.#facts = facts;
  }

  /** Notes what a reading says. */
  note(reading) {
    for (const key in reading) if (reading[key]) this.#everSent.add(key);
    const time = meterTime(reading.p1MessageTimestamp?.value);
    if (time !== null) this.year = time.getUTCFullYear();
    for (const key of registersOf(reading)) this.#count(key, kilowattHours(reading[key]));
    for (const device of devicesOf(reading, this.#facts)) this.#count(device.key, device.item);
  }

  #count(key, item) {
    const value = numberOf(item);
    if (value === null) return;
    const counter = this.#counters.get(key);
    if (counter) counter.note(value);
    else this.#counters.set(key, new Counter(value));
  }

  /** Positive minus negative, in watts; null when that is not known. */
  net(reading, positive, negative) {
    return netPower(reading, positive, negative, this.#everSent.has(negative));
  }

  /**
   * The country of the meter, where its tariffs have names. Every Belgian meter sends the version of e-MUCS P1, and no
   * other meter does. Dutch meters send the version of DSMR, or before DSMR 4 a code with their text message. Others
   * send the version of DSMR too, but with it a total of all tariffs, which Dutch meters do not send.
   */
  get country() {
    if (this.#everSent.has('belgiumVersionInformation')) return 'BE';
    const isDsmr = this.#everSent.has('p1MessageHeader') || this.#everSent.has('textMessageCode');
    if (isDsmr && !this.#everSent.has('electricityImportedTotal')) return 'NL';
    return '';
  }

  /** What a counter has counted; null when there is none. Its key is that of registersOf() or of a device. */
  counted(key) {
    return this.#counters.get(key)?.amount ?? null;
  }

  /**
   * What the registers of USED or DELIVERED have counted in kilowatt-hours; null without any. A total of all tariffs
   * makes the register of each superfluous.
   */
  countedEnergy({ total, tariff }) {
    const ofAll = this.counted(total);
    if (ofAll !== null) return ofAll;
    const keys = [...this.#counters.keys()].filter((key) => key.startsWith(tariff));
    if (!keys.length) return null;
    return keys.map((key) => this.counted(key)).reduce((sum, amount) => sum + amount);
  }
}
