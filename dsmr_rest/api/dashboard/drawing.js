/** Draws the plot, where plot.js says that everything lies. */

import { byId, say, setAttributes } from './elements.js';
import { paths, period, powerTicks, range, scales, timeTicks } from './plot.js';

function element(name, attributes, text = '') {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  setAttributes(node, attributes);
  node.textContent = text;
  return node;
}

/** The box of the plot in CSS pixels, with the font size of its labels. */
function boxOf(svg) {
  const { width, height } = svg.getBoundingClientRect();
  const fontSize = Number.parseFloat(getComputedStyle(svg).fontSize);
  return { width, height, fontSize };
}

/** Draws these points as they are `now` on the server's clock, of which the reader's is ahead by `offset`. */
export function drawPlot(points, { now, offset, texts, formats }) {
  const section = byId('plot');
  if (points.isEmpty) return;
  const shown = period(points.all, now);
  const powers = points.since(shown.begin);
  section.hidden = !powers.length;
  if (!powers.length) return;
  const lowest = Math.min(...powers);
  const highest = Math.max(...powers);
  const svg = section.querySelector('svg');
  const box = boxOf(svg);
  const scale = scales(box, shown, range(lowest, highest));
  svg.setAttribute('viewBox', `0 0 ${box.width} ${box.height}`);
  byId('axes').replaceChildren(...powerAxis(scale, formats), ...timeAxis(scale, offset, formats));
  drawCurve(svg, points.all, box, scale);
  const values = {
    lowest: formats.kilowatts(lowest),
    highest: formats.kilowatts(highest),
    time: formats.minute(shown.begin + offset),
  };
  say(byId('plot-text'), texts.phrase('plot', values));
}

/** Draws the curve and the area twice, in the colours of used and of delivered power, cut off at zero. */
function drawCurve(svg, points, box, scale) {
  const { curve, area } = paths(points, scale);
  svg.querySelectorAll('.curve').forEach((path) => path.setAttribute('d', curve));
  svg.querySelectorAll('.area').forEach((path) => path.setAttribute('d', area));
  const zero = scale.y(0);
  const x = scale.left - 2;
  const width = Math.max(0, scale.right - scale.left + 6);
  setAttributes(byId('above-rect'), { x, y: 0, width, height: Math.max(0, zero) });
  setAttributes(byId('below-rect'), { x, y: zero, width, height: Math.max(0, box.height - zero) });
}

function powerAxis(scale, formats) {
  const { left, right, fontSize } = scale;
  const x = left - fontSize / 2;
  const nodes = [element('text', { x, y: 0.7 * fontSize, 'text-anchor': 'end' }, 'kW')];
  for (const { at, watts, digits, isZero } of powerTicks(scale)) {
    let kind = 'grid';
    let text = formats.decimal(watts / 1000, digits);
    if (isZero) {
      kind = 'zero';
      text = formats.decimal(0, 0);
    }
    nodes.push(element('line', { class: kind, x1: left, x2: right, y1: at, y2: at }));
    nodes.push(element('text', { x, y: at + fontSize / 3, 'text-anchor': 'end' }, text));
  }
  return nodes;
}

function timeAxis(scale, offset, formats) {
  const { lower, fontSize } = scale;
  const label = (time, step) => {
    if (step < 60) return formats.second(time + offset);
    return formats.minute(time + offset);
  };
  const nodes = [];
  for (const { at, text } of timeTicks(scale, offset, label)) {
    nodes.push(element('line', { class: 'grid', x1: at, x2: at, y1: lower, y2: lower + 5 }));
    const place = { x: at, y: lower + 1.6 * fontSize, 'text-anchor': 'middle' };
    if (text) nodes.push(element('text', place, text));
  }
  return nodes;
}
