// The table of channels: searched and sorted, at most ROWS_MAX of them drawn.
//
// The server selects them, so that a request costs the same with a hundred channels and
// with a hundred thousand. It has no rates: to sort by a rate, the page requests more
// channels than it draws, in the order of the counter.

import { brief, byId, bytes, count, element, keepRows, rate, say, visible, wrongName } from './parts.js';
import { Counters } from './rates.js';
import { hasKey } from './server.js';

/// The end of a longer name stays visible when the name is cut.
const NAME_WHOLE_MAX = 16;
const NAME_END = 7;
const ROWS_MAX = 200;
const RATED_MAX = 500;
/// `room.2` sorts before `room.10`.
const NAMES = new Intl.Collator('en', { numeric: true });

/// `by` is the server's name for the order; `value` what the page sorts by.
const COLUMNS = {
  name: { label: 'Name', by: 'name' },
  clients: { label: 'Clients', by: 'clients', value: (row) => row.clients, show: (row) => brief(row.clients) },
  published: { label: 'Published', unit: '/s', by: 'published', isRate: true, value: (row) => row.published_rate ?? 0, show: (row) => rate(row.published_rate) },
  delivered: { label: 'Delivered', unit: '/s', by: 'delivered', isRate: true, value: (row) => row.delivered_rate ?? 0, show: (row) => rate(row.delivered_rate) },
  gaps: { label: 'Gaps', by: 'gaps', value: (row) => row.gaps, show: (row) => brief(row.gaps) },
  history: { label: 'History', by: 'bytes', value: (row) => row.history.bytes, show: (row) => bytes(row.history.bytes) },
};

export class Channels {
  #sorted = 'clients';
  #counters = new Map();
  #selected;

  /// `onsearch` is called when the search or the order changes, `onopen` with the name of
  /// a channel to show.
  constructor({ onsearch, onopen }) {
    this.search = byId('search');
    this.body = byId('channel-table').tBodies[0];
    this.onsearch = onsearch;
    byId('channel-table').tHead.rows[0].append(...Object.entries(COLUMNS).map(([name, column]) => this.#header(name, column)));
    this.search.addEventListener('input', () => {
      say(byId('open-error'), '');
      onsearch();
    });
    byId('open-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const name = this.search.value;
      const wrong = wrongName(name);
      say(byId('open-error'), wrong);
      if (wrong) return this.search.focus();
      this.search.value = '';
      onopen(name);
      onsearch();
    });
    this.#tellOrder();
  }

  #header(name, column) {
    const button = element('button', { type: 'button', text: column.label, onclick: () => this.#sortBy(name) });
    if (column.unit) button.append(element('small', { text: column.unit }));
    return element('th', { scope: 'col', 'data-column': name, class: column.value ? 'number' : undefined }, button);
  }

  #sortBy(name) {
    this.#sorted = name;
    this.#tellOrder();
    this.onsearch();
  }

  #tellOrder() {
    for (const header of byId('channel-table').tHead.rows[0].cells) {
      const isSorted = header.dataset.column === this.#sorted;
      const order = COLUMNS[header.dataset.column].value ? 'descending' : 'ascending';
      if (isSorted) header.setAttribute('aria-sort', order);
      else header.removeAttribute('aria-sort');
    }
  }

  /// Returns the query for the statistics.
  query(channel) {
    const { by, isRate } = COLUMNS[this.#sorted];
    const query = new URLSearchParams({ by, top: isRate ? RATED_MAX : ROWS_MAX });
    if (this.search.value) query.set('search', this.search.value);
    if (channel !== undefined) query.set('channel', channel);
    return query;
  }

  /// Draws the statistics, and returns the rows by name.
  take(stats, at_ms) {
    const rows = new Map();
    const before = this.#counters;
    this.#counters = new Map();
    for (const row of stats.channel_stats) {
      const { name, published, delivered } = row;
      const counters = before.get(name) ?? new Counters();
      counters.add({ at_ms, published, delivered });
      this.#counters.set(name, counters);
      const rates = { published_rate: counters.perSecond('published'), delivered_rate: counters.perSecond('delivered') };
      rows.set(name, { ...row, ...rates });
    }
    this.#draw(stats, [...rows.values()]);
    return rows;
  }

  forget() {
    this.#counters = new Map();
    this.body.replaceChildren();
  }

  select(channel) {
    this.#selected = channel;
    for (const row of this.body.rows) tellSelected(row, channel);
  }

  #draw(stats, rows) {
    const wanted = this.search.value.toLowerCase();
    const { value } = COLUMNS[this.#sorted];
    const fitting = rows.filter((row) => row.name.toLowerCase().includes(wanted));
    fitting.sort((a, b) => (value ? value(b) - value(a) : 0) || NAMES.compare(a.name, b.name));
    const drawn = fitting.slice(0, ROWS_MAX);
    keepRows(this.body, drawn, { key: (row) => row.name, make: (row) => this.#row(row), update });
    this.#tellHowMany(stats, drawn.length);
  }

  #row({ name }) {
    const link = element('a', { href: hashOf(name), title: name }, ...halves(visible(name)).map((text) => element('bdi', { text })));
    const cells = Object.values(COLUMNS).slice(1).map(() => element('td', { class: 'number' }));
    const row = element('tr', {}, element('th', { scope: 'row' }, link), ...cells);
    row.dataset.key = name;
    tellSelected(row, this.#selected);
    return row;
  }

  #tellHowMany(stats, drawn) {
    const isSearch = this.search.value !== '';
    say(byId('found'), isSearch ? `${count(stats.found)} of ${count(stats.channels)}` : count(stats.channels));
    const left = Math.max(0, stats.found - drawn);
    const fix = isSearch ? 'Refine the search' : 'Search to find them';
    say(byId('not-shown'), left > 0 ? `${count(left)} more are not shown. ${fix}.` : '');
    byId('channels-there').hidden = drawn === 0;
    byId('channels-none').hidden = drawn > 0;
    byId('none-command').hidden = isSearch;
    const none = wrongName(this.search.value)
      ? 'No channel name contains this.'
      : 'No channel name contains this. Open it: its first client or event creates it.';
    say(byId('none-text'), isSearch ? none : 'No channels yet. The first subscriber or event creates one. Open one here, or run:');
    const key = hasKey() ? ' -H "Authorization: Bearer $PUSHWHEEL_ADMIN_KEY"' : '';
    say(byId('none-command'), `curl${key} -d 'It works' ${new URL('channels/news', document.baseURI)}`);
  }
}

function update(row, figures) {
  Object.values(COLUMNS)
    .slice(1)
    .forEach((column, i) => say(row.cells[i + 1], column.show(figures)));
}

/// Returns the name in two parts. Text from right to left or with joined characters stays
/// in one part.
function halves(name) {
  if (name.length <= NAME_WHOLE_MAX || !/^[ -~]*$/.test(name)) return [name];
  return [name.slice(0, -NAME_END), name.slice(-NAME_END)];
}

function tellSelected(row, channel) {
  const link = row.cells[0].firstElementChild;
  if (row.dataset.key === channel) link.setAttribute('aria-current', 'true');
  else link.removeAttribute('aria-current');
}

export const hashOf = (channel) => `#${encodeURIComponent(channel)}`;
