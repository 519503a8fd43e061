/** What readings of different meters say, and what is remembered of them. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { Memory } from '../../../dsmr_rest/api/dashboard/memory.js';
import {
  DELIVERED,
  USED,
  activeTariff,
  devicesOf,
  kilowattHours,
  pastPeaks,
  registerKey,
  tariffsOf,
} from '../../../dsmr_rest/api/dashboard/reading.js';

const FACTS = { kinds: { 3: 'gas', 7: 'water' }, gasMeter: 3 };
const USAGE = 'currentElectricityUsage';
const DELIVERY = 'currentElectricityDelivery';

function kilowatts(value) {
  return { value, unit: 'kW' };
}

function remembering(...readings) {
  const memory = new Memory(FACTS);
  for (const reading of readings) memory.note(reading);
  return memory;
}

function net(memory, reading) {
  return memory.net(reading, USAGE, DELIVERY);
}

test('net power is what is used less what is delivered, in watts', () => {
  const reading = { [USAGE]: kilowatts(1.5), [DELIVERY]: { value: 200, unit: 'W' } };
  assert.equal(net(remembering(reading), reading), 1300);
});

test('a meter that never sends delivery delivers nothing', () => {
  const reading = { [USAGE]: kilowatts(0) };
  assert.equal(net(remembering(reading), reading), 0);
});

test('nothing used says nothing when the meter does send delivery but not now', () => {
  const memory = remembering({ [DELIVERY]: kilowatts(1) });
  assert.equal(net(memory, { [USAGE]: kilowatts(0) }), null);
  assert.equal(net(memory, { [USAGE]: kilowatts(1) }), 1000);
  assert.equal(net(memory, { [DELIVERY]: kilowatts(1) }), -1000);
  assert.equal(net(memory, { [DELIVERY]: kilowatts(0) }), null);
});

test('tariffs are numbered as the meter does, in order', () => {
  const reading = {
    electricityUsedTariff2: {},
    electricityUsedTariff1: {},
    electricityDeliveredTariff10: {},
  };
  assert.deepEqual(tariffsOf(reading), [1, 2, 10]);
  assert.equal(registerKey(USED, 2), 'electricityUsedTariff2');
  assert.equal(registerKey(DELIVERED, 'Total'), 'electricityExportedTotal');
});

test('the active tariff is a number, although meters send digits', () => {
  assert.equal(activeTariff({ electricityActiveTariff: { value: '0002' } }), 2);
  assert.ok(Number.isNaN(activeTariff({})));
});

test('a country is known by what only its meters send', () => {
  assert.equal(remembering({ belgiumVersionInformation: {} }).country, 'BE');
  assert.equal(remembering({ p1MessageHeader: {} }).country, 'NL');
  assert.equal(remembering({ textMessageCode: {} }).country, 'NL');
  assert.equal(remembering({ p1MessageHeader: {}, electricityImportedTotal: {} }).country, '');
  assert.equal(remembering({}).country, '');
});

test('watt-hours become kilowatt-hours, and nothing else changes', () => {
  assert.deepEqual(kilowattHours({ value: 1500, unit: 'Wh' }), { value: 1.5, unit: 'kWh' });
  assert.deepEqual(kilowattHours({ value: 1.5, unit: 'MWh' }), { value: 1500, unit: 'kWh' });
  const other = { value: 1500, unit: 'kvarh' };
  assert.equal(kilowattHours(other), other);
});

test('past peaks are the latest first, also when there is only one', () => {
  const peaks = [{ value: 1 }, null, { value: 2 }];
  assert.deepEqual(pastPeaks({ belgiumMaximumDemand13Months: peaks }), [
    { value: 2 },
    { value: 1 },
  ]);
  assert.deepEqual(pastPeaks({ belgiumMaximumDemand13Months: { value: 1 } }), [{ value: 1 }]);
  assert.deepEqual(pastPeaks({}), []);
});

function device(channelId, type, value, identifier = 'A') {
  return {
    channelId,
    mbusDeviceType: { value: type },
    mbusEquipmentIdentifier: { value: identifier },
    mbusMeterReading: { value, unit: 'm3' },
  };
}

test('devices have a type by what the specification calls it, and gas by the name of its reading', () => {
  const reading = {
    mbusDevices: [
      device(1, 7, 5),
      {
        channelId: 2,
        deviceType: { value: '003' },
        hourlyGasMeterReading: { value: 6, unit: 'm3' },
      },
      { channelId: 3, gasMeterReading: { value: 7, unit: 'm3' } },
      { channelId: 4, mbusDeviceType: { value: 3 } },
      { channelId: 5, mbusMeterReading: { datetime: null, value: null, unit: null } },
    ],
  };
  const devices = devicesOf(reading, FACTS).map(({ channel, type, item }) => [
    channel,
    type,
    item.value,
  ]);
  assert.deepEqual(devices, [
    [1, 7, 5],
    [2, 3, 6],
    [3, 3, 7],
  ]);
});

test('tariffs are counted together, and a total makes them superfluous', () => {
  const at = (first, second) => ({
    electricityUsedTariff1: { value: first, unit: 'kWh' },
    electricityUsedTariff2: { value: second, unit: 'kWh' },
  });
  const memory = remembering(at(1, 10), at(2, 10.5));
  assert.equal(memory.countedEnergy(USED), 1.5);
  assert.equal(memory.countedEnergy(DELIVERED), null);
  memory.note({ electricityImportedTotal: { value: 5, unit: 'kWh' } });
  memory.note({ electricityImportedTotal: { value: 5.25, unit: 'kWh' } });
  assert.equal(memory.countedEnergy(USED), 0.25);
});

test('each device is counted for itself, and another meter on its channel starts anew', () => {
  const memory = new Memory(FACTS);
  const counted = (...devices) => {
    const reading = { mbusDevices: devices };
    memory.note(reading);
    return devicesOf(reading, FACTS).map(({ key }) => memory.counted(key));
  };
  assert.deepEqual(counted(device(1, 3, 10), device(2, 7, 20)), [0, 0]);
  assert.deepEqual(counted(device(1, 3, 10.5), device(2, 7, 22)), [0.5, 2]);
  assert.deepEqual(counted(device(1, 3, 900, 'B'), device(2, 7, 5)), [0, 0]);
  assert.deepEqual(counted(device(1, 3, 901, 'B'), device(2, 7, 6)), [1, 1]);
});

test("the year is that of the meter's clock", () => {
  const time = { value: '2031-05-01T00:00:00+02:00' };
  assert.equal(remembering({ p1MessageTimestamp: time }, {}).year, 2031);
});
