// pushwheel.js: an EventSource with more functions. Usage: docs/client.md. The server
// serves this file without the lines that contain only a comment.
//
// Design. The stream is read with fetch() and an own parser, because EventSource hides
// heartbeats (which show that a connection is alive), statuses (401 is not 500) and events
// without a listener (a tab cannot know the listeners of other tabs). It also cannot send
// Authorization, or Last-Event-ID with its first request.
//
// Tabs of a site with the same URL wait for one Web Lock. The tab that holds it is the
// leader: it reads the stream and sends messages to the others over a BroadcastChannel.
// Each message contains the cursors before and after it. One rule keeps each event whole,
// once and in order, also if the leader changes, or a tab freezes, reloads or is late:
//
//   A tab whose cursor is `from` accepts the message. A tab whose cursor is `at` has it
//   already. Any other tab reads the stream itself, from its own cursor, until its cursor
//   is the leader's.
//
// A cursor is the last id of the stream, which an event or a heartbeat contained, or
// undefined before the first one. A tab without a cursor accepts the cursor of the leader.
//
// Messages: {from, at, state, type?, data?, channel?, status?, wait?}, from the leader.
// {hi: true} asks the leader for its cursor, and to reconnect immediately if it waits.
//
// Some proxies hold a stream back, or cut it. Then the reader polls: it requests the same
// events as JSON, and the server answers when there are any. Every minute it tries a stream.

const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 2;

// The maximum delay before a reconnection, whatever the server sends: an hour.
const WAIT_MAX_MS = 36e5;
// After a stream of this duration, also without an event, the next failure counts as the
// first one.
const GOOD_MS = 1e4;
// The time that a tab with another cursor waits for the leader before it reads itself.
const LEVEL_MS = 300;
// A shorter stream was cut. A stream that is tried has its first byte sooner.
const SHORT_MS = 1e3;
// The time of polling after which a stream is tried.
const POLL_MS = 6e4;
// The maximum seconds for which a poll waits.
const POLL_S = 20;

export class PushWheel extends EventTarget {
  onopen = null;
  onmessage = null;
  onerror = null;
  readyState = CONNECTING;

  /** @type {import("./pushwheel.d.ts").PushWheelOptions & {url: string}} */
  #options;
  #name;
  #at;
  #retry = 3000;
  #life = new AbortController();
  // Of a tab that shares a connection:
  #quit;
  #tabs;
  #free;
  #leads = false;
  #heard;
  #patience;
  // Of a tab that reads: the connection, and the function that ends a delay early.
  #line;
  #go;
  // The faults of streams: a silent one counts 3, a short one 2. From 6 on, this tab polls
  // until a moment; 0 if it does not.
  #faults = 0;
  #polls = 0;

