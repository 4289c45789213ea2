// A page that the server renders, with htmx: it is never stale, however late its stream
// begins.
//
//   pushwheel serve --allow-missing-keys
//   node server.mjs                            http://127.0.0.1:3000
//
// The page carries the id after which its stream begins. It is read before the list is, so
// each later change is on the stream, also one that happens before the stream is open.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const pushwheel = process.env.PUSHWHEEL_URL ?? 'http://127.0.0.1:8080';
const channel = `${pushwheel}/channels/board`;
const Authorization = `Bearer ${process.env.PUSHWHEEL_KEY ?? ''}`;
const script = (path) => readFileSync(new URL(`../node_modules/${path}`, import.meta.url));
const files = {
  '/htmx.js': script('htmx.org/dist/htmx.min.js'),
  '/sse.js': script('htmx-ext-sse/sse.js'),
};

/// The board. In a real program this is a table of the database.
const notes = [];

const escaped = (text) =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);
const list = () => notes.map((note) => `<li>${escaped(note)}</li>`).join('');

/// Returns the id of the newest event of the board.
async function newest() {
  const response = await fetch(channel, { method: 'HEAD', headers: { Accept: 'application/json', Authorization } });
  return response.headers.get('ETag').slice(1, -1);
}

/// Publishes the list, after those before it. An event that is received twice does no harm: it
/// is the whole list.
let turn = Promise.resolve();
const publish = () => (turn = turn.then(() => send(notes.length, list())));

async function send(number, body) {
  for (let wait_ms = 100; ; wait_ms = Math.min(2 * wait_ms, 5000)) {
    const response = await fetch(`${channel}?event=list`, {
      method: 'POST',
      headers: { 'Content-Type': 'text/html', 'Idempotency-Key': `"board-${number}"`, Authorization },
      body,
      signal: AbortSignal.timeout(10_000),
    }).catch(() => undefined);
    if (response?.ok) return;
    if (response && response.status < 500 && ![409, 429].includes(response.status))
      throw new Error(await response.text());
    await new Promise((later) => setTimeout(later, wait_ms));
  }
}

async function page() {
  // The order matters: first the id, then the list.
  const id = await newest();
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Board</title>
<link rel="icon" href="data:,">
<style>body { font: 1rem/1.5 system-ui, sans-serif; max-width: 42rem; margin: 2rem auto; padding: 0 1rem; }</style>
<script src="/htmx.js"></script>
<script src="/sse.js"></script>
<script>
  // The extension sends cookies to other origins, which pushwheel has to allow by name.
  htmx.createEventSource = (url) => new EventSource(url);
</script>
<h1>Board</h1>
<form hx-post="/notes" hx-swap="none" hx-on::after-request="this.reset()">
  <input name="note" required aria-label="Note"> <button>Add</button>
</form>
<ul hx-ext="sse" sse-connect="${channel}?last_event_id=${encodeURIComponent(id)}" sse-swap="list">${list()}</ul>
</html>`;
}

async function handle(request, response) {
  const say = (status, body, type = 'text/html; charset=utf-8') =>
    response.writeHead(status, { 'Content-Type': type, 'Cache-Control': 'no-store' }).end(body);
  if (request.method === 'GET' && request.url === '/') return say(200, await page());
  if (request.method === 'GET' && files[request.url]) return say(200, files[request.url], 'text/javascript');
  if (request.method === 'POST' && request.url === '/notes') {
    let body = '';
    for await (const text of request.setEncoding('utf8')) body += text;
    notes.push(new URLSearchParams(body).get('note'));
    await publish();
    return say(204);
  }
  say(404, 'not found');
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
