// pushwheel.js in headless Chromium against the real binary: several tabs, dead
// lines, servers that refuse, reloads, and other disturbances.
//
//   node client.mjs [BINARY]     (default: $PUSHWHEEL_BIN, target/debug/pushwheel)
//
// Nothing sleeps: "it does not happen" is shown by something later that has
// happened. Each story has a browser context of its own, which is to Chromium a
// person of their own: its tabs share locks, channels and connections.

import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { Tally, launchChromium, limitSuite, same, until } from './common.mjs';
import { Server } from './server.mjs';

const RETRY_MS = 150;
const ASSETS = join(import.meta.dirname, '../../crates/server/src/assets');
limitSuite('client');

// ---- a tab ----------------------------------------------------------------------

/// Runs in the page: opens a PushWheel that notes all that happens to it.
async function watch({ script, name, url, options, events, answers, isNoting }) {
  const { PushWheel } = await import(script);
  const seen = { opens: 0, errors: [], events: [], gaps: [], reauths: [] };
  const source = new PushWheel(url, {
    onGap: (gap) => seen.gaps.push(gap),
    onReauth: (status) => {
      seen.reauths.push(status);
      return answers.shift();
    },
    ...options,
  });
  source.onopen = () => seen.opens++;
  source.onerror = (event) => seen.errors.push(event.status);
  for (const event of ['message', 'pushwheel.gap', 'pushwheel.reauth', ...events])
    source.addEventListener(event, (e) => seen.events.push({ event: e.type, data: e.data, id: e.lastEventId }));
  // Over a reload too, and where the cursor is.
  const note = ({ data }) => (sessionStorage.row = `${sessionStorage.row ?? ''}${data},`);
  if (isNoting) source.addEventListener('message', note);
  globalThis[name] = { source, seen };
}

/// A tab with a PushWheel, seen from here.
class Tab {
  asked = 0;

  static async open(site, url, more = {}) {
    const tab = Object.assign(new Tab(), { site, url, name: 'wheel', events: [], answers: [], ...more });
    tab.page = more.page ?? (await site.context.newPage());
    const path = new URL(url, site.pages).pathname;
    tab.page.on('request', (request) => {
      if (new URL(request.url()).pathname === path && request.method() === 'GET') tab.asked++;
    });
    if (!more.page) await tab.page.goto(more.at ?? site.pages);
    if (more.before) await tab.page.evaluate(more.before);
    await tab.watch();
    if (!more.isShut) await tab.until('it is open', (now) => now.readyState === 1);
    return tab;
  }

  watch() {
    const { name, url, options, events, answers, isNoting } = this;
    const script = `${this.site.server.base}/pushwheel.js`;
    return this.page.evaluate(watch, { script, name, url, options, events, answers, isNoting });
  }

  async reload() {
    await this.page.reload();
    await this.watch();
  }

  /// `{ readyState, lastEventId, opens, errors, events, gaps, reauths }` at this moment.
  now() {
    return this.page.evaluate((name) => {
      const { source, seen } = globalThis[name];
      return { readyState: source.readyState, lastEventId: source.lastEventId, ...seen };
    }, this.name);
  }

  until(what, condition) {
    return until(`PushWheel: ${what}`, async () => {
      const now = await this.now();
      return condition(now) && now;
    });
  }

  /// The data of all events, once the one with this data has arrived.
  async dataUpTo(last) {
    const { events } = await this.until(`the event ${last}`, (now) => now.events.some((e) => e.data === last));
    return events.map((e) => e.data);
  }

  close() {
    return this.page.evaluate((name) => globalThis[name].source.close(), this.name);
  }
}

const openTabs = (count, ...args) => Promise.all(Array.from({ length: count }, () => Tab.open(...args)));

/// The tab that reads the stream: the one among `tabs` that has asked since `before`.
const leaderOf = (tabs, before = new Map()) =>
  until('one of the tabs has asked', () => tabs.find((tab) => tab.asked > (before.get(tab) ?? 0)));

const asked = (tabs) => tabs.reduce((sum, tab) => sum + tab.asked, 0);

const clientsAre = (server, channel, count) =>
  until(`${count} clients in ${channel}`, async () => (await server.clients(channel)).length === count);

// ---- servers that misbehave -------------------------------------------------------

/// Answers each request for a path as the next of its script says, and as the
/// last when there is none left; notes what was asked.
class Faulty {
  scripts = new Map();

  /// Steps are `(answer, request) => ...`; gives the list of the requests.
  at(path, ...steps) {
    const asked = [];
    this.scripts.set(path, { steps, asked });
    return asked;
  }

  handle(request, answer) {
    const script = this.scripts.get(new URL(request.url, 'http://x').pathname);
    if (!script) return false;
    const { steps, asked } = script;
    asked.push({ at: performance.now(), headers: request.headers, url: request.url });
    (steps.length > 1 ? steps.shift() : steps[0])(answer, request);
    return true;
  }
}

const says = (status, headers = {}) => (answer) => answer.writeHead(status, headers).end();

