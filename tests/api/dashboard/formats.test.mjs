/** How numbers, quantities, dates and ages are written, for readers of different languages. */

import assert from 'node:assert/strict';
import test from 'node:test';

import {
  Formats,
  amountIn,
  itemIn,
  meterTime,
  numberOf,
  wattsOf,
} from '../../../dsmr_rest/api/dashboard/formats.js';

const BRITISH = new Formats({ locale: 'en-GB', textTag: 'en-GB', speaksLocale: true });
const DUTCH = new Formats({ locale: 'nl-NL', textTag: 'nl-NL', speaksLocale: true });
const SWEDISH = new Formats({ locale: 'sv-SE', textTag: 'en', speaksLocale: false });

/** With ordinary spaces, as a person reads it. */
function spaced(text) {
  return text.replace(/[\u00a0\u202f]/g, ' ');
}

test('a number has the decimals that are asked for and a true minus sign', () => {
  assert.equal(BRITISH.decimal(1234.5678, 3), '1,234.568');
  assert.equal(DUTCH.decimal(1234.5678, 3), '1.234,568');
  assert.equal(DUTCH.decimal(-0.5, 1), '\u22120,5');
});

test('a number that is rounded to zero has no sign', () => {
  assert.equal(BRITISH.decimal(-0.0004, 3), '0.000');
  assert.equal(BRITISH.decimal(-0.0006, 3), '\u22120.001');
});

test('power is in kilowatts, whatever unit the meter has', () => {
  assert.equal(spaced(BRITISH.power({ value: 230, unit: 'W' })), '0.230 kW');
  assert.equal(spaced(BRITISH.power({ value: 1.5, unit: 'kW' })), '1.500 kW');
  assert.equal(wattsOf({ value: 2, unit: 'MW' }), 2e6);
});

test('what is no power keeps its unit', () => {
  assert.equal(wattsOf({ value: 2, unit: 'kWh' }), null);
  assert.equal(spaced(BRITISH.power({ value: 2, unit: 'kVA' })), '2.000 kVA');
});

test('cubic metres are written as such', () => {
  assert.equal(spaced(DUTCH.quantity({ value: 5161.435, unit: 'm3' })), '5.161,435 m³');
});

test('a value that is missing or no number is a dash, never NaN', () => {
  for (const item of [undefined, null, {}, { value: null }, { value: '1' }, { value: NaN }]) {
    assert.equal(numberOf(item), null);
    assert.equal(BRITISH.quantity(item), '—');
  }
  assert.equal(BRITISH.kilowatts(null), '—');
});

test("a moment is on the meter's own clock, whatever its offset, and without the present year", () => {
  assert.equal(BRITISH.moment('2026-11-02T12:10:34+01:00', 2026), '2 Nov 12:10');
  assert.equal(BRITISH.moment('2026-07-02T12:10:34+02:00', 2026), '2 Jul 12:10');
  assert.equal(BRITISH.moment('2025-11-02T12:10:34+01:00', 2026), '2 Nov 2025 12:10');
});

test('months are named only where the texts are in the language of the dates', () => {
  assert.equal(DUTCH.moment('2026-11-02T12:10:34+01:00', 2026), '2 nov 12:10');
  assert.equal(SWEDISH.moment('2026-11-02T12:10:34+01:00', 2026), '2026-11-02 12:10');
  assert.equal(DUTCH.monthOf('2026-05-02T12:10:34+02:00'), 'mei 2026');
  assert.equal(SWEDISH.monthOf('2026-05-02T12:10:34+02:00'), '2026-05');
});

test('a clock that was never set has no time', () => {
  for (const text of [undefined, null, '', 5, '1970-01-01T00:00:00+01:00', '2026-99-99T00:00:00']) {
    assert.equal(meterTime(text), null);
    assert.equal(BRITISH.moment(text, 2026), '');
    assert.equal(BRITISH.monthOf(text), '—');
  }
});

test('an age is in the largest unit of which there are at least two', () => {
  const ages = [2, 119.9, 120, 7199, 7200, 48 * 3600 - 1, 48 * 3600];
  const texts = ages.map((age) => BRITISH.ago(age));
  assert.deepEqual(texts, [
    '2 seconds ago',
    '119 seconds ago',
    '2 minutes ago',
    '119 minutes ago',
    '2 hours ago',
    '47 hours ago',
    '2 days ago',
  ]);
  assert.equal(DUTCH.ago(3), '3 seconden geleden');
});

test('what is younger than two seconds, or from the future, is from just now', () => {
  for (const age of [-5, 0, 1, 1.99]) assert.equal(BRITISH.ago(age), null);
});

test('every multiple of a unit is converted, and no other unit', () => {
  assert.equal(amountIn({ value: 0.25, unit: 'kV' }, 'V'), 250);
  assert.equal(amountIn({ value: 250, unit: 'mA' }, 'A'), 0.25);
  assert.equal(amountIn({ value: 2, unit: 'A' }, 'A'), 2);
  assert.equal(wattsOf({ value: 2, unit: 'GW' }), 2e9);
  for (const unit of ['V', 'kWA', 'toStringA', null, undefined]) {
    assert.equal(amountIn({ value: 2, unit }, 'A'), null);
  }
  assert.equal(amountIn({ value: 'two', unit: 'A' }, 'A'), null);
  assert.equal(amountIn(undefined, 'A'), null);
});

test('an item is shown in a unit without prefix, or as it is', () => {
  assert.deepEqual(itemIn({ value: 0.25, unit: 'kV' }, 'V'), { value: 250, unit: 'V' });
  assert.deepEqual(itemIn({ value: 3, unit: 'hp' }, 'V'), { value: 3, unit: 'hp' });
});
