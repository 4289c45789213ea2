// Each of the examples in headless Chromium: does its page do what its use
// case says?
//
//   node examples.mjs [BINARIES] [PICTURES]
//
// BINARIES holds the built examples (default: $PUSHWHEEL_EXAMPLES, else
// target/debug/examples); the pages are photographed into PICTURES (default:
// a temporary folder, which is named at the end). Nothing sleeps: "it does not
// happen" is shown by something later that has happened.

import { existsSync, mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Program, Tally, launchChromium, limitSuite, requests, same, until } from './common.mjs';

const binaries = resolve(
  process.argv[2] ?? process.env.PUSHWHEEL_EXAMPLES ?? join(import.meta.dirname, '../../target/debug/examples'),
);
const pictures = process.argv[3] ? resolve(process.argv[3]) : mkdtempSync(join(tmpdir(), 'pushwheel-examples-'));
mkdirSync(pictures, { recursive: true });
limitSuite('examples');

// ---- what a page shows ----------------------------------------------------------

const text = (page, selector) => page.locator(selector).innerText();
const texts = (page, selector) => page.locator(selector).allInnerTexts();

const showsState = (page, state, pill = '.pill') =>
  until(`the page says ${state}`, () => page.locator(`${pill}[data-state="${state}"]`).first().isVisible());

const shows = (page, selector, wanted) =>
  until(`${selector} shows ${wanted}`, async () => (await texts(page, selector)).some((shown) => shown.includes(wanted)));

/// The statuses of all answers to the page for `path`, in their order.
function statuses(page, path) {
  const list = [];
  page.on('response', (answer) => {
    if (new URL(answer.url()).pathname === path) list.push(answer.status());
  });
  return list;
}

/// Does something and gives the JSON that the POST it causes is answered.
async function answerTo(page, action) {
  const [answer] = await Promise.all([page.waitForResponse((answer) => answer.request().method() === 'POST'), action()]);
  return answer.json();
}

/// The page by day and by night, on a desk and in a hand.
async function photograph(page, name) {
  for (const [device, width, height] of [['desktop', 1100, 760], ['phone', 390, 780]])
    for (const colorScheme of ['light', 'dark']) {
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      same(wide > 0, false, `${name} has to be scrolled sideways on a ${device}`);
      const path = join(pictures, `${name}-${device}-${colorScheme}.png`);
      await page.screenshot({ path, animations: 'disabled', fullPage: true });
    }
}

// ---- the stories ----------------------------------------------------------------

