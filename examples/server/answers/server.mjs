// A proxy for any OpenAI-compatible API. Answers survive: the tokens go into a channel of
// pushwheel, and every client reads them there, also after a reload or a lost connection.
//
//   pushwheel serve --allow-missing-keys
//   OPENAI_API_KEY=... node server.mjs         http://127.0.0.1:3000
//
// POST /v1/chat/completions          as the API has it: the response is the stream. The
//                                    answer goes on if the client disconnects
//   with `Prefer: respond-async`     202 at once, and the channel of the answer
// POST /answers/{id}/stop            stops the answer, in all clients

import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';

const upstream = process.env.OPENAI_BASE_URL ?? 'https://api.openai.com/v1';
const pushwheel = process.env.PUSHWHEEL_URL ?? 'http://127.0.0.1:8080';
const page = readFileSync(new URL('page.html', import.meta.url), 'utf8').replaceAll('{{pushwheel}}', pushwheel);

/// The answers that are being written: the function that stops each.
const running = new Map();

// ---- pushwheel ------------------------------------------------------------------

/// Publishes to the channel of an answer. A repeated request with the same key publishes
/// nothing, so a publish whose response was lost is sent again.
async function publish(id, number, data, last = false) {
  for (let wait_ms = 100; ; wait_ms = Math.min(2 * wait_ms, 5000)) {
    try {
      const response = await fetch(`${pushwheel}/channels/answer.${id}${last ? '?finish' : ''}`, {
        method: 'POST',
        headers: {
          'Content-Type': 'text/plain',
          'Idempotency-Key': `"${id}-${number}"`,
          Authorization: `Bearer ${process.env.PUSHWHEEL_KEY ?? ''}`,
        },
        body: data,
        signal: AbortSignal.timeout(10_000),
      });
      if (response.ok) return;
      const passes = response.status === 429 || response.status >= 500 || response.status === 409;
      if (!passes) throw Object.assign(new Error(await response.text()), { isFinal: true });
    } catch (error) {
      if (error.isFinal) throw error;
    }
    await new Promise((later) => setTimeout(later, wait_ms));
  }
}

// ---- an answer --------------------------------------------------------------------

/// Reads the answer of the API, whether or not a client listens, and publishes each piece.
async function write(id, request) {
  const stop = new AbortController();
  running.set(id, () => stop.abort());
  let number = 0;
  try {
    const response = await fetch(`${upstream}/chat/completions`, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        Authorization: `Bearer ${process.env.OPENAI_API_KEY ?? ''}`,
      },
      body: JSON.stringify({ ...request, stream: true }),
      signal: stop.signal,
    });
    if (!response.ok) throw new Error(`the API returned ${response.status}: ${await response.text()}`);
    for await (const data of events(response.body)) {
      if (data === '[DONE]') break;
      await publish(id, number++, data);
    }
  } catch (error) {
    if (!stop.signal.aborted) await publish(id, number++, JSON.stringify({ error: { message: error.message } }));
  }
  // The end is an event, and finishes the channel: clients have no reason to come back.
  await publish(id, number, '[DONE]', true);
  running.delete(id);
}

/// The data of the events of a stream.
async function* events(body) {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const bytes of body) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith('data:')) yield line.slice(5).trimStart();
  }
}

// ---- requests -----------------------------------------------------------------------

async function handle(request, response) {
  const say = (status, body, headers = {}) =>
    response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(body));
  if (request.method === 'GET' && request.url === '/')
    return response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end(page);
  const stopped = /^\/answers\/([\w-]+)\/stop$/.exec(request.url);
  if (request.method === 'POST' && stopped) {
    running.get(stopped[1])?.();
    return say(200, {});
  }
  if (request.method !== 'POST' || request.url !== '/v1/chat/completions')
    return say(404, { error: { message: 'POST /v1/chat/completions' } });
  let body = '';
  for await (const text of request.setEncoding('utf8')) body += text;
  const id = randomUUID();
  write(id, JSON.parse(body)).catch((error) => console.error(`the answer ${id} ended: ${error.message}`));
  const channel = `answer.${id}`;
  if (request.headers.prefer === 'respond-async') return say(202, { id, channel });
  const stream = await fetch(`${pushwheel}/channels/${channel}?last_event_id=earliest`);
  response.writeHead(stream.status, { 'Content-Type': 'text/event-stream', 'X-Answer': id });
  Readable.fromWeb(stream.body).on('error', () => response.destroy()).pipe(response);
}

const server = createServer((request, response) => {
  handle(request, response).catch((error) => {
    console.error(error.message);
    if (!response.headersSent) response.writeHead(502);
    response.end();
  });
});
server.listen(process.env.PORT ?? 3000, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
