// The settings that apply to the current channel, when they are opened.

import { byId, bytes, count, element, say } from './parts.js';
import { ask, pathOf } from './server.js';

const IF_CONFLATING = ['keyed_events', 'keyed_bytes', 'keyed_age', 'pace_ms'];

export class Settings {
  #channel;
  #place = byId('settings');

  constructor() {
    this.#place.addEventListener('toggle', () => this.#load());
  }

  /// Shows another channel, or none.
  show(channel) {
    this.#channel = channel;
    byId('settings-list').replaceChildren();
    say(byId('settings-note'), '');
    this.#load();
  }

  /// The channel exists, or not.
  allow(exists) {
    if (this.#place.hidden === !exists) return;
    this.#place.hidden = !exists;
    this.#load();
  }

  async #load() {
    const channel = this.#channel;
    if (channel === undefined || !this.#place.open || this.#place.hidden) return;
    try {
      const settings = await ask('GET', `${pathOf(channel)}/settings`);
      if (channel === this.#channel) this.#draw(settings);
    } catch (wrong) {
      if (channel === this.#channel) say(byId('settings-note'), wrong.message);
    }
  }

  #draw({ pattern, public: isPublic, ...settings }) {
    const source = pattern === null ? 'The general settings apply.' : `The table of the pattern ${pattern} applies.`;
    const access = isPublic ? 'Subscribing needs no token.' : 'Subscribing needs a token or a ticket.';
    say(byId('settings-note'), `${source} ${access}`);
    const names = Object.keys(settings).filter((name) => settings.lag_policy === 'conflate' || !IF_CONFLATING.includes(name));
    const rows = names.map((name) =>
      element('div', {}, element('dt', {}, element('code', { text: name })), element('dd', { text: valueOf(name, settings[name]) })));
    byId('settings-list').replaceChildren(...rows);
  }
}

function valueOf(name, value) {
  if (value === null) return 'none';
  if (Array.isArray(value)) return value.join(', ') || 'none';
  if (typeof value === 'object') return Object.entries(value).map((pair) => pair.join(': ')).join(', ') || 'none';
  if (typeof value !== 'number') return value;
  if (name.endsWith('_bytes')) return bytes(value);
  if (name.endsWith('_age') || name === 'heartbeat') return `${count(value)}\u00a0s`;
  if (name.endsWith('_ms')) return `${count(value)}\u00a0ms`;
  return name === 'publish_rate' ? `${count(value)}/s` : count(value);
}
