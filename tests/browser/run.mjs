// EventSource in headless Chromium against the real binary: what no test with a
// client of our own can show, because here the browser decides when to
// reconnect and which Last-Event-ID to send.
//
//   node run.mjs [BINARY]     (default: $PUSHWHEEL_BIN, target/debug/pushwheel)
//
// Everything waits on a condition with a deadline; nothing sleeps for a fixed
// time. Each story has a browser context of its own, and so its own pool of
// connections (Chromium opens six to a host).

import { createServer } from 'node:http';
import { Tally, launchChromium, limitSuite, requests, same, until } from './common.mjs';
import { Server } from './server.mjs';

const RETRY_MS = 150;
limitSuite('browser');

// ---- the page -----------------------------------------------------------------

/// Runs in the page: opens an EventSource that notes all that happens to it.
function watch({ name, url, events }) {
  const source = new EventSource(url);
  const seen = { source, opens: 0, errors: 0, events: [] };
  source.onopen = () => seen.opens++;
  source.onerror = () => seen.errors++;
  for (const event of ['message', 'pushwheel.gap', ...events])
    source.addEventListener(event, (e) => seen.events.push({ event: e.type, data: e.data, id: e.lastEventId }));
  globalThis[name] = seen;
}

/// An EventSource in a page, seen from here.
class Source {
  /// Resolves when it is open; `events` are the named ones to listen to.
  static async open(page, url, { name = 'source', events = [] } = {}) {
    const source = Object.assign(new Source(), { page, name });
    await page.evaluate(watch, { name, url, events });
    await source.until('it is open', (now) => now.opens === 1 && now.readyState === 1);
    return source;
  }

  /// `{ readyState, opens, errors, events }` at this moment.
  now() {
    return this.page.evaluate((name) => {
      const { source, ...seen } = globalThis[name];
      return { readyState: source.readyState, ...seen };
    }, this.name);
  }

  until(what, condition, deadline_ms) {
    return until(`EventSource: ${what}`, async () => {
      const now = await this.now();
      return condition(now) && now;
    }, deadline_ms);
  }

  /// The data of all events, once the one with this data has arrived.
  async dataUpTo(last) {
    const { events } = await this.until(`the event ${last}`, (now) => now.events.some((e) => e.data === last));
    return events.map((e) => e.data);
  }

  reopened(opens) {
    return this.until(`open number ${opens}`, (now) => now.opens >= opens && now.readyState === 1);
  }
}

// ---- the stories --------------------------------------------------------------

