/**
 * The plot of the net power: its points, what its axes cover, and where everything lies. Pure: drawing.js draws it.
 *
 * Times are in seconds, power in watts, positions in CSS pixels.
 */

/** Seconds that the plot covers at most, and at least. */
export const WINDOW = 900;
const LEAST_PERIOD = 60;
/** Seconds of points kept before the plot's begin, so that the curve reaches its left edge. */
const MARGIN = 60;
const MOST_POINTS = 2000;
/** Watts: noise of a few watts must not fill the plot. */
const LEAST_RANGE = 200;
/** Seconds between time labels. */
const TIME_STEPS = [5, 10, 20, 30, 60, 120, 300, 600];
/** The width of a character of a label, at most, as a part of its font size. */
const CHARACTER = 0.625;

/** The points of the curve: [time, power], and null for the power where the curve has a gap. */
export class Points {
  #points = [];

  get all() {
    return this.#points;
  }

  get isEmpty() {
    return !this.#points.length;
  }

  add(time, watts) {
    const oldest = time - WINDOW - MARGIN;
    const kept = this.#points.filter(([then]) => then < time && then >= oldest);
    this.#points = [...kept.slice(1 - MOST_POINTS), [time, watts]];
  }

  /** Ends the curve, once. */
  addGap(time) {
    const last = this.#points.at(-1);
    if (last && last[1] !== null) this.add(Math.max(time, last[0] + 0.001), null);
  }

  /** The powers from this time on. */
  since(begin) {
    const shown = this.#points.filter(([time, watts]) => watts !== null && time >= begin);
    return shown.map(([, watts]) => watts);
  }
}

/**
 * The time that the plot covers. It begins with the first point, until there are more than it can cover: a curve that
 * has just begun starts at the left and has room to grow.
 */
export function period(points, now) {
  const [[first]] = points;
  const begin = Math.max(first, now - WINDOW);
  const end = Math.max(now, begin + LEAST_PERIOD);
  return { begin, end };
}

/** The least of 1, 2 or 5 times a power of ten that is at least `span`. */
export function niceStep(span) {
  const ten = 10 ** Math.floor(Math.log10(span));
  return [1, 2, 5, 10].find((factor) => factor * ten >= span) * ten;
}

/** The power that the plot covers, and the step between its labels. Zero is always in it. */
export function range(lowest, highest) {
  const low = Math.min(0, lowest);
  const high = Math.max(0, highest);
  const step = niceStep(Math.max(LEAST_RANGE, high - low) / 4);
  const bottom = Math.floor(low / step) * step;
  const top = Math.max(bottom + step, Math.ceil(high / step) * step);
  return { step, bottom, top };
}

/**
 * What the axes cover, where the plot lies in a box of this size, and the position of a time (x) and of a power (y).
 * `box.fontSize` is that of the labels, which need room.
 */
export function scales(box, { begin, end }, { step, bottom, top }) {
  const { fontSize } = box;
  const left = 3.7 * fontSize;
  const right = box.width - 0.7 * fontSize;
  const upper = 1.8 * fontSize;
  const lower = box.height - 2 * fontSize;
  const x = (time) => left + ((right - left) * (time - begin)) / (end - begin);
  const y = (watts) => upper + ((lower - upper) * (top - watts)) / (top - bottom);
  return { begin, end, step, bottom, top, left, right, lower, fontSize, x, y };
}

/** The labels of the axis of power: where they are, how many watts, and the decimals of their kilowatts. */
export function powerTicks({ bottom, top, step, y }) {
  const digits = Math.min(2, Math.max(0, 3 - Math.floor(Math.log10(step))));
  const ticks = [];
  for (let watts = bottom; watts <= top + step / 2; watts += step) {
    const isZero = Math.abs(watts) < step / 2;
    ticks.push({ at: y(watts), watts, digits, isZero });
  }
  return ticks;
}

/**
 * The labels of the axis of time: where they are, and their text, empty where it would not fit. `label(time, step)` is
 * the text of a time when labels are that many seconds apart; `offset` is that of the reader's clock.
 */
export function timeTicks(scale, offset, label) {
  const { begin, end, right, fontSize, x } = scale;
  const character = CHARACTER * fontSize;
  const step = timeStep(scale, (seconds) => character * (label(begin, seconds).length + 2));
  const firstRound = Math.ceil((begin + offset) / step) * step - offset;
  const ticks = [];
  for (let time = firstRound; time <= end; time += step) {
    const at = x(time);
    let text = label(time, step);
    const fits = at + (character * text.length) / 2 < right + 1.6 * fontSize;
    if (!fits) text = '';
    ticks.push({ at, text });
  }
  return ticks;
}

/** The least step at which labels do not touch; `width(step)` is the room that a label needs then. */
function timeStep({ begin, end, left, right }, width) {
  const pixels = (right - left) / (end - begin);
  return TIME_STEPS.find((step) => step * pixels > width(step)) ?? WINDOW;
}

/** The paths (SVG) of the curve and of the area between it and zero, in runs that end at each gap. */
export function paths(points, scale) {
  const parts = runs(points).map((run) => pathsOfRun(run, scale));
  return {
    curve: parts.map((part) => part.curve).join(''),
    area: parts.map((part) => part.area).join(''),
  };
}

/** The points between the gaps. */
function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (point[1] === null) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((run) => run.length);
}

function pathsOfRun(run, { x, y }) {
  const place = ([time, watts]) => x(time).toFixed(1) + ' ' + y(watts).toFixed(1);
  const line = run.map(place).join('L');
  const from = place([run[0][0], 0]);
  const to = place([run.at(-1)[0], 0]);
  let curve = `M${line}`;
  if (run.length === 1) curve += 'h0'; // a dot
  return { curve, area: `M${from}L${line}L${to}Z` };
}
