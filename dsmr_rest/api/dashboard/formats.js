/** How numbers, quantities, dates and ages are written for a reader. Pure: it knows neither the page nor a telegram. */

const MINUS = '\u2212';
const NO_BREAK_SPACE = '\u00a0';
const NO_VALUE = '\u2014';

/** Seconds. A younger reading is from just now: whoever counts "1 second, 0 seconds, 1 second" says nothing. */
const JUST_NOW = 2;

/** Units of an age: seconds in the unit, and the age in seconds from which a larger unit is used. */
const AGES = [
  { unit: 'second', size: 1, end: 120 },
  { unit: 'minute', size: 60, end: 120 * 60 },
  { unit: 'hour', size: 3600, end: 48 * 3600 },
  { unit: 'day', size: 86400, end: Infinity },
];

/** The digits of a meter's time as a Date in UTC, whatever its offset; null for a clock that was never set. */
export function meterTime(text) {
  if (typeof text !== 'string' || text < '1971') return null;
  const time = new Date(text.slice(0, 19) + 'Z');
  if (Number.isNaN(time.getTime())) return null;
  return time;
}

/** The number of an item of a reading; null when it has none. */
export function numberOf(item) {
  if (item && Number.isFinite(item.value)) return item.value;
  return null;
}

const MULTIPLES = { m: 0.001, '': 1, k: 1000, M: 1e6, G: 1e9 };

/** The number of an item in a unit without prefix, such as V, of which meters send multiples; null when it is in another. */
export function amountIn(item, unit) {
  const value = numberOf(item);
  if (value === null || !item.unit?.endsWith(unit)) return null;
  const prefix = item.unit.slice(0, -unit.length);
  if (!Object.hasOwn(MULTIPLES, prefix)) return null;
  return value * MULTIPLES[prefix];
}

/** An item with its value in a unit without prefix; as it is when it is in another. */
export function itemIn(item, unit) {
  const value = amountIn(item, unit);
  if (value === null) return item;
  return { ...item, value, unit };
}

/** The power of an item in watts; null when its unit is not one of power. */
export function wattsOf(item) {
  return amountIn(item, 'W');
}

/** The formats for one reader; `choice` is that of chooseLanguage(). */
export class Formats {
  #choice;
  #numbers = []; // by the number of decimals
  #ages;
  #day;
  #dayOfYear;
  #month;
  #timeOfDay;
  #minute;
  #second;

  constructor(choice) {
    this.#choice = choice;
    this.#ages = new Intl.RelativeTimeFormat(choice.textTag);
    const numericDate = { dateStyle: 'short' };
    const named = { day: 'numeric', month: 'short' };
    this.#day = this.#meterFormat(named, numericDate);
    this.#dayOfYear = this.#meterFormat({ ...named, year: 'numeric' }, numericDate);
    this.#month = this.#meterFormat(
      { month: 'short', year: 'numeric' },
      { month: '2-digit', year: 'numeric' },
    );
    this.#timeOfDay = this.#meterFormat({ timeStyle: 'short' }, { timeStyle: 'short' });
    this.#minute = new Intl.DateTimeFormat(choice.locale, { timeStyle: 'short' });
    this.#second = new Intl.DateTimeFormat(choice.locale, { timeStyle: 'medium' });
  }

  /**
   * A format of the meter's own dates. It names the month only where the texts around it are in the same language:
   * there "2 nov 12:10" is easiest to read, but in an English text it would be neither English nor quite Swedish.
   */
  #meterFormat(named, numeric) {
    let style = numeric;
    if (this.#choice.speaksLocale) style = named;
    return new Intl.DateTimeFormat(this.#choice.locale, { timeZone: 'UTC', ...style });
  }

  /** A number with these decimals and a true minus sign; never "−0". */
  decimal(value, digits) {
    const style = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    this.#numbers[digits] ??= new Intl.NumberFormat(this.#choice.locale, style);
    const size = Math.abs(value);
    const text = this.#numbers[digits].format(size);
    const isZero = Number(size.toFixed(digits)) === 0;
    if (value < 0 && !isZero) return MINUS + text;
    return text;
  }

  /** Watts as the text of kilowatts, such as "1.234". */
  kilo(watts) {
    return this.decimal(watts / 1000, 3);
  }

  kilowatts(watts) {
    if (watts === null) return NO_VALUE;
    return this.kilo(watts) + NO_BREAK_SPACE + 'kW';
  }

  /** An item of a reading, in its own unit. */
  quantity(item, digits = 3) {
    const value = numberOf(item);
    if (value === null) return NO_VALUE;
    const text = this.decimal(value, digits);
    if (!item.unit) return text;
    return text + NO_BREAK_SPACE + item.unit.replace(/^m3$/, 'm³');
  }

  /** An item of a reading, in kilowatts where it is a power. */
  power(item) {
    const watts = wattsOf(item);
    if (watts === null) return this.quantity(item);
    return this.kilowatts(watts);
  }

  /** The meter's own date and time, without seconds, and without the year when that is `presentYear`. */
  moment(text, presentYear) {
    const time = meterTime(text);
    if (time === null) return '';
    let day = this.#dayOfYear;
    if (time.getUTCFullYear() === presentYear) day = this.#day;
    return day.format(time) + ' ' + this.#timeOfDay.format(time);
  }

  monthOf(text) {
    const time = meterTime(text);
    if (time === null) return NO_VALUE;
    return this.#month.format(time);
  }

  /** A Unix time in seconds on the reader's clock, to the minute. */
  minute(time) {
    return this.#minute.format(time * 1000);
  }

  /** The same, to the second. */
  second(time) {
    return this.#second.format(time * 1000);
  }

  /** How long ago something of this age in seconds was; null when that was just now. */
  ago(age) {
    if (age < JUST_NOW) return null;
    const seconds = Math.floor(age);
    const { unit, size } = AGES.find(({ end }) => seconds < end);
    return this.#ages.format(-Math.floor(seconds / size), unit);
  }
}
