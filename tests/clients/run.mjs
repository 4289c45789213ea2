// Real packages that read event streams, against the real binary: each sees what
// was published, all of it, once and in order, and nothing else, however long the
// stream is silent, and over a reconnection.
//
//   run.mjs [BINARY]         the packages of npm, and with PYTHON=FILE in the
//                            environment those of PyPI that this Python has
//
// docs/clients.md has what is found here.

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { get } from 'node:http';
import { createInterface } from 'node:readline';
import { Tally, limitSuite, same, until } from '../browser/common.mjs';
import { Server } from '../browser/server.mjs';
import { packages } from './packages.mjs';

/// Heartbeats come after a second at the latest, and after three quarters of one
/// at the soonest: within eight of one stream any other has five.
const HEARTBEATS = 8;

/// A package of PyPI, in a process of its own.
const python = (name, about) => ({
  ...about,
  open(url, heard) {
    const child = spawn(process.env.PYTHON, [join(import.meta.dirname, 'packages.py'), name, url], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    child.stderr.on('data', (text) => (said += text));
    child.on('exit', (code) => code && heard(JSON.stringify({ wrong: said.slice(-2000) })));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const { data, id } = JSON.parse(line);
      heard(data, id);
    });
    return () => child.kill('SIGKILL');
  },
});

const clients = {
  ...packages,
  ...(process.env.PYTHON && {
    'httpx-sse': python('httpx_sse', { empty: 0, unseen: true }),
    'sseclient-py': python('sseclient_py', { empty: 0, unseen: true }),
    'sseclient': python('sseclient', { empty: 1, unseen: true }),
    'sseclient, cursor=false': python('sseclient', { query: '?cursor=false', empty: 0, unseen: false }),
    'aiohttp-sse-client': python('aiohttp_sse_client', { empty: 0, unseen: true }),
  }),
};

/// A client of its own channel, and what its handler has heard.
class Client {
  heard = [];
  faults = [];

  constructor(server, name, about, what) {
    Object.assign(this, about, { server });
    this.channel = `${name} ${what}`.replace(/[^a-z0-9]+/gi, '-');
    this.close = this.open(`${server.base}/channels/${this.channel}${this.query ?? ''}`, (data, id) => {
      this.heard.push({ data, id });
      // As very many handlers do.
      JSON.parse(data || 'null');
    });
  }

  isThere() {
    // There is no channel before its first client.
    const clients = () => this.server.clients(this.channel).catch(() => []);
    return until(`a client in ${this.channel}`, async () => (await clients()).length === 1);
  }

  publish(n) {
    const id = `${this.channel}-${n}`;
    return this.server.publish(this.channel, { data: { n, id }, id, retry: 200 });
  }

  /// Waits for a number, and returns all that came, without the messages that the
  /// package makes up of the opening.
  async numbersUpTo(last) {
    const numbers = () => this.heard.map(({ data }) => (data === '' ? 'empty' : JSON.parse(data).n ?? data));
    await until(`${last} in ${this.channel}`, () => numbers().includes(last)).catch((wrong) => {
      throw new Error(`${wrong.message}; it has ${JSON.stringify(this.heard)}`);
    });
    return numbers();
  }

  get opening() {
    return Array(this.empty).fill('empty');
  }
}

/// Silence, messages, a cut, what was missed, and messages again.
async function goesOn(client, heartbeats) {
  await client.isThere();
  await heartbeats;
  same(client.heard.map(({ data }) => data), client.opening.map(() => ''), 'what came before anything was published');
  const ids = [];
  for (const n of [1, 2, 3]) ids.push((await client.publish(n)).id);
  await client.numbersUpTo(3);
  await client.server.cut(client.channel);
  ids.push((await client.publish(4)).id);
  await client.isThere();
  ids.push((await client.publish(5)).id);
  same(await client.numbersUpTo(5), [...client.opening, 1, 2, 3, 4, 5], 'what came in all');
  same(client.heard.slice(client.empty).map(({ id }) => id), ids, 'the ids');
}

/// A cut before anything was published.
async function begins(client) {
  await client.isThere();
  await client.server.cut(client.channel);
  const { clients } = await client.publish(1);
  await client.isThere();
  await client.publish(2);
  // On a slow machine it may be back before the first event is published.
  const missed = client.unseen || clients === 1 ? [1] : [];
  // Without an id to come back with, each stream is a new one.
  same(await client.numbersUpTo(2), [...client.opening, ...missed, 2], 'what came in all');
}

/// Resolves when a stream has had so many lines that keep it alive.
const heartbeats = (server) =>
  new Promise((done, fail) => {
    let body = '';
    const request = get(`${server.base}/channels/watched`, (answer) => {
      answer.on('error', fail).on('data', (bytes) => {
        body += bytes;
        // The first one opens the stream.
        if (body.match(/^(ping)?:$/gm)?.length > HEARTBEATS) done(request.destroy());
      });
    });
    request.on('error', fail);
  });

limitSuite('clients');
// Nothing is published again from before a restart.
const server = await Server.start(undefined, ['--heartbeat', '1', '--republish-window', '0']);
const silence = heartbeats(server);
silence.catch(() => {});
const tally = new Tally();
// All at once: each waits for little but the time.
await Promise.all(
  Object.entries(clients).flatMap(([name, about]) =>
    [
      ['hears what is published and nothing else, over silence and a cut', (client) => goesOn(client, silence)],
      [about.unseen ? 'misses nothing when it is cut off before its first event' : 'begins again when it is cut off before its first event', begins],
    ].map(async ([what, story], number) => {
      const client = new Client(server, name, about, number);
      await tally.tell({ [`${name} ${what}`]: story }, () => ({ given: client, cleanUp: () => client.close() }));
    }),
  ),
);
await server.kill();
if (tally.failed) console.error(`# the server said:\n${server.log.slice(-4000).replace(/^/gm, '    # ')}`);
tally.close('clients');
process.exit();