/// A stream of this text that goes on, or ends.
const stream = (text, { ends = false, ends_after_ms, headers = {} } = {}) => (answer) => {
  answer.writeHead(200, { 'content-type': 'text/event-stream', ...headers });
  answer.write(text);
  if (ends) answer.end();
  if (ends_after_ms) setTimeout(() => answer.end(), ends_after_ms);
};

/// A way to the server that can go dead: what comes from there is swallowed.
async function deadEnd(target) {
  const { hostname, port } = new URL(target);
  const lines = new Set();
  const proxy = createTcpServer((near) => {
    const line = { isDead: false };
    const far = connect(port, hostname);
    lines.add(line);
    near.pipe(far);
    far.on('data', (bytes) => line.isDead || near.write(bytes));
    for (const [one, other] of [[near, far], [far, near]]) {
      one.on('error', () => {});
      one.on('close', () => {
        lines.delete(line);
        other.destroy();
      });
    }
  });
  await new Promise((listening) => proxy.listen(0, '127.0.0.1', listening));
  return {
    base: `http://127.0.0.1:${proxy.address().port}`,
    /// Those that are there; the next ones live.
    die: () => lines.forEach((line) => (line.isDead = true)),
    close: () => proxy.close(),
  };
}

// ---- the stories: tabs --------------------------------------------------------------

