// A server that does not respond: a banner with the age of what the page shows, which is
// greyed meanwhile, and the next attempt.

import { byId, duration, say } from './parts.js';

const RETRY_EVERY_MS = 3000;
/// A request without a response for so long is an outage too.
const SILENCE_MS_MAX = 5000;

export class Outage {
  #asked_ms; // of the request that has no response
  #answered_ms; // of the last response
  #retry_ms; // of the next attempt, after a failed one
  #timer;

  /// `onretry` is called for the next attempt.
  constructor({ onretry }) {
    this.onretry = onretry;
    byId('outage-retry').addEventListener('click', () => this.#retry());
  }

  /// A request was sent.
  asked() {
    this.#asked_ms = performance.now();
    this.#retry_ms = undefined;
    this.#timer ??= setInterval(() => this.#tick(), 250);
  }

  answered() {
    this.rest();
    this.#answered_ms = performance.now();
    byId('outage').hidden = true;
    document.body.classList.remove('stale');
  }

  /// The request has failed. Another one follows.
  failed(message) {
    this.#retry_ms = performance.now() + RETRY_EVERY_MS;
    this.#show(message);
  }

  /// No request is in flight, and none is due.
  rest() {
    clearInterval(this.#timer);
    this.#timer = this.#asked_ms = this.#retry_ms = undefined;
  }

  #retry() {
    this.#retry_ms = undefined;
    this.onretry();
  }

  #tick() {
    const now_ms = performance.now();
    if (this.#retry_ms !== undefined && now_ms >= this.#retry_ms) this.#retry();
    const isSilent = this.#retry_ms === undefined && now_ms - this.#asked_ms > SILENCE_MS_MAX;
    if (isSilent) this.#show('The server does not respond.');
    else if (!byId('outage').hidden) this.#tellTimes();
  }

  #show(message) {
    byId('outage').hidden = false;
    // The alert is read aloud once, and the times are not.
    say(byId('outage-title'), message);
    document.body.classList.toggle('stale', this.#answered_ms !== undefined);
    this.#tellTimes();
  }

  #tellTimes() {
    const now_ms = performance.now();
    const seconds = (ms) => duration(Math.max(0, Math.ceil(ms / 1000)));
    const age = this.#answered_ms === undefined ? '' : `Last update ${seconds(now_ms - this.#answered_ms)} ago. `;
    const next = this.#retry_ms === undefined ? 'Waiting for a response.' : `Next attempt in ${seconds(this.#retry_ms - now_ms)}.`;
    say(byId('outage-times'), age + next);
  }
}