const stories = {
  async 'a stream is open at once, before any event'({ page, server }) {
    const begun = Date.now();
    const source = await Source.open(page, `${server.base}/channels/quiet`);
    const { events, errors } = await source.now();
    same({ events, errors }, { events: [], errors: 0 }, 'what happened');
    // Well before the first heartbeat, which would open a stream that says nothing.
    if (Date.now() - begun > 5000) throw new Error(`it took ${Date.now() - begun} ms`);
  },

  async 'unnamed and named events arrive, with data and lastEventId'({ page, server }) {
    const source = await Source.open(page, `${server.base}/channels/plain`, { events: ['price', 'grüße'] });
    const ids = [];
    for (const event of [
      { data: 'unnamed' },
      { event: 'price', data: { gold: 1, tags: [true, null] } },
      { event: 'grüße', data: 'ünïcödé 🦀' },
      { id: 'mine.1', data: 'own id' },
      { event: 'unheard', data: 'no listener' },
      { data: '' },
      { data: 'end' },
    ])
      ids.push((await server.publish('plain', event)).id);
    await source.dataUpTo('end');
    same(
      (await source.now()).events,
      [
        { event: 'message', data: 'unnamed', id: ids[0] },
        { event: 'price', data: '{"gold":1,"tags":[true,null]}', id: ids[1] },
        { event: 'grüße', data: 'ünïcödé 🦀', id: ids[2] },
        { event: 'message', data: 'own id', id: 'mine.1' },
        { event: 'message', data: '', id: ids[5] },
        { event: 'message', data: 'end', id: ids[6] },
      ],
      'the events',
    );
  },

  async 'data of several lines arrives exact, and never as a field'({ page, server }) {
    const source = await Source.open(page, `${server.base}/channels/lines`, { events: ['evil'] });
    const exact = [
      'one\ntwo\n\nfour',
      '\n',
      'ends with one\n',
      ' a space first',
      '\ufeffa byte order mark',
      ': no comment',
      'data: x\nevent: evil\nid: evil\nretry: 1',
      'x'.repeat(100_000),
    ];
    for (const data of exact) await server.publish('lines', data);
    // CR and CRLF end lines on the wire, so the browser sees both as LF.
    await server.publish('lines', 'a\r\nb\rc\r\n\r\nevent: evil\n\rend');
    await server.publish('lines', 'fence');
    same(await source.dataUpTo('fence'), [...exact, 'a\nb\nc\n\nevent: evil\n\nend', 'fence'], 'the data');
    const { events } = await source.now();
    same(events.filter((e) => e.event !== 'message' || e.id === 'evil'), [], 'what is no message');
  },

  async 'cut off, it comes back with Last-Event-ID; nothing missed, nothing double'({ page, server }) {
    const asked = requests(page, '/channels/cut');
    const source = await Source.open(page, `${server.base}/channels/cut`);
    const published = [];
    let number = 0;
    const publish = async () => {
      published.push(String(++number));
      return server.publish('cut', published.at(-1));
    };
    published.push('quick');
    await server.publish('cut', { data: 'quick', retry: 300 });
    // Events count as published in between only if no client was connected,
    // so on a slow machine this takes more than three rounds.
    let between = 0;
    for (let round = 1; between < 3; round++) {
      if (round > 10) throw new Error('the browser was always back before the next event was published');
      const { id } = await publish();
      await source.dataUpTo(published.at(-1));
      await server.cut('cut');
      if ((await publish()).clients === 0) between++;
      await publish();
      await source.reopened(round + 1);
      await until('the headers of the request', () => asked[round]?.lastEventId !== undefined);
      same(asked[round].lastEventId, id, 'the Last-Event-ID that the browser sent');
    }
    await publish();
    same(await source.dataUpTo(published.at(-1)), published, 'the data');
    same((await source.now()).events.some((e) => e.event === 'pushwheel.gap'), false, 'a gap');
  },

  async 'one that has seen no event yet misses nothing when it is cut off'({ page, server }) {
    const asked = requests(page, '/channels/unseen');
    const source = await Source.open(page, `${server.base}/channels/unseen`);
    await server.cut('unseen');
    const { clients } = await server.publish('unseen', 'first');
    same(clients, 0, 'the clients that were there for it');
    await server.publish('unseen', 'second');
    // It reconnects after Chromium's own 3 s: no event could say otherwise.
    await source.reopened(2);
    await server.publish('unseen', 'third');
    same(await source.dataUpTo('third'), ['first', 'second', 'third'], 'the data');
    await until('the headers of the request', () => asked[1]?.lastEventId !== undefined);
    if (!asked[1].lastEventId) throw new Error('the browser had no cursor to send');
    same(asked[0].lastEventId, null, 'the Last-Event-ID of the first request');
  },

  async 'several channels on one stream resume together'({ page, server }) {
    const source = await Source.open(page, `${server.base}/events?channel=left&channel=right`);
    await server.publish('left', { data: 'l1', retry: RETRY_MS });
    await server.publish('right', 'r1');
    await source.dataUpTo('r1');
    await server.cut('left');
    for (const [channel, data] of [['right', 'r2'], ['left', 'l2'], ['right', 'r3']]) await server.publish(channel, data);
    await source.reopened(2);
    await server.publish('left', 'l3');
    same(await source.dataUpTo('l3'), ['l1', 'r1', 'r2', 'l2', 'r3', 'l3'], 'the data');
  },

  async 'a finished channel closes it for good'({ page, server }) {
    const asked = requests(page, '/channels/done');
    const statuses = [];
    page.on('response', (answer) => {
      if (new URL(answer.url()).pathname === '/channels/done') statuses.push(answer.status());
    });
    const source = await Source.open(page, `${server.base}/channels/done`);
    await server.publish('done', { data: 'the last', retry: RETRY_MS });
    await source.dataUpTo('the last');
    await server.call('DELETE', '/channels/done?finish');
    const now = await source.until('it is closed', ({ readyState }) => readyState === 2);
    same([now.opens, now.events.map((e) => e.data)], [1, ['the last']], 'opens and data');
    await until('the answer 204', () => statuses.includes(204));
    same(statuses, [200, 204], 'the statuses of the answers');
    // "No more requests" needs a clock: another source of the same retry that is
    // cut and comes back three times in the meantime.
    const clock = await Source.open(page, `${server.base}/channels/clock`, { name: 'clock' });
    await server.publish('clock', { data: 'tick', retry: RETRY_MS });
    await clock.dataUpTo('tick');
    for (let opens = 2; opens <= 4; opens++) {
      await server.cut('clock');
      await clock.reopened(opens);
    }
    same(asked.length, 2, 'the requests');
    same((await source.now()).readyState, 2, 'its readyState');
  },

  async 'fetch() with Last-Event-ID passes the preflight'({ page, server }) {
    const { id } = await server.publish('fetched', 'one');
    await server.publish('fetched', 'two');
    const read = await page.evaluate(async ({ url, id }) => {
      const stop = new AbortController();
      const answer = await fetch(url, {
        headers: { 'Last-Event-ID': id, 'Cache-Control': 'no-cache', Authorization: 'Bearer none' },
        signal: stop.signal,
      });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      while (!text.includes('data: two\n')) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
      }
      stop.abort();
      return { status: answer.status, type: answer.type, text };
    }, { url: `${server.base}/channels/fetched`, id });
    same([read.status, read.type], [200, 'cors'], 'the answer');
    same([read.text.includes('data: two\n'), read.text.includes('data: one\n')], [true, false], 'two and one');
  },

  async 'a compressed stream is read event by event, and resumed'({ page }) {
    const encodings = [];
    page.on('response', (answer) => {
      if (answer.url().includes('/channels/packed')) encodings.push(answer.headers()['content-encoding']);
    });
    // Heartbeats come in between, to be read over.
    const server = await Server.start(undefined, ['--compress-from-bytes', '100', '--heartbeat', '1']);
    try {
      const source = await Source.open(page, `${server.base}/channels/packed`);
      const long = 'the same again, '.repeat(1000);
      const published = ['short', long + 1, long + 2];
      await server.publish('packed', { data: published[0], retry: RETRY_MS });
      // Each is there before the next one is published: nothing waits in a decoder.
      await source.dataUpTo(published[0]);
      for (const data of published.slice(1)) {
        await server.publish('packed', data);
        await source.dataUpTo(data);
      }
      await server.cut('packed');
      published.push(long + 3, 'end');
      for (const data of published.slice(3)) await server.publish('packed', data);
      await source.reopened(2);
      same(await source.dataUpTo('end'), published, 'the data');
      same(encodings, ['gzip', 'gzip'], 'the encodings of the answers');
    } finally {
      await server.kill();
    }
  },

  async 'after the server was killed and restarted it reconnects, and receives the gap'({ page, server }) {
    const asked = requests(page, '/channels/life');
    let life = await Server.start();
    const { base } = life;
    try {
      const source = await Source.open(page, `${base}/channels/life`);
      const { id } = await life.publish('life', { data: 'before', retry: RETRY_MS });
      await source.dataUpTo('before');
      await life.kill();
      await source.until('it knows', ({ readyState, errors }) => readyState === 0 && errors > 0);
      life = await Server.start(new URL(base).host);
      await source.reopened(2);
      const { events } = await source.until('the gap', (now) => now.events.some((e) => e.event === 'pushwheel.gap'));
      const gap = JSON.parse(events[1].data);
      same([gap.reason, gap.requested], ['restart', id], 'reason and requested');
      same(['oldest' in gap, 'newest' in gap], [true, true], 'oldest and newest');
      const { id: after } = await life.publish('life', 'after');
      await source.dataUpTo('after');
      same(
        (await source.now()).events.map((e) => [e.event, e.event === 'message' && e.data]),
        [['message', 'before'], ['pushwheel.gap', false], ['message', 'after']],
        'the events',
      );
      await until('the headers of all requests', () => asked.every((r) => r.lastEventId !== undefined));
      same(asked.at(-1).lastEventId, id, 'the Last-Event-ID that the browser sent');
      // Reported once: the next reconnection resumes in the new life.
      await life.publish('life', { data: 'quick', retry: RETRY_MS });
      await source.dataUpTo('quick');
      await life.cut('life');
      await life.publish('life', 'resumed');
      same((await source.dataUpTo('resumed')).slice(2), ['after', 'quick', 'resumed'], 'the data');
      same((await source.now()).events.filter((e) => e.event === 'pushwheel.gap').length, 1, 'the gaps received');
      if (after === id) throw new Error(`two lives gave the same id: ${id}`);
    } finally {
      await life.kill();
    }
  },

  async 'a ticket that was used ends an EventSource, and another opens it again'({ page }) {
    const keys = ['--publish-key', 'publishes-in-tests', '--admin-key', 'manages-in-tests', '--token-secret', 'x'.repeat(32)];
    const server = await Server.start('127.0.0.1:0', keys);
    const ask = (method, path, key, body) =>
      fetch(server.base + path, { method, body, headers: { authorization: `Bearer ${key}` } });
    const urlWithTicket = async () => {
      const wish = JSON.stringify({ subscribe: ['ticketed'], client: 'the-page' });
      const { ticket } = await (await ask('POST', '/tickets', 'publishes-in-tests', wish)).json();
      return `${server.base}/channels/ticketed?ticket=${ticket}`;
    };
    try {
      const source = await Source.open(page, await urlWithTicket());
      await ask('DELETE', '/channels/ticketed/clients/the-page', 'manages-in-tests');
      // It comes back with the same URL, by itself, and gets 401.
      const { opens } = await source.until('it is closed for good', (now) => now.readyState === 2);
      same(opens, 1, 'the opens');
      const again = await Source.open(page, await urlWithTicket(), { name: 'again' });
      await ask('POST', '/channels/ticketed', 'publishes-in-tests', 'seen');
      same(await again.dataUpTo('seen'), ['seen'], 'the events');
    } finally {
      await server.kill();
    }
  },
};

// ---- the run ------------------------------------------------------------------

// A page of another origin than the server's, so every stream here is cross-origin.
const pages = createServer((_, answer) => {
  answer.setHeader('content-type', 'text/html; charset=utf-8');
  answer.end('<!doctype html><link rel="icon" href="data:,"><title>pushwheel</title>');
});
await new Promise((listening) => pages.listen(0, '127.0.0.1', listening));
const blank = `http://127.0.0.1:${pages.address().port}/`;

const tally = new Tally();
let server;
let browser;
try {
  server = await Server.start();
  browser = await launchChromium();
  await tally.tell(stories, async () => {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(blank);
    return { given: { page, server }, cleanUp: () => context.close() };
  });
} catch (wrong) {
  tally.fail('the suite', wrong);
} finally {
  await browser?.close();
  await server?.kill();
  pages.close();
  pages.closeAllConnections();
}
if (tally.failed && server?.log) console.error(`# the server said:\n${server.log.slice(-4000).replace(/^/gm, '    # ')}`);
tally.close('browser');
