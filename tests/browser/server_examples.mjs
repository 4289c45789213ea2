// The examples of the server (examples/server) in headless Chromium, with the real binary
// and a stand-in for the API of the language model.
//
//   node server_examples.mjs [BINARY]     (default: $PUSHWHEEL_BIN, target/debug/pushwheel)
//
// ANSWERS sets the number of answers that are read with reloads and cuts (100), and PYTHON
// the Python that has the packages of examples/server/requirements.txt.

import { createServer } from 'node:http';
import { connect, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { Program, Tally, launchChromium, limitSuite, same, until } from './common.mjs';
import { Server } from './server.mjs';

const ANSWERS = Number(process.env.ANSWERS ?? 100);
/// The deadline of a story: an answer whose requests are cut may take minutes.
const STORY_MS = 300_000;
/// The answers that are read at the same time.
const TOGETHER = 10;
const EXAMPLES = join(import.meta.dirname, '../../examples/server');
limitSuite('server_examples', Math.max(600_000, ANSWERS * 6000));

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));
let state = seed;
function random(below) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
}
const pause = (ms) => new Promise((over) => setTimeout(over, ms));

// ---- what stands for the world ------------------------------------------------------

/// The tokens of the answer to a question `COUNT NAME`.
const tokensOf = (count, name) => Array.from({ length: count }, (_, n) => `${name}-${n}${n % 9 === 8 ? '\n' : ' '}`);

/// An API of a language model: to `COUNT NAME` it answers with so many tokens.
async function languageModel() {
  const aborted = [];
  const listener = createServer(async (request, response) => {
    let body = '';
    for await (const text of request.setEncoding('utf8')) body += text;
    const { messages, stream } = JSON.parse(body);
    const { content } = messages.at(-1);
    const question = typeof content === 'string' ? content : content.map(({ text }) => text).join('');
    const [count, name] = question.split(' ');
    same(stream, true, 'the request is for a stream');
    response.on('close', () => response.writableFinished || aborted.push(name));
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    const chunk = (delta, finish_reason = null) =>
      response.write(
        `data: ${JSON.stringify({
          id: name, object: 'chat.completion.chunk', created: 1, model: 'stand-in',
          choices: [{ index: 0, delta, finish_reason }],
        })}\n\n`,
      );
    chunk({ role: 'assistant', content: '' });
    for (const content of tokensOf(Number(count), name)) {
      if (response.destroyed) return;
      chunk({ content });
      await pause(5 + random(40));
    }
    chunk({}, 'stop');
    response.end('data: [DONE]\n\n');
  });
  await new Promise((listening) => listener.listen(0, '127.0.0.1', listening));
  return { base: `http://127.0.0.1:${listener.address().port}`, aborted, close: () => listener.close() && listener.closeAllConnections() };
}

/// A way to `target` whose connections can be cut.
async function cuttable(target) {
  const { hostname, port } = new URL(target);
  const lines = new Set();
  const listener = createTcpServer((near) => {
    const far = connect(port, hostname);
    const end = () => [near, far].forEach((end) => end.destroy());
    lines.add(end);
    near.pipe(far).pipe(near);
    for (const one of [near, far])
      one.on('error', () => {}).on('close', () => {
        lines.delete(end);
        end();
      });
  });
  await new Promise((listening) => listener.listen(0, '127.0.0.1', listening));
  return {
    base: `http://127.0.0.1:${listener.address().port}`,
    /// Cuts each connection with this probability, in percent.
    cut: (percent) => lines.forEach((end) => random(100) < percent && end()),
    close: () => listener.close(),
  };
}

const example = (name, env, program = process.execPath, file = 'server.mjs') =>
  new Program().start(program, [join(EXAMPLES, name, file)], {
    env: { ...process.env, PORT: '0', OPENAI_BASE_URL: model.base, OPENAI_API_KEY: 'a-key', ...env },
  });

const text = (page, selector) => page.locator(selector).textContent();
const shows = (page, what, selector, wanted) =>
  until(`${what}, with the seed ${seed}`, async () => (await text(page, selector)) === wanted);
