// pushwheel.js behind proxies that hold streams back, or cut them, in headless Chromium
// against the real binary: it polls, and each event arrives once, in order and soon.
//
//   node polling.mjs [BINARY]     (default: $PUSHWHEEL_BIN, target/debug/pushwheel)
//
// The stories run at the same time, because each waits until a stream is tried again.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request as ask } from 'node:http';
import { connect, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tally, launchChromium, limitSuite, same, until } from './common.mjs';
import { Server } from './server.mjs';

limitSuite('polling');

/// The time in which each event has to arrive.
const LATE_MS = 2000;
const EVENTS = 1000;
const PACE_MS = 70;
/// A stream is tried every minute.
const MINUTE_MS = 60_000;

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));
let state = seed;
function random(below) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
}

// ---- the proxies ------------------------------------------------------------------

/// Debian's nginx, which holds back each answer until it is whole, whatever its headers say.
async function nginx(target) {
  const dir = mkdtempSync(join(tmpdir(), 'pushwheel-nginx-'));
  const port = await new Promise((found) => {
    const free = createTcpServer().listen(0, '127.0.0.1', () => {
      const { port } = free.address();
      free.close(() => found(port));
    });
  });
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${dir}/${name};`);
  writeFileSync(
    join(dir, 'nginx.conf'),
    `daemon off; pid ${dir}/pid; error_log stderr crit; ${process.getuid() === 0 ? 'user root;' : ''}
    events { worker_connections 256; }
    http {
      access_log off; ${paths.join(' ')}
      server {
        listen 127.0.0.1:${port};
        location / {
          proxy_pass ${target};
          proxy_http_version 1.1;
          proxy_set_header Host $http_host;
          proxy_buffering on;
          proxy_buffers 16 256k;
          proxy_busy_buffers_size 2m;
          proxy_ignore_headers X-Accel-Buffering Cache-Control;
        }
      }
    }`,
  );
  const child = spawn('nginx', ['-c', join(dir, 'nginx.conf'), '-p', dir], { stdio: 'inherit' });
  child.on('error', () => {});
  process.on('exit', () => child.kill('SIGKILL'));
  await until('nginx listens', () =>
    new Promise((answered) => {
      const line = connect(port, '127.0.0.1', () => answered(true) || line.destroy());
      line.on('error', () => answered(false));
    }),
  );
  return {
    base: `http://127.0.0.1:${port}`,
    close: () => {
      child.kill('SIGQUIT');
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/// A way to `target` whose connections can be cut, after so many bytes of an answer.
async function cuttable(target) {
  const { hostname, port } = new URL(target);
  const lines = new Set();
  const listener = createTcpServer((near) => {
    const far = connect(port, hostname);
    const line = { left: Infinity, end: () => [near, far].forEach((end) => end.destroy()) };
    lines.add(line);
    near.pipe(far);
    far.on('data', (bytes) => {
      near.write(bytes.subarray(0, line.left));
      line.left -= bytes.length;
      if (line.left <= 0) line.end();
    });
    for (const end of [near, far])
      end.on('error', () => {}).on('close', () => {
        lines.delete(line);
        line.end();
      });
  });
  await new Promise((listening) => listener.listen(0, '127.0.0.1', listening));
  return {
    base: `http://127.0.0.1:${listener.address().port}`,
    cut: (bytes) => lines.forEach((line) => (bytes ? (line.left = bytes) : line.end())),
    close: () => listener.close(),
  };
}

/// A proxy that ends each stream after a moment, until it is repaired.
async function impatient(target) {
  let isRepaired = false;
  const proxy = createServer((near, answer) => {
    const far = ask(target + near.url, { method: near.method, headers: near.headers }, (told) => {
      answer.writeHead(told.statusCode, told.headers);
      const isStream = told.headers['content-type'] === 'text/event-stream';
      told.pipe(answer);
      if (isStream && !isRepaired) told.once('data', () => setImmediate(() => answer.end() && far.destroy()));
    });
    far.on('error', () => answer.destroy());
    answer.on('close', () => far.destroy());
    near.pipe(far);
  });
  await new Promise((listening) => proxy.listen(0, '127.0.0.1', listening));
  return {
    base: `http://127.0.0.1:${proxy.address().port}`,
    repair: () => (isRepaired = true),
    close: () => proxy.close() && proxy.closeAllConnections(),
  };
}

// ---- a tab --------------------------------------------------------------------------

/// Runs in the page. Events have the time at which they were published.
async function watch({ script, url, options }) {
  const { PushWheel } = await import(script);
  const seen = (globalThis.seen = { events: [], errors: 0 });
  const source = new PushWheel(url, options);
  source.onerror = () => seen.errors++;
  source.onmessage = ({ data, channel }) => {
    const { number, at } = JSON.parse(data);
    seen.events.push([number, Date.now() - at, channel]);
  };
  globalThis.source = source;
}

async function open(site, url, options) {
  const page = await site.context.newPage();
  const asked = { polls: 0, streams: 0 };
  page.on('request', (request) => {
    const { pathname, searchParams } = new URL(request.url());
    if (pathname === new URL(url).pathname) asked[searchParams.has('wait') ? 'polls' : 'streams']++;
  });
  await page.goto(site.pages);
  await page.evaluate(watch, { script: `${site.server.base}/pushwheel.js`, url, options });
  const tab = { page, asked, now: () => page.evaluate(() => ({ ...globalThis.seen, readyState: globalThis.source.readyState })) };
  tab.has = (count) => until(`${count} events, with the seed ${seed}`, async () => (await tab.now()).events.length >= count);
  return tab;
}

const polls = (tabs, count = 1) => until('it polls', () => tabs.some((tab) => tab.asked.polls >= count));
const isOpen = (tab) => until('it is open', async () => (await tab.now()).readyState === 1);
const publish = (server, channel, number) =>
  server.publish(channel, { data: { number, at: Date.now() } });

// ---- the stories --------------------------------------------------------------------

const stories = {
  async 'behind nginx that buffers, three tabs have each event once, in order and soon, over one connection'(site) {
    const { server } = site;
    const held = await nginx(server.base);
    const way = await cuttable(held.base);
    let isOver = false;
    try {
      const tabs = [];
      for (let i = 0; i < 3; i++) tabs.push(await open(site, `${way.base}/channels/held`, { watchdog: 1000 }));
      await polls(tabs, 2);
      for (const tab of tabs) await isOpen(tab);
      const cuts = (async () => {
        while (!isOver) {
          await new Promise((pause) => setTimeout(pause, 2000 + random(2000)));
          way.cut(random(2) && 1 + random(600));
        }
      })();
      const before = tabs.map((tab) => tab.asked.streams);
      const begun = Date.now();
      for (let number = 0; number < EVENTS; number++) {
        await publish(server, 'held', number);
        const due = begun + number * PACE_MS;
        await new Promise((pace) => setTimeout(pace, Math.max(0, due - Date.now())));
      }
      await tabs[0].has(EVENTS);
      isOver = true;
      await cuts;
      for (const tab of tabs) {
        await tab.has(EVENTS);
        const { events } = await tab.now();
        same(events.map(([number]) => number), Array.from({ length: EVENTS }, (_, n) => n), `the events, with the seed ${seed}`);
        const latest = Math.max(...events.map(([, ms]) => ms));
        console.log(`# the latest event came after ${latest} ms`);
        same(latest < LATE_MS, true, `${latest} ms, with the seed ${seed}`);
      }
      const tried = tabs.map((tab, i) => tab.asked.streams - before[i]).filter((count) => count);
      same(tried.length <= 1 && tried[0] >= 1, true, `streams that one tab has tried meanwhile: ${tried}`);
      same(tabs.filter((tab) => tab.asked.polls).length, 1, 'tabs that poll');
    } finally {
      isOver = true;
      way.close();
      held.close();
    }
  },

  async 'where streams are cut it polls, and after a minute it has a stream again'(site) {
    const { server } = site;
    const proxy = await impatient(server.base);
    try {
      const tab = await open(site, `${proxy.base}/channels/cut?channel_names`);
      await polls([tab]);
      await isOpen(tab);
      const { streams } = tab.asked;
      await publish(server, 'cut', 0);
      await tab.has(1);
      proxy.repair();
      const errors = (await tab.now()).errors;
      await until('a stream', () => tab.asked.streams > streams, MINUTE_MS + 10_000);
      const polled = tab.asked.polls;
      for (const number of [1, 2, 3]) {
        await publish(server, 'cut', number);
        await tab.has(number + 1);
      }
      const now = await tab.now();
      same(now.events.map(([number, , channel]) => `${number} ${channel}`), ['0 cut', '1 cut', '2 cut', '3 cut'], 'the events');
      same([tab.asked.polls, tab.asked.streams, now.errors], [polled, streams + 1, errors], 'requests and errors');
    } finally {
      proxy.close();
    }
  },

  async 'a finished channel ends the polling'(site) {
    const { server } = site;
    const proxy = await impatient(server.base);
    try {
      const tab = await open(site, `${proxy.base}/channels/over`);
      await polls([tab]);
      await isOpen(tab);
      await publish(server, 'over', 0);
      await server.call('DELETE', '/channels/over?finish');
      await until('it is closed', async () => (await tab.now()).readyState === 2);
      same((await tab.now()).events.map(([number]) => number), [0], 'the events');
    } finally {
      proxy.close();
    }
  },

  async 'a server that has only streams is not polled'(site) {
    const asked = [];
    const other = createServer((request, answer) => {
      asked.push(request.headers.accept);
      answer.setHeader('access-control-allow-origin', '*');
      answer.setHeader('access-control-allow-headers', '*');
      answer.writeHead(200, { 'content-type': 'text/event-stream' }).end('id: 1\n\n');
    });
    await new Promise((listening) => other.listen(0, '127.0.0.1', listening));
    try {
      await open(site, `http://127.0.0.1:${other.address().port}/`);
      const isPoll = (accept) => accept === 'application/json';
      await until('a stream after a poll', () => asked.some(isPoll) && !isPoll(asked.at(-1)), 60_000);
      same(asked.filter(isPoll).length, 1, 'polls');
    } finally {
      other.close();
      other.closeAllConnections();
    }
  },
};

// ---- the run --------------------------------------------------------------------------

const tally = new Tally();
const pages = createServer((_, answer) => {
  answer.setHeader('content-type', 'text/html; charset=utf-8');
  answer.end('<!doctype html><link rel="icon" href="data:,"><title>pushwheel</title>');
});
await new Promise((listening) => pages.listen(0, '127.0.0.1', listening));
let server;
let browser;
try {
  server = await Server.start(undefined, ['--heartbeat', '1']);
  browser = await launchChromium();
  const prepare = async () => {
    const context = await browser.newContext();
    const given = { context, server, pages: `http://127.0.0.1:${pages.address().port}/` };
    return { given, cleanUp: () => context.close() };
  };
  await Promise.all(Object.entries(stories).map(([name, story]) => tally.tell({ [name]: story }, prepare)));
} catch (wrong) {
  tally.fail('the suite', wrong);
} finally {
  await browser?.close();
  await server?.kill();
  pages.close();
  pages.closeAllConnections();
}
tally.close('polling');
