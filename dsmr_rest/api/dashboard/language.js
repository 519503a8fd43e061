/**
 * Which language the page is in, and its texts. Pure: it knows neither the page nor a reading.
 *
 * A language is a file in texts/. Kinds of M-Bus devices come from the server, which names them in English; a language
 * may have names of its own for them.
 */

const FIRST_STRONG_ISOLATE = '\u2068';
const POP_DIRECTIONAL_ISOLATE = '\u2069';

const languageOf = (tag) => tag.split('-')[0].toLowerCase();

/**
 * The language of the texts, for a reader whose browser states these tags, most wanted first.
 *
 * Numbers, dates and times are written as in the first of the reader's languages, also where the texts are not: a
 * Swede reads "0,680" and "2026-11-02" in an English text with ease, and "11/2/26" hardly. `speaksLocale` is whether
 * the texts are in the language of the numbers.
 */
export function chooseLanguage(tags, available) {
  // Some browsers state "en-US@posix", which Intl refuses with an exception.
  const known = tags.filter((tag) => /^[a-z]{2,8}(-[a-z0-9]{1,8})*$/i.test(tag));
  const textTag = known.find((tag) => available.includes(languageOf(tag))) ?? 'en';
  const language = languageOf(textTag);
  const locale = Intl.DateTimeFormat.supportedLocalesOf(known)[0] ?? language;
  const speaksLocale = languageOf(locale) === language;
  return { language, textTag, locale, speaksLocale };
}

/** A number or a name inside a sentence: it must not change places with its neighbours in a right-to-left text. */
function isolate(text) {
  return FIRST_STRONG_ISOLATE + text + POP_DIRECTIONAL_ISOLATE;
}

function capitalized(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The texts of one language. `facts` are those that the server has about its readings, see facts.json. */
export class Texts {
  constructor(texts, facts) {
    this.texts = texts;
    this.facts = facts;
  }

  /** 'ltr' or 'rtl', of the texts. */
  get direction() {
    return this.texts.direction;
  }

  /** A text, with values for the names in braces. */
  phrase(key, values = {}) {
    return this.texts[key].replace(/{(\w+)}/g, (braces, name) => isolate(values[name]));
  }

  /** The sentence about a problem with this code of the server; null when this language has none. */
  problem(code) {
    return this.texts.problems[code] ?? null;
  }

  /** What a kind of M-Bus device is called, by its type (EN 13757-3). */
  kindName(type) {
    const inEnglish = this.facts.kinds[type];
    if (inEnglish !== undefined) return this.texts.kinds[inEnglish] ?? capitalized(inEnglish);
    if (type) return this.phrase('otherDevice', { type });
    return this.phrase('unknownDevice');
  }
}
