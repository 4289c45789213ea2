// A chat of the Vercel AI SDK whose answers survive reloads: useChat with `resume`.
//
//   pushwheel serve --allow-missing-keys --allow-header User-Agent
//   OPENAI_API_KEY=... node server.mjs          http://127.0.0.1:3000
//
// The parts of an answer go into a channel of pushwheel, from which the page reads them.
// This program holds no stream, so it can restart, and run in many processes.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { convertToModelMessages, streamText } from 'ai';
import { buildSync } from 'esbuild';

const pushwheel = process.env.PUSHWHEEL_URL ?? 'http://127.0.0.1:8080';
const api = createOpenAICompatible({
  name: 'api',
  baseURL: process.env.OPENAI_BASE_URL ?? 'https://api.openai.com/v1',
  apiKey: process.env.OPENAI_API_KEY ?? '',
});
const model = api(process.env.MODEL ?? 'gpt-5-mini');

const built = buildSync({
  entryPoints: [new URL('page.jsx', import.meta.url).pathname],
  bundle: true,
  write: false,
  format: 'esm',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"' },
});
const files = {
  '/': ['text/html; charset=utf-8', readFileSync(new URL('page.html', import.meta.url))],
  '/page.js': ['text/javascript; charset=utf-8', built.outputFiles[0].text],
};

/// The chats: their messages, and the answer that is being written. In a real program this
/// is a table of the database.
const chats = new Map();

// ---- pushwheel --------------------------------------------------------------------

/// Publishes to a channel; a repeated request with the same key publishes nothing.
async function publish(channel, number, data, last = false) {
  for (let wait_ms = 100; ; wait_ms = Math.min(2 * wait_ms, 5000)) {
    const response = await fetch(`${pushwheel}/channels/${channel}${last ? '?finish' : ''}`, {
      method: 'POST',
      headers: {
        'Content-Type': 'text/plain',
        'Idempotency-Key': `"${channel}-${number}"`,
        Authorization: `Bearer ${process.env.PUSHWHEEL_KEY ?? ''}`,
      },
      body: data,
      signal: AbortSignal.timeout(10_000),
    }).catch(() => undefined);
    if (response?.ok) return;
    if (response && response.status < 500 && ![409, 429].includes(response.status))
      throw new Error(await response.text());
    await new Promise((later) => setTimeout(later, wait_ms));
  }
}

// ---- an answer ----------------------------------------------------------------------

/// Begins to answer the last message of a chat. Returns the channel of the answer.
function answer(id, messages) {
  const channel = `chat.${id}.${messages.length}`;
  const stop = new AbortController();
  chats.set(id, { messages, channel, stop: () => stop.abort() });
  write(channel, id, messages, stop.signal).catch((error) => console.error(`${channel}: ${error.message}`));
  return channel;
}

async function write(channel, id, messages, abortSignal) {
  const result = streamText({ model, messages: await convertToModelMessages(messages), abortSignal });
  const parts = result.toUIMessageStream({
    originalMessages: messages,
    onFinish: ({ messages }) => chats.set(id, { messages }),
  });
  let number = 0;
  for await (const part of parts) await publish(channel, number++, JSON.stringify(part));
  await publish(channel, number, '[DONE]', true);
}

// ---- requests -------------------------------------------------------------------------

async function handle(request, response) {
  const { url, method } = request;
  const say = (status, body, headers = {}) => response.writeHead(status, headers).end(body);
  // The browser reads the stream from pushwheel itself.
  const streamOf = (channel) =>
    say(303, undefined, { Location: `${pushwheel}/channels/${channel}?last_event_id=earliest` });
  if (method === 'GET' && files[url]) return say(200, files[url][1], { 'Content-Type': files[url][0] });
  if (method === 'POST' && url === '/api/chat') {
    let body = '';
    for await (const text of request.setEncoding('utf8')) body += text;
    const { id, messages } = JSON.parse(body);
    return streamOf(answer(id, messages));
  }
  const [, id, what] = /^\/api\/chat\/([\w-]+)\/(stream|stop|messages)$/.exec(url) ?? [];
  const chat = chats.get(id);
  if (what === 'messages') {
    return say(200, JSON.stringify(chat?.messages ?? []), { 'Content-Type': 'application/json' });
  }
  if (what === 'stream') return chat?.channel ? streamOf(chat.channel) : say(204);
  if (what === 'stop' && method === 'POST') {
    chat?.stop?.();
    return say(204);
  }
  say(404, 'not found');
}

const server = createServer((request, response) => {
  handle(request, response).catch((error) => {
    console.error(error.message);
    if (!response.headersSent) response.writeHead(500);
    response.end();
  });
});
server.listen(process.env.PORT ?? 3000, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
