// The server itself: its process, its connections, its delivery latency, and why streams
// ended and requests were rejected.

import { brief, byId, bytes, count, element, say, share, time } from './parts.js';
import { Counters } from './rates.js';

/// The latency is that of the deliveries of so long.
const LATENCY_MS = 60_000;

/// Each fact: its name, its text, and what it means.
const FACTS = [
  { name: 'Memory', show: ({ server }) => known(server.process.memory_bytes, bytes), title: 'Resident memory of the process' },
  { name: 'Processor', show: ({ server, rates }) => known(server.process.cpu_seconds && rates.perSecond('cpu'), share), title: 'Use of one core by the process; 100 % is one whole core' },
  { name: 'Event loop', show: ({ rates }) => known(rates.perSecond('loop'), share), title: 'Share of the time in which the event loops were busy; 100 % is one whole core' },
  { name: 'Descriptors', show: ({ server }) => descriptors(server.process), title: 'Open file descriptors, and their maximum' },
  { name: 'Connections', show: ({ totals }) => count(totals.connections), title: 'Open connections: streams and others' },
  { name: 'Refused', show: ({ server }) => count(server.connections_refused), title: 'Connections that found no room since the start' },
  { name: 'Behind', show: ({ totals }) => count(totals.behind), title: 'Clients that have not received all of their events yet' },
  { name: 'Delivery p50', show: ({ latency }) => latency(0.5), title: 'Half of the deliveries of the last minute took at most this long' },
  { name: 'Delivery p99', show: ({ latency }) => latency(0.99), title: '99 % of the deliveries of the last minute took at most this long' },
];

const known = (value, show) => (value === undefined || value === null ? '–' : show(value));

function descriptors({ descriptors, descriptors_max }) {
  if (descriptors === null) return '–';
  return descriptors_max === null ? count(descriptors) : `${count(descriptors)} of ${brief(descriptors_max)}`;
}

export class ServerPanel {
  #rates = new Counters();
  #latencies = [];

  constructor() {
    const facts = FACTS.map(({ name, title }) =>
      element('div', { title, 'data-fact': name.toLowerCase().replaceAll(' ', '-') }, element('dt', { text: name }), element('dd', { text: '–' })));
    byId('server-facts').append(...facts);
  }

  /// Shows a poll: `totals` and `server` of the statistics.
  take({ totals, server }, at_ms) {
    this.#rates.add({ at_ms, cpu: server.process.cpu_seconds ?? 0, loop: server.loop_seconds });
    this.#addLatency(server.delivery_latency, at_ms);
    const shown = { totals, server, rates: this.#rates, latency: (part) => this.#latency(part) };
    FACTS.forEach((fact, i) => say(byId('server-facts').children[i].lastElementChild, fact.show(shown)));
    tell('ended', server.streams_ended);
    tell('rejections', server.rejections);
  }

  /// Begins again after a pause, for which there is no rate.
  rest() {
    this.#rates = new Counters();
    this.#latencies = [];
  }

  /// Starts again, for other rights.
  forget() {
    this.rest();
    for (const fact of byId('server-facts').children) say(fact.lastElementChild, '–');
    for (const place of ['ended', 'rejections']) tell(place, {});
  }

  #addLatency({ count, buckets }, at_ms) {
    const looks = this.#latencies;
    if (looks.length && count < looks.at(-1).count) looks.length = 0; // the server has restarted
    looks.push({ at_ms, count, buckets });
    while (looks.length > 2 && looks[1].at_ms <= at_ms - LATENCY_MS) looks.shift();
  }

  /// Returns the bound of the bucket that has this quantile.
  #latency(part) {
    const [first, last] = [this.#latencies[0], this.#latencies.at(-1)];
    const before = new Map(first.buckets.map((bucket) => [bucket.seconds_max, bucket.count]));
    let left = part * (last.count - first.count);
    if (left === 0) return '–';
    for (const { seconds_max, count } of last.buckets) {
      left -= count - (before.get(seconds_max) ?? 0);
      if (left <= 0) return seconds_max === null ? 'over 8 s' : `≤ ${time(seconds_max)}`;
    }
    return '–';
  }
}

/// Shows counts by name, the largest first.
function tell(place, counts) {
  const entries = Object.entries(counts).filter(([, number]) => number > 0);
  entries.sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const items = entries.map(([name, number]) => element('li', {}, element('code', { text: name }), ` ${count(number)}`));
  const list = byId(place);
  const shown = items.map((item) => item.textContent).join();
  if (list.dataset.shown === shown) return;
  list.dataset.shown = shown;
  list.replaceChildren(...(items.length ? items : [element('li', { text: 'none' })]));
}
