/** Where the plot's axes, labels and curve lie. */

import assert from 'node:assert/strict';
import test from 'node:test';

import {
  Points,
  WINDOW,
  niceStep,
  paths,
  period,
  powerTicks,
  range,
  scales,
  timeTicks,
} from '../../../dsmr_rest/api/dashboard/plot.js';

const BOX = { width: 600, height: 208, fontSize: 12 };

function clock(time, step) {
  const minutes = `${Math.floor(time / 3600)}:${Math.floor(time / 60) % 60}`;
  if (step < 60) return `${minutes}:${time % 60}`;
  return minutes;
}

test('steps are 1, 2 or 5 times a power of ten', () => {
  const steps = [1, 1.5, 3, 7, 50, 51, 900, 1100].map(niceStep);
  assert.deepEqual(steps, [1, 2, 5, 10, 50, 100, 1000, 2000]);
});

test('zero is in the range, which is never narrower than noise', () => {
  assert.deepEqual(range(230, 240), { step: 100, bottom: 0, top: 300 });
  assert.deepEqual(range(-5, -3), { step: 50, bottom: -50, top: 0 });
  assert.deepEqual(range(0, 0), { step: 50, bottom: 0, top: 50 });
  const { bottom, top } = range(-1500, 3200);
  assert.ok(bottom <= -1500 && top >= 3200);
});

test('the period begins with the first point, and covers a minute at least', () => {
  assert.deepEqual(period([[100, 1]], 110), { begin: 100, end: 160 });
  assert.deepEqual(period([[100, 1]], 400), { begin: 100, end: 400 });
});

test('the period covers its window at most', () => {
  assert.deepEqual(period([[100, 1]], 5000), { begin: 5000 - WINDOW, end: 5000 });
});

test('each step of power has a label, and zero is marked', () => {
  const scale = scales(BOX, { begin: 0, end: 60 }, { step: 100, bottom: -100, top: 200 });
  const ticks = powerTicks(scale);
  assert.deepEqual(
    ticks.map(({ watts, isZero }) => [watts, isZero]),
    [
      [-100, false],
      [0, true],
      [100, false],
      [200, false],
    ],
  );
  assert.ok(ticks[0].at > ticks[1].at, 'upwards is more');
  assert.ok(ticks.every(({ digits }) => digits === 1));
});

test('labels of small steps have two decimals of a kilowatt, those of large ones none', () => {
  const digitsOf = (step) => {
    const ranges = { step, bottom: 0, top: step };
    return powerTicks(scales(BOX, { begin: 0, end: 60 }, ranges))[0].digits;
  };
  assert.deepEqual([50, 100, 1000, 20000].map(digitsOf), [2, 1, 0, 0]);
});

test('times are round on the clock of the reader, and their labels do not touch', () => {
  const offset = 7.5;
  const label = (time) => `${time + offset}`;
  for (const width of [280, 600, 1200]) {
    for (const seconds of [60, 300, 900]) {
      const shown = { begin: 1003, end: 1003 + seconds };
      const ticks = timeTicks(scales({ ...BOX, width }, shown, range(0, 100)), offset, label);
      const times = ticks.map(({ text }) => text).filter(Boolean);
      assert.ok(times.length >= 1, `${width} ${seconds}`);
      assert.ok(times.every((time) => Number(time) % 5 === 0));
      const distance = ticks[1].at - ticks[0].at;
      assert.ok(distance > times[0].length * BOX.fontSize * 0.6);
    }
  }
});

test('a label that would stick out at the right is left out, its mark is not', () => {
  const scale = scales({ ...BOX, width: 400 }, { begin: 0, end: 60 }, range(0, 100));
  const ticks = timeTicks(scale, 0, (time) => `the time ${time}`);
  assert.equal(ticks.at(-1).at, scale.right);
  assert.equal(ticks.at(-1).text, '');
  assert.ok(ticks[0].text);
});

test('there are never more than 2,000 points', () => {
  const points = new Points();
  for (let count = 0; count < 2100; count += 1) points.add(count / 10, 1);
  assert.equal(points.all.length, 2000);
  assert.equal(points.all.at(-1)[0], 209.9);
});

test('larger letters leave room for fewer labels', () => {
  const count = (fontSize) => {
    const scale = scales({ ...BOX, width: 300, fontSize }, { begin: 0, end: 300 }, range(0, 100));
    return timeTicks(scale, 0, clock).length;
  };
  assert.ok(count(24) < count(12));
});

test('the curve is a line through its points, and its area ends at zero', () => {
  const scale = { x: (time) => time, y: (watts) => 100 - watts };
  const points = [
    [0, 10],
    [5, 20],
  ];
  assert.deepEqual(paths(points, scale), {
    curve: 'M0.0 90.0L5.0 80.0',
    area: 'M0.0 100.0L0.0 90.0L5.0 80.0L5.0 100.0Z',
  });
});

test('a gap interrupts the curve, and a point alone is a dot', () => {
  const scale = { x: (time) => time, y: (watts) => 100 - watts };
  const points = [
    [0, 10],
    [1, null],
    [2, 10],
    [3, 10],
    [4, null],
  ];
  assert.equal(paths(points, scale).curve, 'M0.0 90.0h0M2.0 90.0L3.0 90.0');
});

test('points older than the plot are forgotten, but for those at its left edge', () => {
  const points = new Points();
  for (let time = 0; time <= 2 * WINDOW; time += 10) points.add(time, time);
  const [[first]] = points.all;
  assert.ok(first < WINDOW && first >= WINDOW - 60);
  assert.equal(points.since(WINDOW).length, WINDOW / 10 + 1);
});

test('a clock that was set back takes the points after it away', () => {
  const points = new Points();
  for (const time of [10, 20, 30, 15]) points.add(time, 1);
  assert.deepEqual(points.all, [
    [10, 1],
    [15, 1],
  ]);
});

test('a gap is noted once, and never before the last point', () => {
  const points = new Points();
  points.addGap(5);
  assert.ok(points.isEmpty);
  points.add(10, 1);
  points.addGap(9);
  points.addGap(20);
  assert.deepEqual(points.all, [
    [10, 1],
    [10.001, null],
  ]);
  assert.deepEqual(points.since(0), [1]);
});