  /** @param {import("./pushwheel.d.ts").PushWheelOptions} [options] */
  constructor(url, options = {}) {
    super();
    url = new Request(url).url;
    const { shared = !options.headers, watchdog = 45e3, delayMax = 60e3, storage = quietly(() => sessionStorage) } = options;
    this.#options = { ...options, shared, watchdog, delayMax, storage, url };
    const { withCredentials, onGap } = options;
    this.url = url;
    this.withCredentials = !!withCredentials;
    this.#name = ["pushwheel", shared, !!withCredentials, url].join(" ");
    this.#at = quietly(() => storage?.getItem(this.#name)) || undefined;
    for (const type of ["open", "message", "error"])
      this.addEventListener(type, (event) => this["on" + type]?.(event));
    /** @param {any} event */
    const tell = (event) => onGap?.(JSON.parse(event.data), event);
    this.addEventListener("pushwheel.gap", tell);

    const leave = () => this.#leave();
    const join = () => this.#join();
    const hurry = ({ type }) => {
      if (type !== "online" && document.hidden) return;
      this.#go?.();
      this.#tabs?.postMessage({ hi: true });
    };
    const doings = { pagehide: leave, freeze: leave, pageshow: join, resume: join, online: hurry, visibilitychange: hurry };
    // Captured, because not all of them bubble to the window.
    for (const type in doings)
      globalThis.addEventListener?.(type, doings[type], { capture: true, signal: this.#life.signal });
    join();
  }

  get lastEventId() {
    return this.#at ?? "";
  }

  close() {
    this.#shut();
  }

  // ---- sharing ----

  #join() {
    if (this.#quit) return;
    const { signal } = (this.#quit = new AbortController());
    const lead = (free) => {
      if (signal.aborted) return free?.();
      this.#free = free;
      this.#leads = true;
      this.#tell(this.readyState);
      this.#read();
      this.#go?.();
    };
    if (!this.#options.shared || !globalThis.navigator?.locks || !globalThis.BroadcastChannel) return lead();
    this.#tabs = new BroadcastChannel(this.#name);
    this.#tabs.onmessage = ({ data }) => this.#hear(data);
    this.#tabs.postMessage({ hi: true });
    this.#listen();
    // Without permission to lock, this tab reads alone.
    navigator.locks.request(this.#name, { signal }, () => new Promise(lead)).catch(() => lead());
  }

  #leave() {
    this.#halt();
    clearTimeout(this.#patience);
    this.#tabs?.close();
    this.#quit?.abort();
    this.#free?.();
    this.#quit = this.#tabs = this.#free = this.#heard = undefined;
    this.#leads = false;
  }

  #shut(status) {
    this.#leave();
    this.#life.abort();
    quietly(() => this.#options.storage?.removeItem(this.#name));
    this.#become(CLOSED, status);
  }

  // Handles a message.
  #hear(message) {
    const { hi, from, at, state, status, wait } = message;
    if (hi && this.#leads) {
      this.#tell(this.readyState);
      this.#go?.();
    }
    if (hi || this.#leads) return;
    if (state === CLOSED) return this.#shut(status);
    this.#heard = message;
    this.#listen(wait);
    // A tab without a cursor begins here, unless its URL requests history.
    if (this.#at === undefined && !/[?&]last(_event_id|EventId)?=/.test(this.url)) this.#at = from;
    if (this.#at !== from && this.#at !== at) return this.#read(LEVEL_MS * Math.random());
    this.#halt();
    const takes = this.#at === from;
    this.#become(state, status);
    if (takes) this.#take(message);
  }

  // A leader that is silent for longer hangs. Then this tab reads itself.
  #listen(wait = 0) {
    const { watchdog } = this.#options;
    clearTimeout(this.#patience);
    if (watchdog)
      this.#patience = setTimeout(() => {
        this.#heard = undefined;
        this.#read();
      }, 2 * watchdog + wait);
  }

  // Applies a state to this tab and, if it leads, to the others.
  #tell(state, status, wait) {
    this.#say({ from: this.#at, at: this.#at, state, status, wait });
    this.#become(state, status);
  }

  #say(message) {
    if (this.#leads) this.#tabs?.postMessage(message);
  }

  #become(state, status) {
    const was = this.readyState;
    if (was === CLOSED) return;
    this.readyState = state;
    if (state === OPEN && was !== OPEN) this.dispatchEvent(new Event("open"));
    if (status !== undefined || state < was) this.dispatchEvent(Object.assign(new Event("error"), { status }));
  }

  #take({ at, type, data, channel }) {
    if (this.readyState === CLOSED) return;
    if (at !== this.#at) {
      this.#at = at;
      quietly(() => this.#options.storage?.setItem(this.#name, at));
    }
    if (!type) return;
    const { lastEventId, url } = this;
    const event = new MessageEvent(type, { data, lastEventId, origin: new URL(url).origin });
    this.dispatchEvent(Object.assign(event, { channel }));
  }

  // ---- reading ----

  #halt() {
    const line = this.#line;
    this.#line = undefined;
    line?.abort();
  }

  // Reads, one connection after another, until #halt().
  async #read(wait = 0) {
    if (this.#line) return;
    for (let line, fails = 0; line === this.#line; ) {
      line = this.#line = new AbortController();
      if (wait) await new Promise((go) => setTimeout((this.#go = go), wait));
      if (line !== this.#line) return;
      const at = this.#at;
      const { status, after, lived, again } = await this.#connect(line);
      line.abort();
      if (line !== this.#line) return;
      if (status === 204) return this.#end(status);
      // A stream that has brought something has not failed.
      if (again || lived > GOOD_MS || at !== this.#at) fails = 0;
      if (again) {
        wait = 0;
        continue;
      }
      const { delayMax, onReauth } = this.#options;
      wait = Math.max(after, this.#retry, Math.min(delayMax, this.#retry * 2 ** fails));
      // A poll that was cut may have been answered.
      if (this.#polls && !fails) wait = after || 400;
      wait = Math.min(WAIT_MAX_MS, wait) * (1 + Math.random());
      this.#tell(CONNECTING, status, wait);
      if (onReauth && line === this.#line && (status === 401 || status === 403)) {
        try {
          const given = await onReauth(status);
          if (line !== this.#line) return;
          if (given === false) return this.#end(status);
          Object.assign(this.#options, typeof given === "string" ? { url: given } : given);
          if (!fails) wait = 0;
        } catch {}
      }
      fails++;
    }
  }

  #end(status) {
    this.#say({ state: CLOSED, status });
    this.#shut(status);
  }

  // Reads one connection to its end and returns {status, after, lived, again}. The status is
  // 0 without a response, and 401 after an event `pushwheel.reauth`. `again`: the next one
  // follows immediately.
  async #connect(line) {
    const { url, headers, withCredentials, watchdog } = this.#options;
    const began = performance.now();
    const polls = began < this.#polls;
    // The first poll is answered immediately.
    const wait = polls && this.readyState ? Math.min(POLL_S, Math.ceil(watchdog / 1e3) || POLL_S) : 0;
    let status = 0;
    let after = 0;
    let opened = Infinity;
    let silent = true;
    let again = false;
    let dog;
    const feed = (time = watchdog) => {
      clearTimeout(dog);
      if (time) dog = setTimeout(() => line.abort(), time);
    };
    const pass = (at, type, data, channel) => line.signal.aborted || this.#pass(at, type, data, channel);
    try {
      feed(polls ? watchdog && watchdog + wait * 1e3 : this.#polls ? SHORT_MS : watchdog);
      // `cursor` makes the stream begin with an id, to resume before the first event.
      const answer = await fetch(url + (url.includes("?") ? "&" : "?") + (polls ? "wait=" + wait : "cursor"), {
        headers: { Accept: polls ? "application/json" : "text/event-stream", ...headers, ...(this.#at && { "Last-Event-ID": bytes(this.#at) }) },
        credentials: withCredentials ? "include" : "same-origin",
        cache: "no-store",
        signal: line.signal,
      });
      status = answer.status;
      after = +answer.headers.get("Retry-After") * 1e3 || 0;
      const type = answer.headers.get("Content-Type");
      if (status === 200 && polls) {
        // Another server may not answer so.
        if (!/json/.test(type)) this.#faults = this.#polls = 0;
        const { events, gap, newest, finished } = await answer.json();
        const at = this.#at;
        this.#tell(OPEN);
        if (gap) pass(at, "pushwheel.gap", JSON.stringify(gap));
        for (const { id, event = "message", data, channel } of events) pass(id, event, data, channel);
        pass(newest);
        if (finished) status = 204;
        // A proxy that answers by itself does not wait.
        again = !wait || at !== this.#at || performance.now() - began > SHORT_MS;
      } else if (status === 200 && /^text\/event-stream *(;|$)/i.test(type)) {
        opened = performance.now();
        this.#tell(OPEN);
        const parse = parser(
          this.#at,
          (at, type, data, channel) => {
            pass(at, type, data, channel);
            if (type === "pushwheel.reauth") {
              status = 401;
              line.abort();
            }
          },
          (retry) => (this.#retry = Math.max(100, retry)),
        );
        const reader = answer.body.getReader();
        const decoder = new TextDecoder();
        for (let read; !(read = await reader.read()).done; ) {
          feed();
          silent = false;
          this.#polls = 0;
          const at = this.#at;
          parse(decoder.decode(read.value, { stream: true }));
          // Forwards heartbeats to the other tabs.
          if (at === this.#at && !line.signal.aborted) this.#tell(OPEN);
        }
      }
    } catch {}
    clearTimeout(dog);
    const now = performance.now();
    const lived = now - opened;
    if (lived > GOOD_MS && !silent) this.#faults = 0;
    else if (!polls && line === this.#line) this.#faults += silent && line.signal.aborted ? 3 : status === 200 && lived < SHORT_MS ? 2 : 0;
    if (this.#faults > 5) {
      // After the next stream, one fault is enough.
      this.#faults = 4;
      this.#polls = now + POLL_MS;
      again = true;
    }
    return { status, after, lived, again };
  }

  // Handles a block of the stream.
  #pass(at, type, data, channel) {
    if (type ?? at !== this.#at) {
      const message = { from: this.#at, at, state: OPEN, type, data, channel };
      this.#say(message);
      this.#take(message);
    }
    if (this.#leads || this.#heard?.at !== this.#at) return;
    this.#halt();
    this.#become(this.#heard.state);
  }
}

Object.assign(PushWheel.prototype, Object.assign(PushWheel, { CONNECTING, OPEN, CLOSED }));

// Parses a stream by section 9.2.6 of the HTML standard, in pieces of any size. Calls
// take(id, type, data, channel) for each complete block; without data, type and data are
// undefined.
// `at` is the id before the first block.
export function parser(at, take, retry) {
  let rest = "";
  let type = "";
  let data;
  let channel;
  let hadCr;
  return (text) => {
    if (!text) return;
    // Skips the second half of a CRLF.
    const lines = text.slice(hadCr && text[0] === "\n" ? 1 : 0).split(/\r\n?|\n/);
    hadCr = text.endsWith("\r");
    lines[0] = rest + lines[0];
    rest = lines.pop();
    for (const line of lines) {
      const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (!line) {
        take(at, data === undefined ? undefined : type || "message", data, channel);
        type = "";
        data = channel = undefined;
      } else if (name === "data") data = data === undefined ? value : data + "\n" + value;
      else if (name === "event") type = value;
      else if (name === "channel") channel = value;
      else if (name === "id" && !value.includes("\0")) at = value;
      else if (name === "retry" && /^\d+$/.test(value)) retry(+value);
    }
  };
}

// Encodes an id as the UTF-8 bytes of a header value.
const bytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

// Storage may be forbidden or full.
function quietly(does) {
  try {
    return does();
  } catch {}
}
