/** What a reading says, as the page needs it. Pure: it knows the keys of a reading, but neither texts nor the page. */

import { amountIn, numberOf, wattsOf } from './formats.js';

export const PHASES = ['L1', 'L2', 'L3'];

/** Stands for all tariffs together, beside the numbers of tariffs. */
export const TOTAL = 'Total';

/** The keys of registers: of all tariffs together, and of each, less its number. */
export const USED = { total: 'electricityImportedTotal', tariff: 'electricityUsedTariff' };
export const DELIVERED = {
  total: 'electricityExportedTotal',
  tariff: 'electricityDeliveredTariff',
};

const REGISTER = /^electricity((Used|Delivered)Tariff\d+|(Imported|Exported)Total)$/;
const TARIFF = /^electricity(?:Used|Delivered)Tariff(\d+)$/;
const IDENTIFIER = /equipmentidentifier(gas)?$/i;

export function has(reading, key) {
  return reading[key] !== undefined && reading[key] !== null;
}

/**
 * Positive minus negative, in watts; null when that is not known. A missing negative counts as zero, unless the meter
 * sends it at other times and there is nothing positive to tell.
 */
export function netPower(reading, positive, negative, sendsNegative) {
  const plus = wattsOf(reading[positive]);
  const minus = wattsOf(reading[negative]);
  if (plus !== null && minus !== null) return plus - minus;
  if (plus !== null && (plus || !sendsNegative)) return plus;
  if (minus) return -minus;
  return null;
}

/** An energy in kilowatt-hours, whatever multiple of watt-hours the meter sends. */
export function kilowattHours(item) {
  const wattHours = amountIn(item, 'Wh');
  if (wattHours === null || item.unit === 'kWh') return item;
  return { value: wattHours / 1000, unit: 'kWh' };
}

/** The keys of the registers of energy. */
export function registersOf(reading) {
  return Object.keys(reading).filter((key) => REGISTER.test(key));
}

/** The key of the register of a tariff, or of TOTAL; `keys` is USED or DELIVERED. */
export function registerKey(keys, name) {
  if (name === TOTAL) return keys.total;
  return keys.tariff + name;
}

/** The numbers of the tariffs, in order. */
export function tariffsOf(reading) {
  const found = new Set();
  for (const key in reading) {
    const match = TARIFF.exec(key);
    if (match) found.add(Number(match[1]));
  }
  return [...found].sort((a, b) => a - b);
}

/** The number of the tariff that counts now; NaN when the meter does not say. */
export function activeTariff(reading) {
  return Number.parseInt(reading.electricityActiveTariff?.value, 10);
}

/** The peaks of past months, the latest first. A meter with a single one sends no list. */
export function pastPeaks(reading) {
  return [reading.belgiumMaximumDemand13Months].flat().filter(Boolean).reverse();
}

/**
 * The M-Bus devices that have something to show: their channel, type (EN 13757-3; 0 or NaN when it is not stated), the
 * item of their reading, and a key that is another one for another meter. `facts` are those of facts.json.
 */
export function devicesOf(reading, facts) {
  const devices = (reading.mbusDevices ?? []).map((device) => deviceOf(device, facts));
  return devices.filter(({ item }) => item && (item.unit || numberOf(item))); // an empty channel has neither
}

/** An item of mbusDevices, whatever names its telegram specification has for the objects. */
function deviceOf(device, facts) {
  const gas = device.hourlyGasMeterReading ?? device.gasMeterReading;
  const stated = device.mbusDeviceType ?? device.deviceType;
  const item = device.mbusMeterReading ?? gas;
  let type = Number.parseInt(stated?.value, 10);
  if (!type && gas) type = facts.gasMeter;
  const identifierKey = Object.keys(device).find((key) => IDENTIFIER.test(key));
  const identifier = device[identifierKey]?.value;
  const key = ['device', device.channelId, type, identifier, item?.unit].join(' ');
  return { channel: device.channelId, type, item, key };
}
