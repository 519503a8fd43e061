/** The sections of the page that show a reading, each hidden while the meter sends nothing for it. */

import { byId, fillTable, say, setAttributes, showSection } from './elements.js';
import { amountIn, itemIn, wattsOf } from './formats.js';
import {
  DELIVERED,
  PHASES,
  TOTAL,
  USED,
  activeTariff,
  devicesOf,
  has,
  kilowattHours,
  pastPeaks,
  registerKey,
  tariffsOf,
} from './reading.js';

/** The names of texts for the tariffs of a country, by their numbers. */
const TARIFFS = { NL: { 1: 'low', 2: 'normal' }, BE: { 1: 'day', 2: 'night' } };

/** The key of the current of a phase, less the phase. */
const CURRENT = 'instantaneousCurrent';

/** Whether the reading has something for a cell: `column.keys(name)` are the keys that the cell is made of. */
function hasCell(reading, column, name) {
  return column.keys(name).some((key) => has(reading, key));
}

/** The names of the rows and the columns that have at least one cell. */
function grid(reading, names, columns) {
  return {
    names: names.filter((name) => columns.some((column) => hasCell(reading, column, name))),
    columns: columns.filter((column) => names.some((name) => hasCell(reading, column, name))),
  };
}

function cells(reading, columns, name) {
  return columns.map((column) => {
    if (!hasCell(reading, column, name)) return '';
    return column.text(...column.keys(name));
  });
}

/** Shows readings in these texts and formats, with the help of what is remembered of earlier ones. */
export class Sections {
  constructor({ texts, formats, memory, facts }) {
    this.texts = texts;
    this.formats = formats;
    this.memory = memory;
    this.facts = facts;
  }

  show(reading) {
    this.#showQuarter(reading);
    this.#showSinceOpened(reading);
    this.#showPhases(reading);
    this.#showTotals(reading);
    this.#showDevices(reading);
    this.#showPeaks(reading);
  }

