/**
 * The page: what is known, how fresh it is, and why there is nothing new. It gets readings from stream.js and shows them
 * through sections.js and drawing.js.
 */

import { addressOf } from './address.js';
import { ServerClock } from './clock.js';
import { drawPlot } from './drawing.js';
import { byId, say } from './elements.js';
import { Formats } from './formats.js';
import { Texts, chooseLanguage } from './language.js';
import { Memory } from './memory.js';
import { Points } from './plot.js';
import { Sections } from './sections.js';
import { MeterStream } from './stream.js';

/** Seconds between two values that a screen reader announces. */
const SPEAK = 30;
/** Seconds before a file of this page is requested again. */
const RELOAD = 5;
/** The states in which the page says why there is nothing new. Each state is also the name of a text. */
const TROUBLE = ['lost', 'away', 'refused'];

const facts = await load('facts.json');
const choice = chooseLanguage(navigator.languages, facts.languages);
const texts = new Texts(await load(`texts/${choice.language}.json`), facts);
const formats = new Formats(choice);
const memory = new Memory(facts);
const sections = new Sections({ texts, formats, memory, facts });
const points = new Points();
const serverClock = new ServerClock();

let state = 'starting';
let reason = ''; // why, in the reader's language
let detail = ''; // the server's own sentence about it, in English
let spokenAt = 0;
let spokenValue = '';

/** A file of this page, as JSON, however long it takes until the server can be reached. */
async function load(name) {
  for (;;) {
    try {
      const response = await fetch(addressOf(name));
      if (response.ok) return await response.json();
    } catch {
      // The server cannot be reached; it is tried again below.
    }
    await new Promise((resolve) => setTimeout(resolve, RELOAD * 1000));
  }
}

function now() {
  return Date.now() / 1000;
}

function translatePage() {
  document.documentElement.lang = choice.language;
  document.documentElement.dir = texts.direction;
  for (const node of document.querySelectorAll('[data-text]')) {
    say(node, texts.phrase(node.dataset.text));
  }
  for (const node of document.querySelectorAll('[data-label]')) {
    node.ariaLabel = texts.phrase(node.dataset.label);
  }
}

function headline() {
  const parts = ['word', 'amount', 'unit'].map((id) => byId(id).textContent);
  return parts.join(' ').trim();
}

function setState(next, why = '', sentence = '') {
  const hasChanged = next !== state || why !== reason || sentence !== detail;
  state = next;
  reason = why;
  detail = sentence;
  if (state !== 'live') points.addGap(serverClock.at(now()));
  showClasses();
  showTrouble();
  if (hasChanged) speak();
  tick();
}

function showClasses() {
  const classes = [];
  if (state === 'live') classes.push('live');
  else if (serverClock.received !== null) classes.push('stale');
  if (TROUBLE.includes(state)) classes.push('trouble');
  if (document.body.dataset.direction) classes.push(document.body.dataset.direction);
  document.body.className = classes.join(' ');
}

function showTrouble() {
  const hasTrouble = TROUBLE.includes(state);
  const name = texts.phrase(state);
  say(byId('state'), name);
  const titles = [texts.phrase('title')];
  if (hasTrouble) titles.unshift(name);
  document.title = titles.join(' \u2013 ');
  byId('trouble').hidden = !hasTrouble;
  say(byId('trouble-title'), name);
  say(byId('trouble-reason'), reason);
  say(byId('trouble-detail'), detail);
  byId('trouble-more').hidden = !detail;
}

/** Shows a problem detail (RFC 9457) of the server, whose own sentence is for who wants to know more. */
export function setProblem(next, problem) {
  const sentence = texts.problem(problem.code);
  const known = sentence ?? texts.phrase('otherProblem');
  if (sentence === null) byId('trouble-more').open = true;
  setState(next, known, String(problem.detail ?? ''));
}

/** Announces the state to a screen reader; while live, the headline. */
function speak() {
  spokenAt = now();
  spokenValue = '';
  if (state === 'live') spokenValue = headline();
  say(byId('spoken'), spokenValue || [texts.phrase(state), reason].filter(Boolean).join(': '));
}

function showPower(watts) {
  if (watts === null) {
    document.body.dataset.direction = '';
    say(byId('word'), texts.phrase('noPower'));
    for (const id of ['amount', 'unit', 'signed']) say(byId(id), '');
    return;
  }
  const rounded = Math.round(watts); // to the watt, as it is shown
  let direction = 'using';
  let signed = ''; // while using it would say the same again
  if (rounded < 0) {
    direction = 'delivering';
    signed = texts.phrase('net', { power: formats.kilowatts(rounded) });
  }
  document.body.dataset.direction = direction;
  say(byId('word'), texts.phrase(direction));
  say(byId('amount'), formats.kilo(Math.abs(rounded)));
  say(byId('unit'), 'kW');
  say(byId('signed'), signed);
}

/** Shows a reading of the stream; `id` is the Unix time at which the server received it. */
export function showReading(reading, id) {
  const arrived = now();
  let sent = id;
  if (!Number.isFinite(id)) sent = arrived;
  serverClock.note(sent, arrived);
  memory.note(reading);
  const watts = memory.net(reading, 'currentElectricityUsage', 'currentElectricityDelivery');
  showPower(watts);
  points.add(sent, watts);
  sections.show(reading);
  setState('live');
  if (arrived - spokenAt >= SPEAK && headline() !== spokenValue) speak();
}

function showAge() {
  const notes = [texts.phrase('resumes')];
  if (serverClock.received !== null) {
    const ago = formats.ago(serverClock.ageAt(now()));
    let received = texts.phrase('receivedJustNow');
    if (ago !== null) received = texts.phrase('received', { ago });
    say(byId('age'), received);
    notes.unshift(texts.phrase('oldReading', { ago: ago ?? texts.phrase('justNow') }));
  }
  say(byId('trouble-note'), notes.join(' '));
}

/** Updates whatever depends on the time. */
function tick() {
  showAge();
  const { offset } = serverClock;
  drawPlot(points, { now: serverClock.at(now()), offset, texts, formats });
}

const stream = new MeterStream({
  connected() {
    serverClock.connected();
    if (state !== 'lost') setState('waiting');
  },
  reading: showReading,
  problem: (problem) => setProblem('lost', problem),
  refused: (problem) => setProblem('refused', problem),
  away: () => setState('away', texts.phrase('noResponse')),
  paused: () => setState('starting'),
});

translatePage();
byId('plain').remove();
for (const id of ['now', 'footer']) byId(id).hidden = false;
setState(state);
stream.start();
setInterval(() => {
  stream.check();
  tick();
}, 1000);
addEventListener('resize', tick);
