/** Which language a reader gets, and which text for which problem and which device. */

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';

import { Texts, chooseLanguage } from '../../../dsmr_rest/api/dashboard/language.js';

const FOLDER = new URL('../../../dsmr_rest/api/dashboard/texts/', import.meta.url);
const LANGUAGES = readdirSync(FOLDER).map((name) => name.replace('.json', ''));
const FACTS = {
  languages: LANGUAGES,
  kinds: { 3: 'gas', 6: 'warm water', 99: 'ice' },
  gasMeter: 3,
};

function textsOf(language) {
  return new Texts(JSON.parse(readFileSync(new URL(`${language}.json`, FOLDER))), FACTS);
}

test("texts are in the first of the reader's languages that there is", () => {
  const cases = [
    [['nl-BE', 'fr'], 'nl'],
    [['lb', 'de-LU', 'fr-LU'], 'de'],
    [['is-IS', 'is'], 'en'],
    [['en-US@posix', 'nl-NL'], 'nl'],
    [['NL-nl'], 'nl'],
    [[], 'en'],
  ];
  for (const [tags, language] of cases) {
    assert.equal(chooseLanguage(tags, LANGUAGES).language, language, tags.join());
  }
});

test("numbers and dates are written as in the first of the reader's languages", () => {
  const icelander = chooseLanguage(['is-IS', 'en'], LANGUAGES);
  assert.equal(icelander.locale, 'is-IS');
  assert.equal(icelander.speaksLocale, false);
  assert.equal(icelander.textTag, 'en');
  const austrian = chooseLanguage(['de-AT', 'de'], LANGUAGES);
  assert.equal(austrian.locale, 'de-AT');
  assert.equal(austrian.speaksLocale, true);
});

test('a value in a sentence is isolated from its neighbours', () => {
  const english = textsOf('en');
  assert.equal(english.phrase('received', { ago: '3 s' }), 'Received \u20683 s\u2069');
});

test('each language has its own sentence for a problem', () => {
  assert.equal(textsOf('en').problem('meter_silent'), 'The meter sends nothing.');
  assert.equal(textsOf('nl').problem('meter_silent'), 'De meter stuurt niets.');
});

test('a problem that a language does not know is left to the server', () => {
  assert.equal(textsOf('nl').problem('something_new'), null);
  assert.equal(textsOf('nl').problem(undefined), null);
});

test('a device has a name in the language, or else the one that the server has, or else its type', () => {
  const dutch = textsOf('nl');
  assert.equal(dutch.kindName(3), 'Gas');
  assert.equal(dutch.kindName(6), 'Warm water');
  assert.equal(textsOf('fr').kindName(6), 'Eau chaude');
  assert.equal(dutch.kindName(99), 'Ice');
  assert.equal(textsOf('en').kindName(6), 'Warm water');
  assert.equal(dutch.kindName(77), 'Apparaat van type \u206877\u2069');
  assert.equal(dutch.kindName(NaN), 'Onbekend apparaat');
});
