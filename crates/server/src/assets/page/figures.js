// The totals, each with a plot of the last minutes.

import { brief, byId, bytes, duration, element, rate, say } from './parts.js';
import { Counters } from './rates.js';

/// A plot shows so long, or what is known so far, in its whole width.
const WINDOW_MS = 180_000;
const WIDTH = 200;
const HEIGHT = 36;
/// Where the lines of the axis are: its end, its half, and zero.
const END_Y = 2.5;
const ZERO_Y = HEIGHT - 1.5;
const LINES = [END_Y, (END_Y + ZERO_Y) / 2, ZERO_Y];

/// Each metric: its name, its value from a poll or from the rates, and its format.
const FIGURES = [
  { name: 'Clients', read: (now) => now.clients, show: brief },
  { name: 'Channels', read: (now) => now.channels, show: brief },
  { name: 'Published', unit: '/s', read: (now, rates) => rates.perSecond('published'), show: rate },
  { name: 'Delivered', unit: '/s', read: (now, rates) => rates.perSecond('delivered'), show: rate },
  {
    name: 'Gaps',
    read: (now) => now.gaps,
    show: brief,
    plot: (now, rates) => rates.perSecond('gaps'),
    title: 'Gap events sent to clients since the start of the server; the plot shows them per second',
  },
  { name: 'History', read: (now) => now.bytes, show: bytes, title: 'Size of the kept events' },
];

export class Figures {
  #tiles = FIGURES.map((figure) => new Tile(figure));
  #rates = new Counters();
  #begun_ms;

