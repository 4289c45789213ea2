// One channel: its metrics, its clients, and closing it. Other files watch and publish.

import { bytes, byId, clients as clientsText, confirmed, count, duration, element, keepRows, rate, say, visible, wrongName } from './parts.js';
import { Publish } from './publish.js';
import { ask, pathOf } from './server.js';
import { Settings } from './settings.js';
import { Watch } from './watch.js';

/// The list is not requested for more clients, because it has no pages.
const LISTED_MAX = 1000;
const ROWS_MAX = 200;
/// The list is requested less often than the metrics.
const LIST_EVERY_MS = 3000;

export class ChannelView {
  #channel;
  #listed = [];
  #listed_at_ms = -Infinity;
  #unlisted; // why there is no list
  #watch = new Watch();
  #publish = new Publish();
  #settings = new Settings();

  /// `onchange` is called after a client or the channel was disconnected.
  constructor({ onchange }) {
    this.onchange = onchange;
    this.body = byId('client-table').tBodies[0];
    byId('client-search').addEventListener('input', () => this.#unlisted === undefined && this.#drawClients());
    byId('client-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#find(byId('client-search').value);
    });
    byId('finish').addEventListener('click', () => this.#end('finish'));
    byId('close').addEventListener('click', () => this.#end('close'));
  }

  /// Shows a channel of this name, whether or not it exists; `undefined` shows none.
  show(channel) {
    if (channel === this.#channel) return;
    this.#channel = channel;
    byId('channel').hidden = channel === undefined;
    say(byId('channel-title'), visible(channel ?? ''));
    byId('channel-title').title = channel ?? '';
    byId('client-search').value = '';
    this.#unlist(undefined);
    for (const place of ['clients-count', 'clients-note', 'ending-answer', 'ending-error']) say(byId(place), '');
    byId('channel-figures').replaceChildren();
    this.#watch.show(channel);
    this.#publish.show(channel);
    this.#settings.show(channel);
  }

  /// Hides the metrics, clients and settings without the right to manage.
  allow({ manage }) {
    for (const part of ['channel-figures', 'clients', 'ending']) byId(part).hidden = !manage;
    if (!manage) this.body.replaceChildren();
    if (!manage) this.#settings.allow(false);
    this.#publish.allow({ manage });
  }

  // ---- figures --------------------------------------------------------------------

  /// Shows its metrics; `undefined` if the channel does not exist.
  async take(row) {
    byId('finish').disabled = byId('close').disabled = !row;
    this.#drawFigures(row);
    this.#settings.allow(row !== undefined);
    if (row) this.#watch.showLast();
    const number = row?.clients ?? 0;
    say(byId('clients-count'), count(number));
    byId('client-form').hidden = number === 0;
    if (!row) this.#unlist('');
    else if (number === 0) this.#unlist('No clients.');
    else if (number > LISTED_MAX) this.#unlist('Too many clients to list. Search for a whole client id.');
    else if (performance.now() - this.#listed_at_ms > LIST_EVERY_MS || this.#listed.length !== number) await this.#list();
  }

  #drawFigures(row) {
    const list = byId('channel-figures');
    if (!row) {
      const none = wrongName(this.#channel) || 'This channel does not exist. Its first client or event creates it.';
      return list.replaceChildren(element('p', { class: 'soft', text: none }));
    }
    const { history } = row;
    const figures = {
      clients: ['Clients', count(row.clients)],
      published: ['Published', `${count(row.published)} · ${rate(row.published_rate)}/s`],
      delivered: ['Delivered', `${count(row.delivered)} · ${rate(row.delivered_rate)}/s`],
      gaps: ['Gaps', count(row.gaps)],
      history: ['History', `${count(history.events)}\u00a0${history.events === 1 ? 'event' : 'events'} · ${bytes(history.bytes)}`],
      newest: ['Newest', history.newest ?? '–'],
    };
    if (list.firstElementChild?.tagName !== 'DIV')
      list.replaceChildren(
        ...Object.entries(figures).map(([name, [label]]) => element('div', { 'data-figure': name }, element('dt', { text: label }), element('dd'))),
      );
    Object.values(figures).forEach(([, value], i) => say(list.children[i].lastElementChild, value));
  }

  // ---- clients --------------------------------------------------------------------

  /// Shows the reason for no list. A client that was found since then stays.
  #unlist(why) {
    if (why !== undefined && why === this.#unlisted) return;
    this.#unlisted = why;
    this.#listed = [];
    this.#listed_at_ms = -Infinity;
    this.#drawRows([]);
    say(byId('clients-note'), why ?? '');
  }

  async #list() {
    const channel = this.#channel;
    this.#listed_at_ms = performance.now();
    try {
      const listed = await ask('GET', `${pathOf(channel)}/clients`);
      if (channel !== this.#channel) return;
      this.#listed = listed;
      this.#unlisted = undefined;
      this.#drawClients();
    } catch (wrong) {
      if (channel === this.#channel) say(byId('clients-note'), wrong.status === 404 ? '' : wrong.message);
    }
  }

  /// Shows the client with an id, however many clients there are.
  async #find(id) {
    const channel = this.#channel;
    if (!id || this.#unlisted === undefined) return;
    try {
      const client = await ask('GET', `${pathOf(channel)}/clients/${encodeURIComponent(id)}`);
      if (channel !== this.#channel) return;
      this.#drawRows([client]);
      say(byId('clients-note'), '');
    } catch (wrong) {
      if (channel === this.#channel) say(byId('clients-note'), wrong.message);
    }
  }

  #drawClients() {
    const wanted = byId('client-search').value.toLowerCase();
    const fits = (client) => `${client.id} ${JSON.stringify(client.metadata)}`.toLowerCase().includes(wanted);
    const found = this.#listed.filter(fits);
    this.#drawRows(found.slice(0, ROWS_MAX));
    const left = found.length - this.body.rows.length;
    const none = this.#listed.length && !found.length ? 'No client id or metadata contains this.' : '';
    say(byId('clients-note'), left > 0 ? `${count(left)} more are not shown. Search to find them.` : none);
  }

  #drawRows(clients) {
    byId('clients-there').hidden = clients.length === 0;
    keepRows(this.body, clients, {
      key: (client) => client.id,
      make: (client) => this.#row(client),
      update: (row, client) => {
        const seconds = (Date.now() - Date.parse(client.since)) / 1000;
        say(row.cells[3].firstElementChild, client.since ? duration(seconds) : '–');
        say(row.cells[4], count(client.behind));
      },
    });
  }

  #row({ id, metadata, address, since }) {
    const said = metadata === null ? '–' : JSON.stringify(metadata);
    const expand = ({ currentTarget: button }) => button.setAttribute('aria-expanded', button.getAttribute('aria-expanded') !== 'true');
    return element(
      'tr',
      {},
      element('th', { scope: 'row' }, element('button', { type: 'button', class: 'text', title: `Publish to ${id}`, onclick: () => this.#aimAt(id) }, element('bdi', { text: visible(id) }))),
      element('td', {}, element('button', { type: 'button', class: 'text', title: said, 'aria-expanded': 'false', onclick: expand }, element('bdi', { text: said }))),
      element('td', { text: address, title: address }),
      element('td', {}, element('time', { datetime: since ?? undefined, title: since ?? undefined })),
      element('td', { class: 'number' }),
      element('td', {}, element('button', { type: 'button', text: 'Disconnect…', 'aria-label': `Disconnect ${id}`, onclick: () => this.#disconnect(id) })),
    );
  }

  #aimAt(id) {
    this.#publish.aimAt(id);
    byId('publish-data').focus();
  }

  async #disconnect(id) {
    const channel = this.#channel;
    const text = 'This closes the connection. A browser reconnects after a few seconds, and receives the events that it missed if the history still has them.';
    if (!(await confirmed(`Disconnect ${visible(id)}?`, text, 'Disconnect'))) return;
    try {
      await ask('DELETE', `${pathOf(channel)}/clients/${encodeURIComponent(id)}`);
    } catch (wrong) {
      if (wrong.status !== 404) return say(byId('clients-note'), wrong.message);
    }
    this.#listed_at_ms = -Infinity;
    byId('clients-title').focus();
    this.onchange();
  }

  // ---- closing --------------------------------------------------------------------

  async #end(how) {
    const channel = this.#channel;
    const [title, text, yes] =
      how === 'finish'
        ? ['Finish', 'Clients receive the remaining events, then their streams end. Browsers do not reconnect.', 'Finish channel']
        : ['Close', 'This disconnects all clients and deletes the history. Browsers reconnect, which creates an empty channel.', 'Close channel'];
    if (!(await confirmed(`${title} ${visible(channel)}?`, text, yes))) return;
    const tell = (answer, error) => {
      if (channel !== this.#channel) return;
      say(byId('ending-answer'), answer);
      say(byId('ending-error'), error);
    };
    try {
      const { clients } = await ask('DELETE', `${pathOf(channel)}${how === 'finish' ? '?finish' : ''}`);
      tell(`${how === 'finish' ? 'Finished' : 'Closed'} with ${clientsText(clients)}.`, '');
    } catch (wrong) {
      tell('', wrong.message);
    }
    this.onchange();
  }
}