const tabStories = {
  async 'eight tabs have one connection, and each has every event once, in order'({ site, server }) {
    const url = `${server.base}/channels/eight`;
    const tabs = await openTabs(8, site, url, { events: ['price'] });
    await clientsAre(server, 'eight', 1);
    const wanted = [];
    for (let number = 0; number < 50; number++) {
      wanted.push(`${number}`);
      await server.publish('eight', { event: number % 2 ? 'price' : undefined, data: wanted.at(-1) });
    }
    for (const tab of tabs) {
      same(await tab.dataUpTo('49'), wanted, 'the data');
      const now = await tab.now();
      same([now.opens, now.errors], [1, []], 'opens and errors');
      same(now.events[1].event, 'price', 'the name of the second');
      same(now.lastEventId, now.events.at(-1).id, 'the cursor');
    }
    same([asked(tabs), (await server.clients('eight')).length], [1, 1], 'requests and clients');
  },

  async 'when the tab that leads is closed another takes over; nothing missed, nothing double'({ site, server }) {
    const tabs = await openTabs(7, site, `${server.base}/channels/heirs`);
    const wanted = [];
    let isOver = false;
    const publishing = (async () => {
      while (!isOver) {
        wanted.push(`${wanted.length}`);
        await server.publish('heirs', wanted.at(-1));
        await new Promise((pace) => setTimeout(pace, 5));
      }
    })();
    try {
      let before;
      for (let round = 0; round < 4; round++) {
        const leader = await leaderOf(tabs, before);
        await leader.dataUpTo(wanted.at(-1));
        tabs.splice(tabs.indexOf(leader), 1);
        before = new Map(tabs.map((tab) => [tab, tab.asked]));
        await leader.page.close();
      }
      await leaderOf(tabs, before);
    } finally {
      isOver = true;
      await publishing;
    }
    await server.publish('heirs', 'end');
    for (const tab of tabs) {
      same(await tab.dataUpTo('end'), [...wanted, 'end'], 'the data');
      const { opens, errors, gaps } = await tab.now();
      same([opens, errors, gaps], [1, [], []], 'what a tab sees of it');
    }
    await clientsAre(server, 'heirs', 1);
  },

  async 'close() hands over as well, and is for this tab alone'({ site, server }) {
    const tabs = await openTabs(3, site, `${server.base}/channels/handed`);
    await server.publish('handed', '1');
    const leader = await leaderOf(tabs);
    await leader.dataUpTo('1');
    await leader.close();
    await server.publish('handed', '2');
    for (const tab of tabs.filter((tab) => tab !== leader)) same(await tab.dataUpTo('2'), ['1', '2'], 'the data');
    const { readyState, events, errors } = await leader.now();
    same([readyState, events.length, errors], [2, 1, []], 'the closed one');
  },

  async 'other URLs, other names and tabs that share nothing have connections of their own'({ site, server }) {
    const url = `${server.base}/channels/own`;
    const [one] = await openTabs(2, site, url);
    await clientsAre(server, 'own', 1);
    await Tab.open(site, `${url}?client=other`);
    await clientsAre(server, 'own', 2);
    const alone = await Tab.open(site, url, { options: { shared: false } });
    await clientsAre(server, 'own', 3);
    await openTabs(2, site, url, { options: { shared: 'alice' } });
    await clientsAre(server, 'own', 4);
    await server.publish('own', 'all');
    for (const tab of [one, alone]) same(await tab.dataUpTo('all'), ['all'], 'the data');
  },

  async 'a late client begins live'({ site, server }) {
    const url = `${server.base}/channels/late`;
    const first = await Tab.open(site, url);
    await server.publish('late', 'early');
    await first.dataUpTo('early');
    const second = await Tab.open(site, url);
    await server.publish('late', 'live');
    same(await second.dataUpTo('live'), ['live'], 'the data');
    same((await second.now()).opens, 1, 'opens');
    same(second.asked, 0, 'its requests');
  },

  // Each tab's row begins anywhere, and has no hole and nothing twice.
  async 'tabs that come, go, reload, freeze and are cut off at random have whole rows'({ site, server }) {
    const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));
    let state = seed;
    const random = (below) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const row = (tab) => tab.page.evaluate(() => (sessionStorage.row ?? '').split(',').slice(0, -1));
    const say = (tab, type) => tab.page.evaluate((type) => document.dispatchEvent(new Event(type)), type);
    const tabs = [];
    const url = `${server.base}/channels/storm`;
    const come = async () => tabs.push(await Tab.open(site, url, { isShut: true, isNoting: true }));
    for (let i = 0; i < 4; i++) await come();
    let number = 0;
    let isOver = false;
    const publishing = (async () => {
      while (!isOver) {
        await server.publish('storm', { data: `${++number}`, retry: 100 });
        await new Promise((pace) => setTimeout(pace, 10));
      }
    })();
    try {
      for (let round = 0; round < 40; round++) {
        const tab = tabs[random(tabs.length)];
        const doings = [
          async () => tabs.length < 7 && (await come()),
          async () => tabs.length > 2 && (await tabs.splice(tabs.indexOf(tab), 1)[0].page.close()),
          () => tab.reload(),
          async () => {
            await say(tab, 'freeze');
            const before = number;
            await until('five events are published', () => number > before + 5);
            await say(tab, 'resume');
          },
          async () => {
            const [client] = await server.clients('storm');
            if (client) await server.call('DELETE', `/channels/storm/clients/${client.id}`).catch(() => {});
          },
        ];
        await doings[random(doings.length)]();
      }
      // The last client may begin behind all that was published so far.
      for (const [i, tab] of tabs.entries()) {
        await until(`tab ${i} has begun, with the seed ${seed}`, async () => (await row(tab)).length > 0);
      }
    } finally {
      isOver = true;
      await publishing;
    }
    await server.publish('storm', 'end');
    for (const [i, tab] of tabs.entries()) {
      const got = await until(`tab ${i} has the end, with the seed ${seed}`, async () => {
        const got = await row(tab);
        return got.at(-1) === 'end' && got.slice(0, -1).map(Number);
      });
      const wanted = got.map((_, i) => got[0] + i);
      same(got, wanted, `the row of tab ${i}, with the seed ${seed}`);
      same(got.at(-1), number, `its last event, with the seed ${seed}`);
    }
    await clientsAre(server, 'storm', 1);
  },

  async 'a late tab whose URL asks for history reads that for itself, then joins'({ site, server }) {
    const url = `${server.base}/channels/last?last=2`;
    const first = await Tab.open(site, url);
    for (const data of ['1', '2', '3']) await server.publish('last', data);
    await first.dataUpTo('3');
    const second = await Tab.open(site, url);
    same(await second.dataUpTo('3'), ['2', '3'], 'the data');
    await clientsAre(server, 'last', 1);
    await server.publish('last', '4');
    same(await second.dataUpTo('4'), ['2', '3', '4'], 'the data');
    same(second.asked, 1, 'its requests');
  },

  async 'a reload misses nothing, whichever tab leads'({ site, server }) {
    const tabs = await openTabs(2, site, `${server.base}/channels/again`);
    await server.publish('again', { data: 'before', retry: RETRY_MS });
    const leader = await leaderOf(tabs);
    for (const tab of [leader, ...tabs.filter((tab) => tab !== leader)]) {
      await tab.dataUpTo('before');
      // Away, so that this tab is not connected when the event comes.
      await tab.page.goto('about:blank');
      const { id } = await server.publish('again', 'meanwhile');
      await tab.page.goto(site.pages);
      await tab.watch();
      same(await tab.dataUpTo('meanwhile'), ['meanwhile'], 'the data after the reload');
      await clientsAre(server, 'again', 1);
      await server.publish('again', 'before');
      same(await tab.dataUpTo('before'), ['meanwhile', 'before'], 'the data');
      same((await tab.now()).events[0].id, id, 'its id');
    }
    const { events } = await tabs.find((tab) => tab !== leader).now();
    same(events.length, 2, 'the events of the tab that was reloaded last');
  },

  async 'a lone tab that is reloaded resumes; after close() it starts again'({ site, server }) {
    const tab = await Tab.open(site, `${server.base}/channels/lone`);
    const { id } = await server.publish('lone', 'one');
    await tab.dataUpTo('one');
    await tab.page.goto('about:blank');
    await clientsAre(server, 'lone', 0);
    await server.publish('lone', 'two');
    await tab.page.goto(site.pages);
    await tab.watch();
    same(await tab.dataUpTo('two'), ['two'], 'the data');
    same((await tab.now()).events[0].id > id, true, 'a later id');
    await tab.close();
    await server.publish('lone', 'unheard');
    await tab.reload();
    await tab.until('it is open', (now) => now.readyState === 1);
    await server.publish('lone', 'three');
    same(await tab.dataUpTo('three'), ['three'], 'the data');
  },

  async 'a page that goes to the back/forward cache steps back, and has it all when it returns'({ site, server }) {
    const tabs = await openTabs(3, site, `${server.base}/channels/cached`);
    const leader = await leaderOf(tabs);
    const others = tabs.filter((tab) => tab !== leader);
    await leader.page.evaluate(() =>
      addEventListener('pageshow', ({ persisted }) => (globalThis.wasCached = persisted)),
    );
    await leader.page.goto(`${site.pages}elsewhere`);
    await leaderOf(others);
    await server.publish('cached', 'meanwhile');
    for (const tab of others) await tab.dataUpTo('meanwhile');
    await leader.page.goBack({ waitUntil: 'commit' });
    await until('it came from the cache', () => leader.page.evaluate(() => globalThis.wasCached));
    await leader.dataUpTo('meanwhile');
    await server.publish('cached', 'end');
    for (const tab of tabs) same(await tab.dataUpTo('end'), ['meanwhile', 'end'], 'the data');
    await clientsAre(server, 'cached', 1);
  },

  // Playwright keeps its pages visible, and Chromium freezes none that are: what it
  // would say to a page is said from here.
  async 'a leader that is frozen steps back, and has it all when it wakes'({ site, server }) {
    const tabs = await openTabs(3, site, `${server.base}/channels/frozen`);
    const leader = await leaderOf(tabs);
    const others = tabs.filter((tab) => tab !== leader);
    const say = (type) => leader.page.evaluate((type) => document.dispatchEvent(new Event(type)), type);
    await say('freeze');
    await leaderOf(others);
    await server.publish('frozen', 'meanwhile');
    for (const tab of others) await tab.dataUpTo('meanwhile');
    same((await leader.now()).events, [], 'what came while it was frozen');
    await say('resume');
    await server.publish('frozen', 'end');
    for (const tab of tabs) same(await tab.dataUpTo('end'), ['meanwhile', 'end'], 'the data');
    await clientsAre(server, 'frozen', 1);
  },

  async 'when the tab that leads hangs the others read for themselves, and join it again'({ site, server }) {
    const options = { watchdog: 1500 };
    const beats = await Server.start(undefined, ['--heartbeat', '1']);
    try {
      const tabs = await openTabs(2, site, `${beats.base}/channels/hung`, { options });
      const leader = await leaderOf(tabs);
      const other = tabs.find((tab) => tab !== leader);
      // It hangs until it gets a signal, over what it reads without its event loop.
      const hung = leader.page.evaluate((url) => {
        for (;;) {
          const ask = new XMLHttpRequest();
          ask.open('GET', url, false);
          ask.send();
          if (ask.responseText === 'go on') return;
        }
      }, site.pages + 'hang');
      hung.catch(() => {}); // it ends with the page when the story does
      await leaderOf([other]);
      await beats.publish('hung', 'one');
      await other.dataUpTo('one');
      site.hang = 'go on';
      await hung;
      await beats.publish('hung', 'two');
      for (const tab of tabs) same(await tab.dataUpTo('two'), ['one', 'two'], 'the data');
      await clientsAre(beats, 'hung', 1);
    } finally {
      await beats.kill();
    }
  },

  async 'where there are no locks each tab has a connection of its own'({ site, server }) {
    const at = site.pages.replace('127.0.0.1', 'plain.test');
    const tabs = await openTabs(2, site, `${at}relay/channels/plain`, { at });
    same(await tabs[0].page.evaluate(() => [isSecureContext, 'locks' in navigator]), [false, false], 'the page');
    await clientsAre(server, 'plain', 2);
    await server.publish('plain', 'end');
    for (const tab of tabs) same(await tab.dataUpTo('end'), ['end'], 'the data');
  },
};

