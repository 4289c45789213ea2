// What the suites that drive Chromium share: conditions with a deadline, the
// programs they talk to, the browser itself, and the run of the stories.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { chromium } from 'playwright-core';

export const DEADLINE_MS = 30_000;
const STORY_DEADLINE_MS = 90_000;
const SUITE_DEADLINE_MS = 600_000;

// ---- conditions ---------------------------------------------------------------

/// Polls until `condition` gives something true, and gives that.
export async function until(what, condition, deadline_ms = DEADLINE_MS) {
  const end = Date.now() + deadline_ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${deadline_ms} ms: ${what}`);
    await new Promise((later) => setTimeout(later, 10));
  }
}

/// For what cannot be polled: the promise, or an error after so long.
export function within(deadline_ms, promise) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`not done within ${deadline_ms} ms`)), deadline_ms);
  });
  promise.catch(() => {}); // it may still fail after the race is over
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export function same(got, wanted, what) {
  if (!isDeepStrictEqual(got, wanted))
    throw new Error(`${what}:\n  wanted ${JSON.stringify(wanted)}\n  got    ${JSON.stringify(got)}`);
}

/// All requests of the page for `path`, each with the Last-Event-ID that the
/// browser sent of itself (null: none).
export function requests(page, path) {
  const list = [];
  page.on('request', (request) => {
    if (new URL(request.url()).pathname !== path || request.method() === 'OPTIONS') return;
    const entry = { lastEventId: undefined };
    list.push(entry);
    request.allHeaders().then(
      (headers) => (entry.lastEventId = headers['last-event-id'] ?? null),
      () => {},
    );
  });
  return list;
}

// ---- programs -----------------------------------------------------------------

const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

/// A program that listens and says where.
export class Program {
  log = '';

  /// Resolves once it has printed its address, which is then `base`.
  async start(binary, args, options = {}) {
    this.process = spawn(binary, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(this.process);
    this.exited = new Promise((done) => {
      this.process.once('exit', done);
      this.process.once('error', (wrong) => {
        this.log += wrong;
        done();
      });
    });
    this.exited.then(() => {
      this.gone = true;
      running.delete(this.process);
    });
    for (const out of [this.process.stdout, this.process.stderr]) out.on('data', (text) => (this.log += text));
    await until('the program says where it listens', () => {
      if (this.gone) throw new Error(`the program ended: ${this.log}`);
      return (this.base = /https?:\/\/127\.0\.0\.1:\d+/.exec(this.log)?.[0]);
    });
    return this;
  }

  async kill() {
    this.process.kill('SIGKILL');
    await this.exited;
  }
}

// ---- the run ------------------------------------------------------------------

/// Ends a suite that hangs, whatever it hangs on.
export function limitSuite(name, deadline_ms = SUITE_DEADLINE_MS) {
  setTimeout(() => {
    console.error(`${name}: not done within ${deadline_ms} ms`);
    process.exit(1);
  }, deadline_ms).unref();
}

/// `more` are further arguments to it, `without` those of Playwright's to leave out.
export async function launchChromium({ more = [], without = [] } = {}) {
  const executablePath =
    process.env.CHROMIUM ??
    ['chromium', 'chromium-browser', 'google-chrome'].map((name) => `/usr/bin/${name}`).find(existsSync);
  if (!executablePath) throw new Error('no Chromium in /usr/bin: apt-get install chromium, or say CHROMIUM=PATH');
  return chromium.launch({
    executablePath,
    headless: true,
    ignoreDefaultArgs: without,
    chromiumSandbox: false,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--disable-dev-shm-usage',
      ...more,
    ],
  });
}

/// Runs each story with what `prepare` makes for it, and counts.
export class Tally {
  passed = 0;
  failed = 0;

  async tell(stories, prepare, deadline_ms = STORY_DEADLINE_MS) {
    for (const [name, story] of Object.entries(stories)) {
      const begun = Date.now();
      const { given, cleanUp } = await prepare(name);
      try {
        await within(deadline_ms, story(given));
        this.passed++;
        console.log(`ok - ${name} (${Date.now() - begun} ms)`);
      } catch (wrong) {
        this.fail(name, wrong);
      } finally {
        await cleanUp();
      }
    }
  }

  fail(name, wrong) {
    this.failed++;
    console.log(`not ok - ${name}\n${String(wrong?.stack ?? wrong).replace(/^/gm, '    # ')}`);
  }

  /// The closing line, which `tests/run` adds up.
  close(suite) {
    console.log(`${suite}: ${this.passed} passed, ${this.failed} failed`);
    process.exitCode = this.failed ? 1 : 0;
  }
}
