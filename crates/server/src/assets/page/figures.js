// The totals, each with a plot of the last minutes. Rates are differences of the server's
// counters between two polls.

import { brief, byId, bytes, element, rate, say } from './parts.js';

const WINDOW_MS = 180_000;
const WIDTH = 200;
const HEIGHT = 36;

/// Each metric: its name, its value from one or two polls, and its format.
const FIGURES = [
  { name: 'Clients', read: (now) => now.clients, show: brief },
  { name: 'Channels', read: (now) => now.channels, show: brief },
  { name: 'Published', unit: '/s', read: (now, before) => perSecond('published', now, before), show: rate },
  { name: 'Delivered', unit: '/s', read: (now, before) => perSecond('delivered', now, before), show: rate },
  {
    name: 'Gaps',
    read: (now) => now.gaps,
    show: brief,
    plot: (now, before) => perSecond('gaps', now, before),
    title: 'Gap events sent to clients; the plot shows them per second',
  },
  { name: 'History', read: (now) => now.bytes, show: bytes, title: 'Size of the kept events' },
];

/// Returns the rate of a counter between two polls. A counter can decrease: removed
/// channels no longer count.
export function perSecond(counter, now, before) {
  if (!before || now.at_ms <= before.at_ms) return undefined;
  return Math.max(0, ((now[counter] - before[counter]) * 1000) / (now.at_ms - before.at_ms));
}

export class Figures {
  #tiles = FIGURES.map((figure) => new Tile(figure));
  #before;

  constructor() {
    byId('tiles').append(...this.#tiles.map((tile) => tile.item));
  }

  /// Adds a poll: `{at_ms, clients, channels, published, delivered, gaps, bytes}`.
  take(look) {
    for (const tile of this.#tiles) tile.take(look, this.#before);
    this.#before = look;
  }

  /// Starts again, for other rights.
  forget() {
    this.#before = undefined;
    for (const tile of this.#tiles) tile.points = [];
  }

  /// Interrupts the plots: after a pause there is no rate.
  rest() {
    this.#before = undefined;
    for (const tile of this.#tiles) tile.points.push({ at_ms: performance.now(), value: undefined });
  }
}

class Tile {
  points = [];

  constructor(figure) {
    this.figure = figure;
    this.value = element('b', { text: '–' });
    this.peak = element('span', { class: 'peak' });
    this.line = drawn('path', { class: 'line' });
    this.area = drawn('path', { class: 'area' });
    const plot = drawn('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    plot.append(this.area, this.line);
    const unit = figure.unit ? [element('small', { text: figure.unit })] : [];
    this.item = element(
      'li',
      { class: 'card tile', title: figure.title, 'data-figure': figure.name.toLowerCase() },
      element('span', { class: 'name', text: figure.name }),
      element('span', { class: 'value' }, this.value, ...unit),
      this.peak,
      plot,
    );
  }

  take(look, before) {
    const { read, show, plot = read } = this.figure;
    const value = read(look, before);
    say(this.value, value === undefined ? '–' : show(value));
    this.points.push({ at_ms: look.at_ms, value: plot(look, before) });
    this.points = this.points.filter((point) => point.at_ms >= look.at_ms - WINDOW_MS);
    this.#draw(look.at_ms);
  }

  #draw(now_ms) {
    const known = this.points.filter((point) => point.value !== undefined);
    const top = Math.max(...known.map((point) => point.value), 0);
    const show = this.figure.plot ? rate : this.figure.show;
    say(this.peak, known.length > 1 && top > 0 ? `max ${show(top)}${this.figure.plot ? '/s' : ''}` : '');
    this.item.dataset.points = known.length;
    const x = (at_ms) => (WIDTH * (1 - (now_ms - at_ms) / WINDOW_MS)).toFixed(1);
    const y = (value) => (HEIGHT - 1.5 - (HEIGHT - 4) * (top && value / top)).toFixed(1);
    let line = '';
    let area = '';
    for (const run of unbroken(this.points)) {
      const points = run.map((point) => `${x(point.at_ms)} ${y(point.value)}`).join('L');
      line += `M${points}`;
      area += `M${x(run[0].at_ms)} ${HEIGHT}L${points}L${x(run.at(-1).at_ms)} ${HEIGHT}Z`;
    }
    this.line.setAttribute('d', line);
    this.area.setAttribute('d', area);
  }
}

/// Returns the stretches of known points; gaps between them are not drawn.
function unbroken(points) {
  const runs = [[]];
  for (const point of points) {
    if (point.value !== undefined) runs.at(-1).push(point);
    else if (runs.at(-1).length) runs.push([]);
  }
  return runs.filter((run) => run.length);
}

function drawn(tag, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
