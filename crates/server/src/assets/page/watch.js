// The events of a channel: the last ones of its history at once, and on request its live
// stream, which continues there. It reconnects after each break and resumes, like an
// EventSource.

import { byId, count, element, indented, say, visible } from './parts.js';
import { ask, pathOf, readStream } from './server.js';

/// The number of events that are shown at once.
const LAST = 10;

/// The maximum number of events on the page.
const EVENTS_MAX = 500;
/// The maximum length of an event's data on the page, in characters.
const DATA_SHOWN_MAX = 20_000;
const RETRY_MS = 1000;
const RETRY_MS_MAX = 15_000;

const GAPS = {
  evicted: 'the history no longer has them',
  lost: 'the machine of the server died before they were on its disk',
  restart: 'the server restarted',
  unknown: 'the server does not know the last id',
  slow: 'this page was too slow',
  audience: 'some were for the client id that this page had before',
};

const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });

export class Watch {
  #channel;
  #isLoaded = false; // whether the last events were requested
  #shownId; // after which a stream continues the events that are shown
  #stop;
  #lastEventId;
  #retry_ms;
  #failures;
  #waiting = [];
  #skipped = 0;
  #seen = 0;
  #isPaused = false;
  #frame = 0;

  constructor() {
    this.list = byId('events');
    byId('watch-from').addEventListener('change', () => (byId('watch-last').hidden = byId('watch-from').value !== 'last'));
    byId('watch-form').addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.#stop) this.#end('closed');
      else this.#start();
    });
    byId('watch-pause').addEventListener('click', () => this.#pause(!this.#isPaused));
    byId('watch-clear').addEventListener('click', () => this.#clear());
  }

  /// Shows another channel, or none.
  show(channel) {
    this.#end('closed');
    this.#channel = channel;
    this.#isLoaded = false;
    this.#clear();
    say(byId('watch-error'), '');
    this.list.hidden = true;
  }

  /// Shows the last events, once for each channel. The page does not become a client of the
  /// channel by that.
  async showLast() {
    if (this.#isLoaded || this.#stop || this.#seen) return;
    this.#isLoaded = true;
    const channel = this.#channel;
    try {
      const { events, newest } = await ask('GET', `${pathOf(channel)}?last=${LAST}`);
      if (channel !== this.#channel || this.#stop || this.#seen || !events.length) return;
      this.list.hidden = false;
      this.list.append(...events.map(({ id, at_ms, event, data }) => lineOf({ id, name: event ?? 'message', data, at: new Date(at_ms) })));
      this.list.scrollTop = this.list.scrollHeight;
      this.#shownId = newest;
      byId('watch-clear').disabled = false;
      say(byId('watch-note'), `The last ${events.length === 1 ? 'event' : `${events.length} events`} of the history. Watch to see new ones.`);
    } catch (wrong) {
      if (channel === this.#channel && wrong.status !== 404) say(byId('watch-error'), wrong.message);
    }
  }

  // ---- the stream ---------------------------------------------------------------

  #start() {
    // The stream continues after the events that are shown, unless another start is chosen.
    const after = byId('watch-from').value === 'live' ? this.#shownId : undefined;
    if (after === undefined) this.#clear();
    this.#pause(false);
    say(byId('watch-error'), '');
    this.list.hidden = false;
    this.#lastEventId = after;
    this.#shownId = undefined;
    this.#retry_ms = RETRY_MS;
    this.#failures = 0;
    this.#stop = new AbortController();
    this.#read(this.#stop.signal);
  }

  /// Reads until it is stopped, or the server has nothing more to send.
  async #read(signal) {
    while (!signal.aborted) {
      this.#tell('connecting');
      try {
        const hasMore = await readStream(this.#path(), {
          signal,
          onopen: () => this.#opened(),
          onevent: (event) => signal.aborted || this.#arrived(event),
          onretry: (ms) => (this.#retry_ms = ms),
        });
        if (!hasMore && !signal.aborted) return this.#end('finished');
      } catch (wrong) {
        if (signal.aborted) return;
        // A broken stream has no status.
        if (wrong.status !== undefined) say(byId('watch-error'), wrong.message);
        if (wrong.status >= 400 && wrong.status < 500 && wrong.status !== 429) return this.#end('closed');
        this.#failures++;
      }
      this.#tell('connecting');
      await pause(Math.min(this.#retry_ms * 2 ** this.#failures, Math.max(RETRY_MS_MAX, this.#retry_ms)), signal);
    }
  }

  #path() {
    const from = byId('watch-from').value;
    const query = new URLSearchParams();
    // In the query, because a header cannot have every id.
    if (this.#lastEventId) query.set('last_event_id', this.#lastEventId);
    else if (from === 'last') query.set('last', byId('watch-last').value);
    else if (from === 'earliest') query.set('last_event_id', 'earliest');
    return `${pathOf(this.#channel)}${query.size ? `?${query}` : ''}`;
  }

  #opened() {
    this.#failures = 0;
    say(byId('watch-error'), '');
    this.#tell('open');
  }

  #end(state) {
    this.#stop?.abort();
    this.#stop = undefined;
    this.#tell(state);
  }

  #tell(state) {
    const pill = byId('watch-state');
    pill.dataset.state = state;
    say(pill, state);
    const isOn = this.#stop !== undefined;
    say(byId('watch-start'), isOn ? 'Stop' : 'Watch');
    byId('watch-start').classList.toggle('main', !isOn);
    byId('watch-pause').disabled = !isOn;
    byId('watch-from').disabled = byId('watch-last').disabled = isOn;
  }

  // ---- events ---------------------------------------------------------------------

  #arrived({ name, data, id }) {
    if (id !== undefined) this.#lastEventId = id;
    if (data === undefined) return;
    this.#seen++;
    this.#waiting.push({ name, data, id, at: new Date() });
    if (this.#waiting.length > EVENTS_MAX) {
      this.#waiting.shift();
      this.#skipped++;
    }
    // Events are drawn at most once per frame.
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#isPaused ? this.#tellCount() : this.#draw();
    });
  }

  #draw() {
    const { list } = this;
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(...this.#waiting.map(lineOf));
    this.#waiting = [];
    while (list.childElementCount > EVENTS_MAX) {
      list.firstElementChild.remove();
      this.#skipped++;
    }
    if (isAtEnd) list.scrollTop = list.scrollHeight;
    byId('watch-clear').disabled = list.childElementCount === 0;
    this.#tellCount();
  }

  #tellCount() {
    const seen = `${count(this.#seen)} ${this.#seen === 1 ? 'event' : 'events'}`;
    const dropped = this.#skipped ? `, the first ${count(this.#skipped)} are no longer shown` : '';
    const waiting = this.#isPaused ? `; paused, ${count(this.#waiting.length)} not shown yet` : '';
    say(byId('watch-note'), this.#seen || this.#isPaused ? seen + dropped + waiting : '');
  }

  #pause(isPaused) {
    this.#isPaused = isPaused;
    byId('watch-pause').setAttribute('aria-pressed', isPaused);
    isPaused ? this.#tellCount() : this.#draw();
  }

  #clear() {
    this.#waiting = [];
    this.#seen = this.#skipped = 0;
    this.#shownId = undefined;
    this.list.replaceChildren();
    byId('watch-clear').disabled = true;
    this.#tellCount();
  }
}

function lineOf({ name, data, id, at }) {
  const isGap = name === 'pushwheel.gap';
  const isOurs = name.startsWith('pushwheel.');
  const time = element('time', { datetime: at.toISOString(), title: at.toISOString(), text: clock.format(at) });
  const line = element('li', { class: isOurs ? 'own' : undefined }, time, element('b', {}, element('bdi', { text: visible(name) })));
  if (id) line.append(element('code', { class: 'id', text: id }));
  if (isGap) line.append(element('p', { text: gapOf(data) }));
  line.append(element('pre', { text: shown(data) }));
  return line;
}

function shown(data) {
  if (data.length <= DATA_SHOWN_MAX) return indented(data) ?? data;
  return `${data.slice(0, DATA_SHOWN_MAX)}… ${count(data.length - DATA_SHOWN_MAX)} more characters`;
}

function gapOf(data) {
  try {
    const { reason } = JSON.parse(data);
    return `Events are missing here: ${Object.hasOwn(GAPS, reason) ? GAPS[reason] : reason}.`;
  } catch {
    return 'Events are missing here.';
  }
}

/// Waits, or returns early when it is stopped.
function pause(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', () => (clearTimeout(timer), done()), { once: true });
  });
}