  #phrases(...keys) {
    return keys.map((key) => this.texts.phrase(key));
  }

  #showPhases(reading) {
    const { texts, formats, memory } = this;
    const currents = PHASES.map((phase) => amountIn(reading[CURRENT + phase], 'A') ?? 0);
    let decimals = 2;
    if (currents.every(Number.isInteger)) decimals = 0; // most meters send whole amperes
    const measured = (title, name, unit, digits) => ({
      title: texts.phrase(title),
      keys: (phase) => [name + phase],
      text: (key) => formats.quantity(itemIn(reading[key], unit), digits),
    });
    const power = 'instantaneousActivePower';
    const columns = [
      {
        title: texts.phrase('netPower'),
        keys: (phase) => [`${power}${phase}Positive`, `${power}${phase}Negative`],
        text: (positive, negative) => formats.kilowatts(memory.net(reading, positive, negative)),
      },
      measured('voltage', 'instantaneousVoltage', 'V', 1),
      measured('current', CURRENT, 'A', decimals),
    ];
    const shown = grid(reading, PHASES, columns);
    const head = [texts.phrase('phase'), ...shown.columns.map((column) => column.title)];
    const rows = shown.names.map((phase) => [phase, ...cells(reading, shown.columns, phase)]);
    showSection('phases', { head, rows });
  }

  #tariffName(number) {
    const names = TARIFFS[this.memory.country] ?? {};
    if (number in names) return this.texts.phrase(names[number]);
    return this.texts.phrase('numberedTariff', { number });
  }

  #registerName(name, active) {
    if (name === TOTAL) return this.texts.phrase('total');
    const tariff = this.#tariffName(name);
    if (name === active) return this.texts.phrase('active', { tariff });
    return tariff;
  }

  #showTotals(reading) {
    const text = (key) => {
      const item = kilowattHours(reading[key]);
      if (item.unit !== 'kWh') return this.formats.quantity(item);
      return this.formats.quantity({ value: item.value }); // the heading states kWh
    };
    const [tariff, used, delivered] = this.#phrases('tariff', 'used', 'delivered');
    const columns = [
      { title: used, keys: (name) => [registerKey(USED, name)], text },
      { title: delivered, keys: (name) => [registerKey(DELIVERED, name)], text },
    ];
    const shown = grid(reading, [...tariffsOf(reading), TOTAL], columns);
    const active = activeTariff(reading);
    const head = [tariff, ...shown.columns.map((column) => column.title)];
    const rows = shown.names.map((name) => [
      this.#registerName(name, active),
      ...cells(reading, shown.columns, name),
    ]);
    showSection('totals', { head, rows, current: shown.names.indexOf(active) });
  }

  #showSinceOpened(reading) {
    const { memory } = this;
    const [used, delivered] = this.#phrases('used', 'delivered');
    const amounts = [
      { name: used, value: memory.countedEnergy(USED), unit: 'kWh' },
      { name: delivered, value: memory.countedEnergy(DELIVERED), unit: 'kWh' },
    ];
    for (const { name, key, item } of this.#namedDevices(reading)) {
      amounts.push({ name, value: memory.counted(key), unit: item.unit });
    }
    const known = amounts.filter(({ value }) => value !== null);
    showSection('since', {
      rows: known.map((amount) => [amount.name, this.formats.quantity(amount)]),
    });
  }

  /** The devices of a reading with their names; two of a kind are told apart by their channels. */
  #namedDevices(reading) {
    const devices = devicesOf(reading, this.facts).map((device) => ({
      kind: this.texts.kindName(device.type),
      ...device,
    }));
    return devices.map((device) => {
      const { kind, channel } = device;
      const isUnique = devices.filter((other) => other.kind === kind).length === 1;
      if (isUnique) return { name: kind, ...device };
      return { name: this.texts.phrase('onChannel', { kind, channel }), ...device };
    });
  }

  #moment(time) {
    return this.formats.moment(time, this.memory.year);
  }

  #showDevices(reading) {
    const rows = this.#namedDevices(reading).map(({ name, item }) => [
      name,
      this.formats.quantity(item),
      this.#moment(item.datetime),
    ]);
    showSection('devices', {
      head: this.#phrases('meter', 'count', 'takenAt'),
      rows,
      timeColumn: 2,
    });
  }

  /** Shows the demand of this quarter-hour beside the month's peak, which it becomes if it ends above it. */
  #showQuarter(reading) {
    const demand = wattsOf(reading.belgiumCurrentAverageDemand);
    const peak = wattsOf(reading.belgiumMaximumDemandMonth);
    const section = byId('quarter');
    section.hidden = demand === null;
    if (demand === null) return;
    const isAbove = peak !== null && demand > peak;
    section.classList.toggle('above', isAbove);
    say(byId('demand-now'), this.formats.kilowatts(demand));
    say(byId('peak-note'), this.#peakNote(peak, isAbove));
    this.#showBar(demand, peak, isAbove);
  }

  #peakNote(peak, isAbove) {
    if (peak === null) return '';
    const values = { power: this.formats.kilowatts(peak) };
    if (isAbove) return this.texts.phrase('abovePeak', values);
    return this.texts.phrase('monthPeak', values);
  }

  /** The bar is as long as the month's peak, or as the demand when that is higher; a mark then shows the peak. */
  #showBar(demand, peak, isAbove) {
    const bar = byId('quarter').querySelector('.bar');
    bar.hidden = peak === null;
    if (peak === null) return;
    const length = Math.max(demand, peak) || 1; // watts: a month begins with neither
    const percent = (watts) => `${(100 * watts) / length}%`;
    bar.querySelector('.fill').style.inlineSize = percent(demand);
    bar.querySelector('.mark').style.insetInlineStart = percent(peak);
    bar.querySelector('.mark').hidden = !isAbove;
    setAttributes(bar, {
      'aria-valuenow': demand / 1000,
      'aria-valuemax': length / 1000,
      'aria-valuetext': `${this.formats.kilowatts(demand)}, ${this.#peakNote(peak, isAbove)}`,
    });
  }

  #peakRow(name, peak, time) {
    return [name, this.formats.power(peak), this.#moment(time)];
  }

  /** Grid costs in Flanders depend on the highest average demand of a quarter-hour in each month. */
  #showPeaks(reading) {
    const peak = reading.belgiumMaximumDemandMonth;
    const past = pastPeaks(reading);
    const head = this.#phrases('month', 'peak', 'occurredAt');
    const [thisMonth, highestBefore] = this.#phrases('thisMonth', 'highestBefore');
    const rows = [];
    if (peak) rows.push(this.#peakRow(thisMonth, peak, peak.datetime));
    if (past.length) {
      const [highest] = [...past].sort((one, other) => wattsOf(other) - wattsOf(one));
      rows.push(this.#peakRow(highestBefore, highest, highest.occurred));
    }
    showSection('demand', { head, rows, timeColumn: 2 });
    this.#showPastPeaks(head, past);
  }

  #showPastPeaks(head, past) {
    const details = byId('demand').querySelector('details');
    details.hidden = !past.length;
    if (!past.length) return;
    const rows = past.map((month) =>
      this.#peakRow(this.formats.monthOf(month.occurred), month, month.occurred),
    );
    fillTable(details.querySelector('table'), { head, rows, timeColumn: 2 });
  }
}