const stories = {
  async 'progress: the bar reaches 100, and the browser does not come back'({ visit, base }) {
    const page = await visit('/');
    const asked = requests(page, '/tasks/1/progress');
    await page.click('#start');
    const percent = async () => Number.parseInt(await text(page, '#percent'), 10);
    await until('it is on its way', async () => (await percent()) >= 20);
    const late = await visit('/#1'); // a client that knows the task follows it

    // One that does not close at `complete` gets 204 when it comes back.
    const other = await visit('/style.css');
    const answered = statuses(other, '/tasks/1/progress');
    await other.evaluate(() => {
      globalThis.seen = [];
      globalThis.source = new EventSource('/tasks/1/progress?last=1');
      for (const name of ['progress', 'complete']) source.addEventListener(name, (e) => seen.push(e.type, e.data));
    });
    await photograph(page, 'progress');

    await until('the bar is full', async () => (await percent()) === 100);
    for (const each of [page, late]) await shows(each, '#note', 'Complete');
    await photograph(page, 'progress-done');
    await until('the other is closed', () => other.evaluate(() => source.readyState === EventSource.CLOSED));
    same(answered, [200, 204], 'what the other received');
    const seen = await other.evaluate(() => seen);
    same(seen.slice(-4), ['progress', '100', 'complete', '100 pages are written'], 'the last that it saw');
    same(Number(seen[1]) > 0, true, 'a late one receives the progress of the task');
    same(asked.length, 1, 'the requests of the page');
    const unknown = await fetch(`${base}/tasks/77/progress`);
    same(unknown.status, 404, 'the status of a task that is not there');
  },

  async 'axum: twenty streams of a page, after a login, share one connection'({ visit }) {
    const page = await visit('/');
    same(await page.evaluate(async () => (await fetch('/rooms/1')).status), 401, 'a stream without a login');
    await Promise.all([page.waitForURL('**/'), page.click('.main')]);
    await showsState(page, 'open');
    const connections = async () => Number(await page.evaluate(async () => (await fetch('/connections')).text()));
    const before = await connections();
    for (let room = 0; room < 20; room++) {
      await page.selectOption('#room', String(room));
      await page.fill('#text', `to ${room}`);
      await page.click('.main');
      await shows(page, `#room-${room}`, `ann: to ${room}`);
    }
    same([await connections(), before <= 2], [before, true], 'the connections of the page');
    await photograph(page, 'axum');
  },

  async 'notifications: they reach one user, or all, from any thread'({ visit, base }) {
    const ann = await visit('/?user=ann');
    const ben = await visit('/?user=ben');
    for (const page of [ann, ben]) await showsState(page, 'open');

    await ann.selectOption('#to', 'ben');
    await ann.fill('#text', 'for ben');
    same(await answerTo(ann, () => ann.click('.main')), { sent: 1 }, 'the answer');
    await shows(ben, '#inbox li', 'for ben');

    await ben.selectOption('#to', 'all');
    await ben.fill('#text', 'for all');
    same(await answerTo(ben, () => ben.click('.main')), { sent: 2 }, 'the answer');
    for (const page of [ann, ben]) await shows(page, '#inbox li', 'for all');

    await ann.click('#report');
    await shows(ann, '#inbox li', 'Your report is ready');
    same([await text(ann, '#count'), await text(ben, '#count')], ['2', '2'], 'the notifications of each');

    const absent = await fetch(`${base}/users/cleo/notifications`, { method: 'POST', body: 'hello?' });
    same(await absent.json(), { sent: 0 }, 'the answer for a user without a stream');
    await photograph(ann, 'notifications');
  },

  async 'filtered: to admins only, and to one user'({ visit }) {
    const ann = await visit('/?as=ann');
    const ben = await visit('/?as=ben');
    for (const page of [ann, ben]) await showsState(page, 'open');
    const send = (to, memo) => async () => {
      await ben.selectOption('#to', to);
      await ben.fill('#text', memo);
      await ben.click('.main');
    };
    same(await answerTo(ben, send('/admins', 'for admins')), { sent: 1 }, 'the answer');
    same(await answerTo(ben, send('/users/ben', 'for ben')), { sent: 1 }, 'the answer');
    same(await answerTo(ben, send('/users/cleo', 'for cleo')), { sent: 0 }, 'the answer');
    same(await answerTo(ben, send('/all', 'for all')), { sent: 2 }, 'the answer');
    const memos = async (page) => {
      await shows(page, '.person li', 'for all');
      return (await texts(page, '.person li')).map((shown) => shown.split('\n')[0]);
    };
    same(await memos(ann), ['for all', 'for admins'], 'what Ann, an admin, was sent');
    same(await memos(ben), ['for all', 'for ben'], 'what Ben was sent');

    const all = await visit('/');
    for (const user of ['ann', 'ben', 'cleo']) await showsState(all, 'open', `#${user} .pill`);
    for (const [to, memo] of [['/users/cleo', 'Your parcel is here'], ['/admins', 'The safe is open'], ['/all', 'Lunch is served']])
      await send(to, memo)();
    await shows(all, '#ben li', 'Lunch is served');
    await shows(all, '#cleo li', 'Lunch is served');
    await photograph(all, 'filtered');
  },

  async 'chat: two browsers talk, and see each other join and leave'({ visit, leave, base }) {
    const enter = async (name) => {
      const page = await visit('/');
      await page.fill('[name=name]', name);
      await page.click('#door button');
      await shows(page, '#who', name);
      return page;
    };
    const ann = await enter('Ann');
    const ben = await enter('Ben');
    await shows(ann, '#lines li', 'Ben has joined');
    for (const page of [ann, ben]) await shows(page, '#who', 'In lobby: Ann, Ben');

    const say = (page, words) => async () => {
      await page.fill('[name=text]', words);
      await page.press('[name=text]', 'Enter');
    };
    same(await answerTo(ann, say(ann, 'Hello Ben!')), { ok: true }, 'the answer');
    await shows(ben, '#lines li.theirs', 'Hello Ben!');
    same(await answerTo(ben, say(ben, 'Hello <b>Ann</b> & all')), { ok: true }, 'the answer');
    await shows(ann, '#lines li.theirs', 'Hello <b>Ann</b> & all');

    const elsewhere = await fetch(`${base}/rooms/attic/messages`, { method: 'POST', body: '{"name": "X", "text": "boo"}' });
    same(await elsewhere.json(), { ok: true }, 'the answer of another room');
    const noJson = await fetch(`${base}/rooms/attic/messages`, { method: 'POST', body: 'boo' });
    same(noJson.status, 400, 'the status for what is no message');

    await answerTo(ann, say(ann, 'Shall we?'));
    await shows(ben, '#lines li.theirs', 'Shall we?');
    await photograph(ann, 'chat');
    same((await texts(ben, '#lines li.note')), [], 'Ben gets no note about himself');
    await leave(ben);
    await shows(ann, '#lines li', 'Ben has left');
    same(await text(ann, '#who'), 'In lobby: Ann', 'the users in the room');
    const lines = (await texts(ann, '#lines li')).map((shown) => shown.split('\n').at(-1));
    same(lines, ['Ben has joined', 'Hello Ben!', 'Hello <b>Ann</b> & all', 'Shall we?', 'Ben has left'], 'what Ann saw');
  },

  async 'dashboard: a new client sees figures at once'({ visit }) {
    const points = async (page) => Number((await page.getAttribute('#load_percent', 'data-points')) ?? 0);
    const first = await visit('/');
    await until('a curve of some seconds', async () => (await points(first)) >= 6);
    const second = await visit('/');
    // Both curves grow alike, so without the figures of before it would stay
    // the shorter one.
    await until('the new client has the whole curve', async () => (await points(second)) >= (await points(first)) - 1);
    await shows(second, '#watching p', '2');
    await until('figures go on', async () => (await points(second)) >= 12);
    same(/^\d+$/.test(await text(second, '#load_percent p span')), true, 'a number is shown');
    await photograph(second, 'dashboard');
  },

  async 'log: 403 without the role of an admin, before the stream begins'({ visit, base }) {
    const page = await visit('/');
    const answered = statuses(page, '/log');
    await page.click('[data-user=ben]');
    await shows(page, '#refused', '403');
    same(answered.every((status) => status === 403), true, `only 403 was answered: ${answered}`);
    const refused = await fetch(`${base}/log`, { headers: { accept: 'text/event-stream' } });
    same([refused.status, (await refused.json()).error.code], [403, 'forbidden'], 'the answer');
    await showsState(page, 'closed');
    await photograph(page, 'log-refused');

    await page.click('[data-user=ann]');
    await showsState(page, 'open');
    for (const path of ['/hello', '/missing', '/broken']) await page.click(`[data-get="${path}"]`);
    const line = (path) => page.locator('#log li', { hasText: `GET ${path}` }).last();
    for (const [path, status] of [['/hello', '200'], ['/missing', '404'], ['/broken', '500']])
      await until(`the line of ${path}`, async () => (await line(path).locator('.status').allInnerTexts())[0] === status);
    same(answered.at(-1), 200, 'the last status');
    await photograph(page, 'log');
    await page.click('[data-user=ben]');
    await shows(page, '#refused', '403');
  },

  async 'page: named events, an error, reconnection by itself, close()'({ visit, base }) {
    const page = await visit('/');
    const asked = requests(page, '/clock');
    await page.reload();
    await showsState(page, 'open');
    const ticks = async () => (await texts(page, '#ticks li')).map(Number);
    const until_ticks = (count) => until(`${count} ticks`, async () => (await ticks()).length >= count);
    const whole = async (what) => {
      const seen = await ticks();
      same(seen, seen.map((_, i) => seen[0] + i), `the ticks ${what}`);
    };
    await until_ticks(4);
    await shows(page, '#story .message', 'ticks so far');

    await page.click('#cut');
    await shows(page, '#story .error', 'comes back by itself');
    await showsState(page, 'connecting');
    await until('it has come back', async () => (await page.locator('#story .open').count()) === 2);
    await showsState(page, 'open');
    await until('what was missed', async () => (await page.locator('#ticks .late').count()) > 0);
    await until_ticks((await ticks()).length + 3);
    await whole('after the cut');
    same(asked.length, 2, 'the requests');
    await until('the headers of the request', () => asked[1].lastEventId !== undefined);
    same([asked[0].lastEventId, typeof asked[1].lastEventId], [null, 'string'], 'the Last-Event-ID of each');
    await photograph(page, 'page');

    await page.click('#close');
    await showsState(page, 'closed');
    // Another page is cut and comes back, which this one does not.
    const other = await visit('/');
    await showsState(other, 'open');
    await until('the other is there', async () => {
      const answer = await fetch(`${base}/cut`, { method: 'POST' });
      return (await answer.json()).cut === 1;
    });
    await until('the other has come back', async () => (await other.locator('#story .open').count()) === 2);
    same(asked.length, 2, 'the requests after close()');

    await page.click('#reopen');
    await showsState(page, 'open');
    const before = (await ticks()).length;
    await until_ticks(before + 8);
    await whole('after close() and a new EventSource');
    same((await texts(page, '#story .gap')).length, 0, 'the gaps');
  },
};

