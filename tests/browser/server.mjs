// The real binary, as the suites drive it: $PUSHWHEEL_BIN, or the one that is
// named to the suite, or target/debug/pushwheel.

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { DEADLINE_MS, Program, until } from './common.mjs';

const binary = resolve(
  process.argv[2] ?? process.env.PUSHWHEEL_BIN ?? join(import.meta.dirname, '../../target/debug/pushwheel'),
);
if (!existsSync(binary)) {
  console.error(`no binary at ${binary}: run cargo build first`);
  process.exit(2);
}
const workDir = mkdtempSync(join(tmpdir(), 'pushwheel-browser-'));
process.on('exit', () => rmSync(workDir, { recursive: true, force: true }));

export class Server extends Program {
  static start(listen = '127.0.0.1:0', options = []) {
    return new this().start(binary, ['serve', '--listen', listen, ...options], { cwd: workDir });
  }

  async call(method, path, body, headers = {}) {
    const answer = await fetch(this.base + path, {
      method,
      body: body && JSON.stringify(body),
      headers: { ...headers, ...(body && { 'content-type': 'application/json' }) },
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text && answer.headers.get('content-type')?.startsWith('application/json') ? JSON.parse(text) : text;
  }

  /// Answers `{ id, events, clients }`.
  publish(channel, event) {
    return this.call('POST', `/channels/${channel}`, typeof event === 'string' ? { data: event } : event);
  }

  async clients(channel) {
    const listed = await this.call('GET', `/channels/${channel}/clients`);
    return listed.clients ?? listed;
  }

  /// Cuts the connection of the channel's only client, and nothing else.
  async cut(channel) {
    const [client] = await until(`one client in ${channel}`, async () => {
      const there = await this.clients(channel);
      return there.length === 1 && there;
    });
    await this.call('DELETE', `/channels/${channel}/clients/${client.id}`);
  }
}