// ---- the stories: what can go wrong -----------------------------------------------

const faultStories = {
  async 'cut off, it comes back with its cursor; all tabs receive the state'({ site, server }) {
    const tabs = await openTabs(3, site, `${server.base}/channels/cut`);
    await server.publish('cut', { data: '1', retry: RETRY_MS });
    for (const tab of tabs) await tab.dataUpTo('1');
    const wanted = ['1'];
    // After three streams that are cut within a second it would poll.
    for (let round = 2; round <= 3; round++) {
      await server.cut('cut');
      wanted.push(`${round}`);
      await server.publish('cut', wanted.at(-1));
      for (const tab of tabs) {
        same(await tab.dataUpTo(wanted.at(-1)), wanted, 'the data');
        const now = await tab.until('it is open again', (now) => now.readyState === 1 && now.opens === round);
        same(now.errors, Array(round - 1).fill(200), 'the errors');
      }
    }
  },

  async 'a restart of the server is a gap in each tab, once'({ site }) {
    let life = await Server.start();
    const { base } = life;
    try {
      const tabs = await openTabs(2, site, `${base}/channels/life`);
      const { id } = await life.publish('life', { data: 'before', retry: RETRY_MS });
      for (const tab of tabs) await tab.dataUpTo('before');
      await life.kill();
      for (const tab of tabs) await tab.until('it knows', (now) => now.readyState === 0 && now.errors.at(-1) === 0);
      life = await Server.start(new URL(base).host);
      for (const tab of tabs) {
        const { gaps } = await tab.until('the gap', (now) => now.gaps.length > 0 && now.readyState === 1);
        same([gaps[0].reason, gaps[0].requested], ['restart', id], 'reason and requested');
      }
      await life.publish('life', 'after');
      for (const tab of tabs) {
        await tab.dataUpTo('after');
        const { events, gaps } = await tab.now();
        same(events.map((e) => e.event), ['message', 'pushwheel.gap', 'message'], 'the events');
        same(gaps.length, 1, 'the gaps');
      }
    } finally {
      await life.kill();
    }
  },

  async 'a dead line is noticed by its silence, and what it swallowed comes'({ site }) {
    const beats = await Server.start(undefined, ['--heartbeat', '1']);
    const way = await deadEnd(beats.base);
    try {
      const tabs = await openTabs(2, site, `${way.base}/channels/dead`, { options: { watchdog: 4000 } });
      await beats.publish('dead', { data: '1', retry: RETRY_MS });
      for (const tab of tabs) await tab.dataUpTo('1');
      way.die();
      const { clients } = await beats.publish('dead', '2');
      same(clients, 1, 'the clients that the server believes in');
      for (const tab of tabs) same(await tab.dataUpTo('2'), ['1', '2'], 'the data');
      same(asked(tabs), 2, 'the requests');
    } finally {
      way.close();
      await beats.kill();
    }
  },

  async 'heartbeats keep a quiet line from being taken for a dead one'({ site, faulty }) {
    const beats = await Server.start(undefined, ['--heartbeat', '1']);
    try {
      const tabs = await openTabs(2, site, `${beats.base}/channels/quiet`, { options: { watchdog: 6000 } });
      // The clock: each round is 200 ms of silence and a pause of a second, so that
      // the line and, after 12 s, the tab that leads would have been missed.
      faulty.at('/faulty/silent', stream('retry: 1000\n\n'));
      const before = () => (Math.random = () => 0);
      const clock = await Tab.open(site, '/faulty/silent', { before, options: { watchdog: 200, delayMax: 1000 } });
      await clock.until('it has lost patience twelve times', (now) => now.errors.length >= 12);
      for (const tab of tabs) same((await tab.now()).errors, [], 'the errors');
      same(asked(tabs), 1, 'the requests');
    } finally {
      await beats.kill();
    }
  },

  async 'what ends an EventSource for good is tried again, later and later, up to a limit'({ site, faulty }) {
    const steps = [stream('retry: 100\n\n', { ends: true }), says(500), says(404), says(200, { 'content-type': 'text/html' })];
    const asked = faulty.at('/faulty/fatal', ...steps, says(503), says(503), says(503), stream('data: alive\n\n'));
    // The most that chance can add: twice the delay.
    const before = () => (Math.random = () => 0.999);
    const options = { delayMax: 400 };
    const tab = await Tab.open(site, '/faulty/fatal', { isShut: true, options, before });
    same(await tab.dataUpTo('alive'), ['alive'], 'the data');
    const waited = asked.slice(1).map(({ at }, i) => at - asked[i].at);
    for (const [i, least] of [200, 400, 800, 800, 800, 800].entries())
      // The server's clock is not the browser's: a little less is right.
      if (waited[i] < least - 20) throw new Error(`pause ${i} was ${waited[i]} ms, less than ${least}`);
    same((await tab.now()).errors, [200, 500, 404, 200, 503, 503, 503], 'the errors');
  },

  async 'a stream that is cut again and again, and brings an event each time, is tried again soon'({ site, faulty }) {
    // Without that, the last of the delays alone would be 26 s.
    const steps = Array.from({ length: 8 }, (_, n) => stream(`retry: 100\nid: ${n}\ndata: ${n}\n\n`, { ends_after_ms: 1100 }));
    faulty.at('/faulty/cut', ...steps, stream('id: 8\ndata: 8\n\n'));
    const before = () => (Math.random = () => 0.999);
    const tab = await Tab.open(site, '/faulty/cut', { isShut: true, before });
    same((await tab.dataUpTo('8')).length, 9, 'the number of events');
    same((await tab.now()).errors, Array(8).fill(200), 'the errors');
  },

  async '204 closes it for all tabs'({ site, server }) {
    const tabs = await openTabs(3, site, `${server.base}/channels/done`);
    await server.publish('done', { data: 'the last', retry: RETRY_MS });
    for (const tab of tabs) await tab.dataUpTo('the last');
    await server.call('DELETE', '/channels/done?finish');
    for (const tab of tabs) {
      const now = await tab.until('it is closed', (now) => now.readyState === 2);
      same(now.errors.at(-1), 204, 'its last error');
      same(now.events.map((e) => e.data), ['the last'], 'the data');
    }
    // Closed tabs ask no more, while one that is not goes on.
    const before = asked(tabs);
    const clock = await Tab.open(site, `${server.base}/channels/clock`);
    await server.publish('clock', { data: 'tick', retry: RETRY_MS });
    await clock.dataUpTo('tick');
    for (let opens = 2; opens <= 3; opens++) {
      await server.cut('clock');
      await clock.until('it is open again', (now) => now.opens === opens);
    }
    same(asked(tabs), before, 'the requests of the closed tabs');
  },

  async 'back online, or looked at in any tab, it tries at once'({ site, faulty }) {
    const later = says(503, { 'retry-after': '600' });
    const asked = faulty.at('/faulty/later', later, later, stream('data: alive\n\n'));
    const tabs = await openTabs(2, site, '/faulty/later', { isShut: true });
    // The second one's coming may have been a reason to try.
    const look = (tab, type) => tab.page.evaluate((type) => document.dispatchEvent(new Event(type)), type);
    for (const tab of tabs) await tab.until('it was refused', (now) => now.errors.includes(503) || asked.length > 1);
    const leader = await leaderOf(tabs);
    await site.context.setOffline(true);
    await site.context.setOffline(false);
    await until('the second try', () => asked.length >= 2);
    // Whether that try is over does not show in the tab that looks.
    await until('the stream is there', async () => {
      await look(tabs.find((tab) => tab !== leader), 'visibilitychange');
      return (await leader.now()).events.length > 0;
    });
    for (const tab of tabs) same(await tab.dataUpTo('alive'), ['alive'], 'the data');
  },

  async 'refused, it asks for credentials and comes back with them at once'({ site, faulty }) {
    const guarded = (answer, request) =>
      request.headers.authorization === 'Bearer fresh'
        ? stream('data: in\n\n')(answer)
        : // The test does not wait that long.
          says(401, { 'retry-after': '600' })(answer);
    const asked = faulty.at('/faulty/guarded', guarded);
    const answers = [{ headers: { Authorization: 'Bearer fresh' } }];
    const tab = await Tab.open(site, '/faulty/guarded', { answers });
    same(await tab.dataUpTo('in'), ['in'], 'the data');
    same((await tab.now()).reauths, [401], 'the statuses');
    same(asked.map(({ headers }) => headers.authorization ?? null), [null, 'Bearer fresh'], 'what it had');
  },

  async 'tabs with different headers, as of two users, do not share a connection'({ site, faulty }) {
    const own = (answer, request) =>
      stream(`data: for ${request.headers.authorization}\n\n`)(answer);
    faulty.at('/faulty/own', own);
    for (const user of ['alice', 'bob']) {
      const options = { headers: { Authorization: user } };
      const tab = await Tab.open(site, '/faulty/own', { options });
      same(await tab.dataUpTo(`for ${user}`), [`for ${user}`], 'the data');
      same(tab.asked, 1, 'the requests of the tab');
    }
  },

  async 'credentials that run out during a stream are renewed, and it goes on'({ site, faulty }) {
    const block = 'retry: 600000\nid: 1\ndata: in\n\nevent: pushwheel.reauth\ndata: {}\n\n';
    faulty.at('/faulty/expires', stream(block, { ends: true }), says(500));
    const more = faulty.at('/faulty/ticket', stream('id: 2\ndata: with a ticket\n\n'));
    const tab = await Tab.open(site, '/faulty/expires', { isShut: true, answers: ['/faulty/ticket?t=1'] });
    await tab.dataUpTo('with a ticket');
    const { events, reauths, readyState } = await tab.now();
    same(events.map((e) => [e.event, e.id]), [['message', '1'], ['pushwheel.reauth', '1'], ['message', '2']], 'the events');
    same([reauths, readyState], [[401], 1], 'the statuses');
    same([more[0].headers['last-event-id'], more[0].url], ['1', '/faulty/ticket?t=1&cursor'], 'the request after it');
  },

  async 'refused again and again it waits; false closes it, in all tabs'({ site, faulty }) {
    let begun;
    const begin = (answer) => stream('retry: 300\n\n')((begun = answer));
    const asked = faulty.at('/faulty/forbidden', begin, says(403));
    const tabs = await openTabs(2, site, '/faulty/forbidden', { answers: [null, null, false] });
    begun.end();
    for (const tab of tabs) await tab.until('it is closed', (now) => now.readyState === 2);
    const leader = await leaderOf(tabs);
    same((await leader.now()).reauths, [403, 403, 403], 'the statuses');
    const pause = asked.at(-1).at - asked.at(-2).at;
    if (pause < 580) throw new Error(`it asked again after ${pause} ms`);
  },

  async 'cookies go to another origin where that is wished'({ site, faulty }) {
    const allowed = (answer, request) =>
      stream('data: in\n\n', {
        headers: { 'access-control-allow-origin': request.headers.origin, 'access-control-allow-credentials': 'true' },
      })(answer);
    const asked = faulty.at('/faulty/cookie', allowed);
    await site.context.addCookies([{ name: 'who', value: 'me', url: site.others }]);
    const url = `${site.others}faulty/cookie`;
    for (const [withCredentials, cookie] of [[false, undefined], [true, 'who=me']]) {
      const tab = await Tab.open(site, url, { options: { withCredentials } });
      await tab.dataUpTo('in');
      same(asked.at(-1).headers.cookie, cookie, 'the cookie');
    }
  },

  async 'an id of any characters comes back as its bytes'({ site, faulty }) {
    const asked = faulty.at('/faulty/id', stream('retry: 100\nid: grüße 🦀\ndata: 1\n\n', { ends: true }), stream('data: 2\n\n'));
    const tab = await Tab.open(site, '/faulty/id', { isShut: true });
    same(await tab.dataUpTo('2'), ['1', '2'], 'the data');
    same(Buffer.from(asked[1].headers['last-event-id'], 'latin1').toString(), 'grüße 🦀', 'the id');
    same((await tab.now()).events[1].id, 'grüße 🦀', 'the id that holds on');
  },

  async 'what a page throws stops nothing'({ site, server }) {
    const tabs = await openTabs(2, site, `${server.base}/channels/throws`);
    for (const tab of tabs)
      await tab.page.evaluate(() => {
        globalThis.wheel.source.onmessage = () => {
          throw new Error('on purpose');
        };
      });
    await server.publish('throws', '1');
    await server.publish('throws', '2');
    for (const tab of tabs) same(await tab.dataUpTo('2'), ['1', '2'], 'the data');
    same(asked(tabs), 1, 'the requests');
  },
};