const isInState = (page, wanted) =>
  until(`the page is ${wanted}, with the seed ${seed}`, () => page.locator(`#state[data-state=${wanted}]`).count());

// ---- the stories: answers -----------------------------------------------------------

async function ask(page, question) {
  await page.fill('#question', question);
  await page.click('#ask button');
  await until('the answer has an address', () => page.evaluate(() => location.hash.length > 1));
}

const answerStories = {
  async 'an answer is read by an OpenAI client, and goes on when the client has gone'({ context, answers }) {
    const request = (question, signal) =>
      fetch(`${answers.base}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ model: 'any', stream: true, messages: [{ role: 'user', content: question }] }),
        signal,
      });
    const response = await request('20 whole');
    const lines = (await response.text()).split('\n').filter((line) => line.startsWith('data: '));
    const data = lines.map((line) => line.slice(6));
    same(data.at(-1), '[DONE]', 'the end');
    const contents = data.slice(0, -1).map((chunk) => JSON.parse(chunk).choices[0].delta.content ?? '');
    same(contents.join(''), tokensOf(20, 'whole').join(''), 'the text');

    const gone = new AbortController();
    const { headers } = await request('20 left', gone.signal);
    gone.abort();
    const page = await context.newPage();
    await page.goto(`${answers.base}/#${headers.get('x-answer')}`);
    await isInState(page, 'done');
    same(await text(page, '#answer'), tokensOf(20, 'left').join(''), 'the text');
  },

  async 'the stop button stops the answer for all tabs, and the API'({ context, answers }) {
    const page = await context.newPage();
    await page.goto(answers.base);
    await ask(page, '5000 endless');
    const other = await context.newPage();
    await other.goto(page.url());
    for (const tab of [page, other]) await until('it has begun', async () => (await text(tab, '#answer')).length > 20);
    await other.click('#stop');
    for (const tab of [page, other]) await isInState(tab, 'done');
    await until('the API is no longer asked', () => model.aborted.includes('endless'));
    const stopped = await text(page, '#answer');
    same(tokensOf(5000, 'endless').join('').startsWith(stopped), true, 'the text is a beginning');
    same(await text(other, '#answer'), stopped, 'the text of the other tab');
    // Later too.
    await page.reload();
    await isInState(page, 'done');
    same(await text(page, '#answer'), stopped, 'the text after a reload');
  },
};

/// Waits until the answer of a page is whole, for as long as there is another token each minute.
async function isWritten(page, name) {
  const id = await page.evaluate(() => location.hash.slice(1));
  const read = async (query) =>
    (await fetch(`${server.base}/channels/answer.${id}?${query}`, { headers: { Accept: 'application/json' } })).json();
  for (let now = await read('last=1'); !now.finished; ) {
    const before = now.newest;
    now = await read(`last_event_id=${before}&wait=60`);
    if (now.newest === before && !now.finished) throw new Error(`${name} does not go on, with the seed ${seed}`);
  }
}

/// Reads answers at the same time, each in a page that is reloaded, over connections that
/// are cut, of which the requests that publish are some.
function survival(round) {
  return async ({ context, cut }) => {
    let isOver = false;
    const cuts = (async () => {
      while (!isOver) {
        await pause(300 + random(1200));
        cut.way.cut(20);
      }
    })();
    try {
      await Promise.all(
        Array.from({ length: TOGETHER }, async (_, n) => {
          const name = `r${round}n${n}`;
          const count = 20 + random(60);
          const page = await context.newPage();
          // Without its script, which a cut may have stopped, a page does nothing.
          const isThere = () => page.locator('#state:not([data-state=new])').count();
          const load = (goes) => until('the page is there', () => goes().then(isThere, () => false));
          await load(() => page.goto(cut.answers.base));
          await ask(page, `${count} ${name}`);
          for (let reloads = random(4); reloads > 0; reloads--) {
            await pause(random(700));
            await load(() => page.reload());
          }
          // The requests that publish are cut too, so an answer takes long where they do.
          await isWritten(page, name);
          await until(`${name} is done, with the seed ${seed}`, () => page.locator('#state[data-state=done]').count(), 60_000);
          same(await text(page, '#answer'), tokensOf(count, name).join(''), `the text of ${name}, with the seed ${seed}`);
          await page.close();
        }),
      );
    } finally {
      isOver = true;
      await cuts;
    }
  };
}

for (let round = 0; round < ANSWERS / TOGETHER; round++)
  answerStories[`${TOGETHER} answers have their exact text and their end, with reloads and cuts (${round + 1})`] = survival(round);

// ---- the stories: the other examples ----------------------------------------------------

const otherStories = {
  async 'a chat of the AI SDK resumes its answer after a reload, and can be stopped'({ context, chat }) {
    const page = await context.newPage();
    await page.goto(chat.base);
    const send = async (question) => {
      await page.fill('#chat input', question);
      await page.click('#chat form button:first-of-type');
    };
    const last = async () => (await page.locator('.assistant').allTextContents()).at(-1) ?? '';
    await send('120 first');
    await until('it has begun', async () => (await last()).length > 30);
    for (let reloads = 0; reloads < 2; reloads++) {
      await page.reload();
      await until('the answer is there again', async () => (await last()).length > 30);
    }
    const whole = tokensOf(120, 'first').join('');
    await until('the whole answer', async () => (await last()) === whole);
    await isInState(page, 'ready');
    same(await page.locator('.user').allTextContents(), ['120 first'], 'the questions');

    await send('5000 second');
    await until('it has begun', async () => (await last()).startsWith('second-0 second-1'));
    await page.click('#chat button:has-text("Stop")');
    await isInState(page, 'ready');
    await until('the API is no longer asked', () => model.aborted.includes('second'));
    const stopped = await last();
    same(tokensOf(5000, 'second').join('').startsWith(stopped), true, 'the text is a beginning');
    // The chat is there after a reload, with what was stopped.
    await page.reload();
    await until('both answers', async () => (await page.locator('.assistant').count()) === 2);
    same(await page.locator('.assistant').allTextContents(), [whole, stopped], 'the answers');
  },

  async 'the state of each job is there at once, also after a reload'({ context, jobs }) {
    const page = await context.newPage();
    await page.goto(jobs.base);
    const row = (state) => page.locator(`#jobs li[data-state=${state}]`);
    for (let begun = 1; begun <= 4; begun++) {
      await page.click('#begin');
      await until(`${begun} jobs`, async () => (await page.locator('#jobs li').count()) === begun);
    }
    await until('two run', async () => (await row('running').count()) === 2);
    await page.reload();
    await until('all are there again', async () => (await page.locator('#jobs li').count()) === 4);
    await row('waiting').last().locator('button').click();
    await until('one is cancelled', async () => (await row('cancelled').count()) === 1);
    await until('the others are done', async () => (await row('done').count()) === 3);
    same(await row('done').first().locator('span').textContent(), 'done 10/10', 'the progress');
    const other = await context.newPage();
    await other.goto(jobs.base);
    await until('another page has them', async () => (await other.locator('#jobs li').count()) === 4);
    await row('cancelled').locator('button').click();
    for (const tab of [page, other])
      await until('it is removed', async () => (await tab.locator('#jobs li').count()) === 3);
    await page.reload();
    await until('the rest is there', async () => (await page.locator('#jobs li').count()) === 3);
    same(await row('cancelled').count(), 0, 'the removed one');
  },

  async 'a page that the server rendered shows what changes before its stream is open'({ context, board }) {
    const add = (note) =>
      fetch(`${board.base}/notes`, { method: 'POST', body: new URLSearchParams({ note }) });
    await add('rendered');
    const page = await context.newPage();
    // The stream is held back until more has changed.
    let open;
    await page.route('**/channels/board*', (route) => new Promise((go) => (open = () => go(route.continue()))));
    await page.goto(board.base);
    const notes = () => page.locator('li').allTextContents();
    same(await notes(), ['rendered'], 'the notes');
    await until('the stream is asked for', () => open);
    await add('before the stream');
    open();
    await until('the change is there', async () => (await notes()).join() === 'rendered,before the stream');
    await page.fill('input[name=note]', '<b>mine</b>');
    await page.click('button');
    await until('the own note', async () => (await notes()).at(-1) === '<b>mine</b>');
    same(await notes(), ['rendered', 'before the stream', '<b>mine</b>'], 'each note once');
  },
};

// ---- the stories: recipes ---------------------------------------------------------------

/// A way to `target` that loses the response to the first of each two requests.
async function forgetful(target) {
  let asked = 0;
  const listener = createServer(async (request, response) => {
    const body = [];
    for await (const bytes of request) body.push(bytes);
    const { 'content-length': _, connection: __, ...headers } = request.headers;
    const answer = await fetch(target + request.url, { method: request.method, headers, body: Buffer.concat(body) });
    const text = await answer.text();
    if (asked++ % 2 === 0) return response.destroy();
    response.writeHead(answer.status, { 'Content-Type': 'application/json' }).end(text);
  });
  await new Promise((listening) => listener.listen(0, '127.0.0.1', listening));
  return { base: `http://127.0.0.1:${listener.address().port}`, asked: () => asked, close: () => listener.close() && listener.closeAllConnections() };
}

const python = process.env.PYTHON ?? 'python3';
const recipeStories = {};
for (const [number, name, program, file] of [
  [1, 'Express', process.execPath, 'express.mjs'],
  [2, 'FastAPI', python, 'fastapi_app.py'],
  [3, 'Django', python, 'django_app.py'],
])
  recipeStories[`the recipe for ${name} publishes once when a response is lost`] = async () => {
    const way = await forgetful(server.base);
    const app = await example('recipes', { PUSHWHEEL_URL: way.base }, program, file);
    try {
      for (const state of ['paid', 'sent']) {
        const response = await fetch(`${app.base}/orders`, {
          method: 'POST',
          headers: { 'Content-Type': 'application/json' },
          body: JSON.stringify({ number, state }),
        });
        same(response.status, 200, `the status: ${app.log}`);
      }
      same(way.asked(), 4, 'requests to publish');
      const answer = await fetch(`${server.base}/channels/orders?last=10`, { headers: { Accept: 'application/json' } });
      const { events } = await answer.json();
      const states = events.map(({ data }) => JSON.parse(data)).filter((order) => order.number === number);
      same(states, [{ number, state: 'paid' }, { number, state: 'sent' }], 'the events');
    } finally {
      await app.kill();
      way.close();
    }
  };

// ---- the run ------------------------------------------------------------------------------

const tally = new Tally();
const model = await languageModel();
const programs = [];
let server;
let browser;
let way;
try {
  server = await Server.start(undefined, [
    '--allow-header', 'User-Agent', '--channel', '{ pattern = "jobs", lag_policy = "conflate" }',
  ]);
  way = await cuttable(server.base);
  const env = { PUSHWHEEL_URL: server.base, STEP_SECONDS: '0.1' };
  const start = async (...program) => {
    const started = await example(...program);
    programs.push(started);
    return started;
  };
  const given = {
    answers: await start('answers', env),
    cut: { way, answers: await start('answers', { PUSHWHEEL_URL: way.base }) },
    chat: await start('chat', env),
    jobs: await start('jobs', env, python, 'server.py'),
    board: await start('board', env),
  };
  browser = await launchChromium();
  await tally.tell({ ...recipeStories, ...otherStories, ...answerStories }, async () => {
    const context = await browser.newContext();
    return { given: { context, ...given }, cleanUp: () => context.close() };
  }, STORY_MS);
} catch (wrong) {
  tally.fail('the suite', wrong);
} finally {
  await browser?.close();
  for (const program of [...programs, ...(server ? [server] : [])]) {
    await program.kill();
    if (tally.failed) console.error(program.log.slice(-2000).replace(/^/gm, '    # '));
  }
  way?.close();
  model.close();
}
tally.close('answers');
