/** How old a reading is, although two clocks differ. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { ServerClock } from '../../../dsmr_rest/api/dashboard/clock.js';

test('the first reading of a connection is new, whatever the clocks say', () => {
  for (const ahead of [-3600, 0, 86400]) {
    const clock = new ServerClock();
    clock.note(1000 + ahead, 1000);
    assert.equal(clock.ageAt(1000), 0);
    assert.equal(clock.ageAt(1003), 3);
  }
});

test("a connection's delay counts", () => {
  const clock = new ServerClock();
  clock.note(1000, 1000);
  clock.note(1001, 1011);
  assert.equal(clock.ageAt(1011), 10);
});

test('the shortest delay counts as none', () => {
  const clock = new ServerClock();
  clock.note(1000, 1005);
  clock.note(1010, 1012);
  clock.note(1020, 1025);
  assert.equal(clock.ageAt(1025), 3);
});

test('a longer delay than any connection has means that a clock was set', () => {
  const clock = new ServerClock();
  clock.note(1000, 1000);
  clock.note(1001, 1101);
  assert.equal(clock.ageAt(1101), 0);
});

test('a new connection is measured anew', () => {
  const clock = new ServerClock();
  clock.note(1000, 1000);
  clock.connected();
  clock.note(1020, 1050);
  assert.equal(clock.ageAt(1050), 0);
});
