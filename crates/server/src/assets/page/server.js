// Requests to the server. URLs are relative, so that the page works under a path of a
// proxy.

const KEY = 'pushwheel.key';
const ANSWER_MS_MAX = 30_000;

// ---- the key ----------------------------------------------------------------------

/// Kept for this tab only, or until a reload if the browser forbids storage.
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

/// Returns the rights of a key: `{manage, publish, has_admin_key}`.
export const rightsOf = (text) => ask('GET', '_page/rights', { as: text });

// ---- requests ----------------------------------------------------------------------

/// A rejected request, with the message of the server; status 0 without a response.
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

const noAnswer = () => new Refusal(0, 'no_answer', 'The server does not respond. Is it running?');

function headers(as, others) {
  return as ? { ...others, Authorization: `Bearer ${as}` } : others;
}

/// Sends a request and returns the JSON of the response.
export async function ask(method, path, { json, as = key } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      body: json,
      headers: headers(as, { Accept: 'application/json', ...(json !== undefined && { 'Content-Type': 'application/json' }) }),
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
  const message = error?.message ?? `The server returned ${answer.status}.`;
  return new Refusal(answer.status, error?.code ?? 'unknown', message);
}

export const pathOf = (channel) => `channels/${encodeURIComponent(channel)}`;

// ---- streams -----------------------------------------------------------------------

/// Reads a stream once, to its end. `EventSource` cannot send a key. Returns false if the
/// server has nothing more to send.
export async function readStream(path, { signal, onopen, onevent, onretry }) {
  let answer;
  try {
    answer = await fetch(path, {
      headers: headers(key, {}),
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
    // A CR at the end may be half of a CRLF, so it waits for the next piece.
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
    // An id without data moves the cursor too.
    this.onevent({ name: name || 'message', data: data.length ? data.join('\n') : undefined, id });
  }
}