  constructor() {
    byId('tiles').append(...this.#tiles.map((tile) => tile.item));
  }

  /// Adds a poll: `{at_ms, clients, channels, published, delivered, gaps, bytes}`.
  take(look) {
    const { at_ms, published, delivered, gaps } = look;
    this.#begun_ms ??= at_ms;
    this.#rates.add({ at_ms, published, delivered, gaps });
    const span_ms = Math.min(WINDOW_MS, at_ms - this.#begun_ms);
    say(byId('figures-span'), span_ms < 1000 ? '' : `of the last ${span_ms < WINDOW_MS ? duration(span_ms / 1000) : '3 minutes'}`);
    for (const tile of this.#tiles) tile.take(look, this.#rates);
  }

  /// Starts again, for other rights.
  forget() {
    this.#begun_ms = undefined;
    this.#rates = new Counters();
    for (const tile of this.#tiles) tile.points = [];
  }

  /// Interrupts the plots: after a pause there is no rate.
  rest() {
    this.#rates = new Counters();
    for (const tile of this.#tiles) tile.points.push({ at_ms: performance.now(), value: undefined });
  }
}

class Tile {
  points = [];
  #begun_ms = 0;
  #now_ms = 0;
  #pointed; // where the pointer is, from 0 to 1

  constructor(figure) {
    this.figure = figure;
    this.value = element('b', { text: '–' });
    this.note = element('span', { class: 'peak' });
    this.line = drawn('path', { class: 'line' });
    this.area = drawn('path', { class: 'area' });
    this.mark = drawn('path', { class: 'mark' });
    this.axis = { end: element('span', { class: 'end' }), from: element('span', { class: 'from' }), now: element('span', { class: 'now' }) };
    const lines = drawn('path', { class: 'axis', d: LINES.map((y) => `M0 ${y}H${WIDTH}`).join('') });
    const plot = drawn('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    plot.append(lines, this.area, this.line, this.mark);
    const unit = figure.unit ? [element('small', { text: figure.unit })] : [];
    this.item = element(
      'li',
      { class: 'card tile', title: figure.title, 'data-figure': figure.name.toLowerCase() },
      element('span', { class: 'name', text: figure.name }),
      element('span', { class: 'value' }, this.value, ...unit),
      this.note,
      plot,
      element('span', { class: 'labels', 'aria-hidden': 'true' }, ...Object.values(this.axis)),
    );
    this.item.addEventListener('pointermove', (event) => {
      const box = plot.getBoundingClientRect();
      this.#pointed = (event.clientX - box.left) / box.width;
      this.#drawNote();
    });
    this.item.addEventListener('pointerleave', () => {
      this.#pointed = undefined;
      this.#drawNote();
    });
  }

  take(look, rates) {
    const { read, show, plot = read } = this.figure;
    const value = read(look, rates);
    say(this.value, value === undefined ? '–' : show(value));
    this.points.push({ at_ms: look.at_ms, value: plot(look, rates) });
    this.points = this.points.filter((point) => point.at_ms >= look.at_ms - WINDOW_MS);
    this.#now_ms = look.at_ms;
    this.#begun_ms = this.points.find((point) => point.value !== undefined)?.at_ms ?? look.at_ms;
    this.#draw();
    this.#drawNote();
  }

  #x(at_ms) {
    return ((WIDTH * (at_ms - this.#begun_ms)) / Math.max(1, this.#now_ms - this.#begun_ms)).toFixed(1);
  }

  #draw() {
    const end = endOfAxis(this.#top(), this.figure.show === bytes);
    this.item.dataset.points = this.points.filter((point) => point.value !== undefined).length;
    const y = (value) => (ZERO_Y - (ZERO_Y - END_Y) * (end && value / end)).toFixed(1);
    let line = '';
    let area = '';
    for (const run of unbroken(this.points)) {
      const points = run.map((point) => `${this.#x(point.at_ms)} ${y(point.value)}`).join('L');
      line += `M${points}`;
      area += `M${this.#x(run[0].at_ms)} ${HEIGHT}L${points}L${this.#x(run.at(-1).at_ms)} ${HEIGHT}Z`;
    }
    this.line.setAttribute('d', line);
    this.area.setAttribute('d', area);
    const seconds = Math.round((this.#now_ms - this.#begun_ms) / 1000);
    say(this.axis.end, end ? this.#text(end) : '');
    say(this.axis.from, seconds ? `\u2212${duration(seconds)}` : '');
    say(this.axis.now, seconds ? 'now' : '');
  }

  #top() {
    return Math.max(...this.points.map((point) => point.value ?? 0), 0);
  }

  #text(value) {
    return this.figure.plot ? `${rate(value)}/s` : this.figure.show(value) + (this.figure.unit ?? '');
  }

  /// Shows the value under the pointer, or else the largest one.
  #drawNote() {
    const point = this.#pointed === undefined ? undefined : this.#nearest(this.#begun_ms + this.#pointed * (this.#now_ms - this.#begun_ms));
    this.mark.setAttribute('d', point ? `M${this.#x(point.at_ms)} 0V${HEIGHT}` : '');
    if (point) return say(this.note, `${this.#text(point.value)} · ${ago(this.#now_ms - point.at_ms)}`);
    const top = this.#top();
    say(this.note, this.points.length > 1 && top > 0 ? `max ${this.#text(top)}` : '');
  }

  #nearest(at_ms) {
    const known = this.points.filter((point) => point.value !== undefined);
    const distance = (point) => Math.abs(point.at_ms - at_ms);
    return known.reduce((best, point) => (best && distance(best) <= distance(point) ? best : point), undefined);
  }
}

/// Returns the end of an axis for values up to `top`: a round number with at
/// most one decimal.
export function endOfAxis(top, isBytes = false) {
  if (top <= 0) return 0;
  const unit = isBytes ? 1024 ** Math.floor(Math.log2(top) / 10) : 1;
  const power = Math.max(0.1, 10 ** Math.floor(Math.log10(top / unit)));
  return unit * power * [1, 2, 3, 4, 5, 6, 8, 10].find((part) => part * power * unit >= top * (1 - 1e-9));
}

const ago = (ms) => (ms < 500 ? 'now' : `${duration(Math.round(ms / 1000))} ago`);

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
