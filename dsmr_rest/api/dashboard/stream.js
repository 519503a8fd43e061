/**
 * The readings of /stream, as long as the page can be seen: connects, notices when nothing comes any more, finds out why
 * the server refuses, and connects again. It does not know what is shown.
 *
 * A browser opens at most six connections to a host. So a page that has been hidden for a while closes its stream, which
 * gives back its place and lets the server close the port; it opens it again when it is shown. A page that is left closes
 * its stream at once: a browser may keep such a page, frozen, for somebody who goes back.
 */

import { addressOf } from './address.js';

const STREAM = addressOf('../stream');
/** Seconds without a reading or a problem after which a stream counts as dead. */
const SILENCE = 35;
/** Seconds: a stream reports a problem once, so only a new stream shows whether it persists. */
const RECHECK = 90;
/** Seconds before a refused stream is requested again. */
const RETRY = 5;
/** Seconds that a page may be hidden without closing its stream: somebody looks into another tab for a moment. */
const HIDDEN = 10;

export class MeterStream {
  #listener;
  #source = null;
  #hasProblem = false;
  #heardAt = 0; // when something arrived last
  #retryTimer = 0;
  #hiddenTimer = 0;

  /**
   * `listener` has connected(), reading(document, id), problem(detail), refused(detail), away() and paused(). An id is
   * the Unix time in seconds at which the server received the reading; a detail is a problem detail (RFC 9457).
   */
  constructor(listener) {
    this.#listener = listener;
  }

  /** Connects, and from now on heeds whether the page is hidden or left. */
  start() {
    this.#connect();
    document.addEventListener('visibilitychange', () => this.#heedVisibility());
    addEventListener('pagehide', () => this.#pause());
    addEventListener('pageshow', () => this.#heedVisibility());
    this.#heedVisibility();
  }

  /** Connects anew when the stream is dead, or has reported a problem long ago. To be called every second. */
  check() {
    if (this.#source === null) return;
    const silence = seconds() - this.#heardAt;
    if (this.#hasProblem) {
      if (silence > RECHECK) this.#connect();
      return;
    }
    const isDead = silence > SILENCE && this.#source.readyState !== EventSource.CLOSED;
    if (isDead) {
      this.#listener.away();
      this.#connect();
    }
  }

  #connect() {
    this.#disconnect();
    this.#heardAt = seconds();
    const source = new EventSource(STREAM);
    this.#source = source;
    source.onopen = () => {
      this.#heardAt = seconds();
      this.#listener.connected();
    };
    source.onmessage = (event) => {
      this.#heardAt = seconds();
      this.#hasProblem = false;
      this.#listener.reading(JSON.parse(event.data), Number.parseFloat(event.lastEventId));
    };
    source.addEventListener('problem', (event) => {
      this.#heardAt = seconds();
      this.#hasProblem = true;
      this.#listener.problem(JSON.parse(event.data));
    });
    source.onerror = () => this.#heedError(source);
  }

  #disconnect() {
    clearTimeout(this.#retryTimer);
    this.#source?.close();
    this.#source = null;
  }

  /** An EventSource connects again by itself, except after a response that is no stream, whose reason it does not tell. */
  #heedError(source) {
    if (source !== this.#source) return;
    this.#hasProblem = false;
    if (source.readyState === EventSource.CLOSED) this.#findReason(source);
    else this.#listener.away();
  }

  /** Fetches the reason of a refusal, and connects later. */
  async #findReason(source) {
    this.#retryTimer = setTimeout(() => this.#connect(), RETRY * 1000);
    const request = new AbortController();
    try {
      const response = await fetch(STREAM, { signal: request.signal });
      if (response.ok) return; // the next attempt will succeed
      const detail = { detail: response.statusText, ...(await response.json()) };
      if (source === this.#source) this.#listener.refused(detail);
    } catch {
      if (source === this.#source) this.#listener.away();
    } finally {
      request.abort();
    }
  }

  #heedVisibility() {
    clearTimeout(this.#hiddenTimer);
    if (document.hidden) this.#hiddenTimer = setTimeout(() => this.#pause(), HIDDEN * 1000);
    else if (this.#source === null) this.#connect();
  }

  #pause() {
    this.#disconnect();
    this.#hasProblem = false;
    this.#listener.paused();
  }
}

function seconds() {
  return Date.now() / 1000;
}