// ---- the stories: without a browser -------------------------------------------------

const { parser } = await import(join(ASSETS, 'pushwheel.js'));

/// What the parser makes of these pieces.
function parsed(pieces) {
  const decoder = new TextDecoder();
  const seen = [];
  const parse = parser('start', (...block) => seen.push(block.filter((part) => part !== undefined)), (ms) => seen.push(ms));
  for (const piece of pieces) parse(decoder.decode(piece, { stream: true }));
  return seen;
}

const pureStories = {
  async 'the parser reads what the standard says'() {
    for (const [text, ...wanted] of [
      ['data: a\n\n', ['start', 'message', 'a']],
      ['\ufeffdata: a\n\n', ['start', 'message', 'a']],
      ['\ufeff\ufeffdata: a\n\n', ['start']],
      ['data:a\rdata: b\r\ndata:  c\n\r', ['start', 'message', 'a\nb\n c']],
      ['data\n\n', ['start', 'message', '']],
      ['data\ndata\n\n', ['start', 'message', '\n']],
      ['data: a:b\u2028c\n\n', ['start', 'message', 'a:b\u2028c']],
      [':x\n:\n\n', ['start']],
      ['event: e\ndata: 1\n\ndata: 2\n\n', ['start', 'e', '1'], ['start', 'message', '2']],
      ['event: e\n\ndata: 2\n\n', ['start'], ['start', 'message', '2']],
      ['id: 7\n\ndata: 1\n\n', ['7'], ['7', 'message', '1']],
      ['id\ndata: 1\n\n', ['', 'message', '1']],
      ['id: a\0b\ndata: 1\n\n', ['start', 'message', '1']],
      ['retry: 10\nretry: 1.5\nretry: -1\nretry\nretry: 5s\n\n', 10, ['start']],
      ['Data: a\nother: b\ndata : c\n\n', ['start']],
      ['data: unfinished\n'],
      ['data: a\r\n\r\ndata: b\r\r\n', ['start', 'message', 'a'], ['start', 'message', 'b']],
    ]) {
      const bytes = Buffer.from(text);
      same(parsed([bytes]), wanted, JSON.stringify(text));
      same(parsed([...bytes].map((byte) => Uint8Array.of(byte))), wanted, `${JSON.stringify(text)}, byte by byte`);
    }
  },

  async 'and the golden frames, wherever they are cut'() {
    const golden = join(import.meta.dirname, '../golden');
    const files = readdirSync(golden).filter((name) => name.endsWith('.sse'));
    same(files.length > 10, true, 'there are golden frames');
    for (const file of files) {
      const bytes = readFileSync(join(golden, file));
      const whole = parsed([bytes]);
      for (let cut = 1; cut < Math.min(bytes.length, 5000); cut++)
        same(parsed([bytes.subarray(0, cut), bytes.subarray(cut)]), whole, `${file}, cut at ${cut}`);
    }
  },

  async 'the types fit a program, and the script itself'() {
    const tsc = join(import.meta.dirname, 'node_modules/typescript/bin/tsc');
    for (const project of ['sample', 'script']) {
      try {
        execFileSync(process.execPath, [tsc, '--project', join(import.meta.dirname, `types/${project}.json`)]);
      } catch (wrong) {
        throw new Error(`${project}: ${wrong.stdout}`);
      }
    }
  },

  async 'the types name what the class has'() {
    const { PushWheel } = await import(join(ASSETS, 'pushwheel.js'));
    const types = readFileSync(join(ASSETS, 'pushwheel.d.ts'), 'utf8');
    const [, body] = /class PushWheel extends EventTarget \{(.*?)\n\}/s.exec(types);
    const typed = new Set([...body.matchAll(/^  (?:static )?(?:readonly )?(\w+)[:(]/gm)].map(([, name]) => name));
    const wheel = new PushWheel('http://127.0.0.1:9/', { storage: null });
    const own = [...Object.keys(wheel), ...Object.getOwnPropertyNames(PushWheel.prototype), 'addEventListener', 'removeEventListener'];
    wheel.close();
    same([...typed].sort(), [...new Set(own)].sort(), 'the names');
  },
};

// ---- the stories: the documentation -----------------------------------------------

const guide = readFileSync(join(import.meta.dirname, '../../docs/client.md'), 'utf8');
const snippets = [...guide.matchAll(/^```js\n(.*?)^```/gms)].map(([, code]) => code);

const docStories = {
  async 'each snippet of docs/client.md runs'({ site, server }) {
    same(snippets.length >= 5, true, 'there are snippets');
    for (const [i, code] of snippets.entries()) {
      const page = await site.context.newPage();
      const wrong = [];
      page.on('pageerror', (error) => wrong.push(String(error)));
      await page.goto(`${server.base}/health`);
      // What the snippets take from their page.
      await page.evaluate(() => {
        globalThis.shown = [];
        for (const name of ['show', 'reload', 'sayThatItIsOver', 'sayThatItReconnects'])
          globalThis[name] = (what) => globalThis.shown.push(what);
        globalThis.freshToken = async () => 'fresh';
        globalThis.user = { name: 'alice' };
      });
      const last = `globalThis.wheel = typeof source === 'undefined' ? undefined : source;`;
      await page.addScriptTag({ type: 'module', content: `${code}\n${last}\nglobalThis.isDone = true;` });
      await until(`snippet ${i} has run: ${wrong}`, () => page.evaluate(() => globalThis.isDone));
      if (await page.evaluate(() => !!globalThis.wheel)) {
        await until(`snippet ${i} is open`, () => page.evaluate(() => globalThis.wheel.readyState === 1));
        await server.publish('news', { event: 'headline', data: `for ${i}` });
        const isShown = () => page.evaluate((data) => globalThis.shown.includes(data), `for ${i}`);
        if (/show\(/.test(code)) await until(`snippet ${i} has shown it`, isShown);
      }
      same(wrong, [], `snippet ${i}`);
      await page.close();
    }
  },
};

// ---- the run ------------------------------------------------------------------------

const tally = new Tally();
const faulty = new Faulty();
let server;
let browser;
let hang = '';

// The pages' own server: blank pages, what misbehaves, and a way to the real
// server for pages that have no other.
const pages = createServer((request, answer) => {
  if (faulty.handle(request, answer)) return;
  if (request.url === '/hang') return void answer.end(hang);
  if (request.url.startsWith('/relay/')) {
    const { hostname, port } = new URL(server.base);
    const way = connect(port, hostname, () =>
      way.write(`GET ${request.url.slice(6)} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nAccept: text/event-stream\r\n\r\n`),
    );
    way.on('error', () => {});
    request.socket.on('close', () => way.destroy());
    return void way.pipe(request.socket);
  }
  answer.setHeader('content-type', 'text/html; charset=utf-8');
  answer.end('<!doctype html><link rel="icon" href="data:,"><title>pushwheel</title>');
});
await new Promise((listening) => pages.listen(0, '127.0.0.1', listening));
const others = createServer((request, answer) => faulty.handle(request, answer) || answer.end());
await new Promise((listening) => others.listen(0, '127.0.0.1', listening));
const at = (listener) => `http://127.0.0.1:${listener.address().port}/`;

try {
  await tally.tell(pureStories, async () => ({ cleanUp: () => {} }));
  server = await Server.start(undefined, ['--allow-host', 'plain.test']);
  browser = await launchChromium({
    more: ['--host-resolver-rules=MAP plain.test 127.0.0.1'],
    without: ['--disable-back-forward-cache'],
  });
  await tally.tell({ ...tabStories, ...faultStories, ...docStories }, async () => {
    hang = '';
    const context = await browser.newContext();
    const site = { context, server, pages: at(pages), others: at(others), set hang(say) { hang = say; } };
    return { given: { site, server, faulty }, cleanUp: () => context.close() };
  });
} catch (wrong) {
  tally.fail('the suite', wrong);
} finally {
  await browser?.close();
  await server?.kill();
  for (const listener of [pages, others]) {
    listener.close();
    listener.closeAllConnections();
  }
}
if (tally.failed && server?.log) console.error(`# the server said:\n${server.log.slice(-4000).replace(/^/gm, '    # ')}`);
tally.close('client');
