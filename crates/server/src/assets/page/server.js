// What the page asks of its server. Addresses are relative, so that the page
// works behind a proxy that has it under a path.

const KEY = 'pushwheel.key';
const ANSWER_MS_MAX = 30_000;

// ---- the key ----------------------------------------------------------------------

/// Kept for this tab alone. Where a browser forbids even that, until a reload.
let key = stored((storage) => storage.getItem(KEY)) ?? '';

function stored(use) {
  try {
    return use(sessionStorage);
  } catch {
    return undefined;
  }
}

export const hasKey = () => key !== '';

export function setKey(text) {
  key = text;
  stored((storage) => (text ? storage.setItem(KEY, text) : storage.removeItem(KEY)));
}

/// What the holder of a key may do: `{manage, publish, has_admin_key}`.
export const rightsOf = (text) => ask('GET', '_page/rights', { as: text });

// ---- questions ---------------------------------------------------------------------

/// A refusal, with the server's own words; status 0: no answer came.
export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  get isOfKey() {
    return this.status === 401 || this.status === 403;
  }
}

const noAnswer = () => new Refusal(0, 'no_answer', 'The server does not answer: is it running?');

function headers(as, others) {
  return as ? { ...others, Authorization: `Bearer ${as}` } : others;
}

/// Asks, and gives the answer's JSON.
export async function ask(method, path, { json, as = key } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      body: json,
      headers: headers(as, json === undefined ? {} : { 'Content-Type': 'application/json' }),
      cache: 'no-store',
      credentials: 'omit',
      signal: AbortSignal.timeout(ANSWER_MS_MAX),
    });
    if (answer.ok) return await answer.json();
  } catch {
    throw noAnswer();
  }
  throw await refusalOf(answer);
}

async function refusalOf(answer) {
  const error = await answer.json().then((body) => body.error, () => undefined);
  const message = error?.message ?? `The server answered ${answer.status}.`;
  return new Refusal(answer.status, error?.code ?? 'unknown', message);
}

export const pathOf = (channel) => `channels/${encodeURIComponent(channel)}`;

// ---- streams -----------------------------------------------------------------------

/// Reads a stream once, to its end. `EventSource` could not: it sends no key.
/// Gives false when the server says that there is nothing more to come.
export async function readStream(path, { lastEventId, signal, onopen, onevent, onretry }) {
  let answer;
  try {
    answer = await fetch(path, {
      headers: headers(key, lastEventId ? { 'Last-Event-ID': lastEventId } : {}),
      cache: 'no-store',
      credentials: 'omit',
      signal,
    });
  } catch {
    throw noAnswer();
  }
  if (answer.status === 204) return false;
  if (!answer.ok) throw await refusalOf(answer);
  onopen();
  const parser = new Parser(onevent, onretry);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return true;
    parser.take(value);
  }
}

/// The grammar of `text/event-stream` (WHATWG HTML, section 9.2.6).
class Parser {
  rest = '';
  id = undefined;
  name = '';
  data = [];

  constructor(onevent, onretry) {
    this.onevent = onevent;
    this.onretry = onretry;
  }

  take(text) {
    // A CR at the end may be half of a CRLF: it waits for what follows.
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === '') return this.dispatch();
    const colon = line.indexOf(':');
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'data') this.data.push(value);
    else if (name === 'event') this.name = value;
    else if (name === 'id' && !value.includes('\0')) this.id = value;
    else if (name === 'retry' && /^\d+$/.test(value)) this.onretry(Number(value));
  }

  dispatch() {
    const { name, data, id } = this;
    this.name = '';
    this.data = [];
    // An id without data moves the cursor all the same.
    this.onevent({ name: name || 'message', data: data.length ? data.join('\n') : undefined, id });
  }
}