// ---- the run --------------------------------------------------------------------

const tally = new Tally();
let browser;
try {
  browser = await launchChromium();
  await tally.tell(stories, async (story) => {
    const name = story.split(':')[0];
    const binary = join(binaries, name);
    if (!existsSync(binary)) throw new Error(`no example at ${binary}: run cargo build --examples first`);
    const example = await new Program().start(binary, ['--listen', '127.0.0.1:0']);
    const { base } = example;
    const wrong = [];
    // Each visitor is a browser of its own, with its own connections and cookies.
    const visit = async (path) => {
      const context = await browser.newContext({ viewport: { width: 1100, height: 760 }, ignoreHTTPSErrors: true });
      const page = await context.newPage();
      page.on('pageerror', (error) => wrong.push(error));
      page.on('request', (request) => {
        if (!request.url().startsWith(base) && !request.url().startsWith('data:')) wrong.push(`asks for ${request.url()}`);
      });
      await page.goto(base + path);
      return page;
    };
    const cleanUp = async () => {
      for (const context of browser.contexts()) await context.close();
      await example.kill();
      if (wrong.length) tally.fail(`${name}: the scripts of the page`, wrong.join('\n'));
    };
    return { given: { visit, leave: (page) => page.context().close(), base }, cleanUp };
  });
} catch (wrong) {
  tally.fail('the suite', wrong);
} finally {
  await browser?.close();
}
console.log(`examples: the pages are pictured in ${pictures}`);
tally.close('examples');
