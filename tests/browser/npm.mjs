// The npm package of pushwheel.js: packed, installed into a project, type-checked,
// bundled by esbuild, and run in headless Chromium against the real binary.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DEADLINE_MS, Tally, launchChromium, limitSuite, same } from './common.mjs';
import { Server } from './server.mjs';

const ROOT = join(import.meta.dirname, '../..');
const PROGRAM = `
import { PushWheel, type Gap } from 'pushwheel';

const gaps: Gap[] = [];
const news = new PushWheel(new URLSearchParams(location.search).get('stream')!, {
  onGap: (gap) => gaps.push(gap),
});
news.onopen = () => (document.title = 'open');
news.addEventListener('headline', (event) => (document.body.textContent = event.data));
`;
limitSuite('npm');

const project = mkdtempSync(join(tmpdir(), 'pushwheel-npm-'));
process.on('exit', () => rmSync(project, { recursive: true, force: true }));
const run = (program, ...args) => {
  try {
    return execFileSync(program, args, { cwd: project, encoding: 'utf8', stdio: 'pipe' }).trim();
  } catch (wrong) {
    throw new Error(`${program} ${args.join(' ')}:\n${wrong.stdout}${wrong.stderr}`);
  }
};
const tool = (name, ...args) => run(join(import.meta.dirname, 'node_modules/.bin', name), ...args);
const installed = (file) => readFileSync(join(project, 'node_modules/pushwheel', file), 'utf8');

const stories = {
  async 'the package has the files of the server, its version and the licences'() {
    const file = run(join(ROOT, 'deploy/npm/pack'), '1.2.3', project);
    same(file, 'pushwheel-1.2.3.tgz', 'the name of the file');
    writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }');
    run('npm', 'install', '--offline', '--no-audit', '--no-fund', `./${file}`);
    for (const name of ['pushwheel.js', 'pushwheel.d.ts'])
      same(installed(name), readFileSync(join(ROOT, 'crates/server/src/assets', name), 'utf8'), name);
    for (const name of ['LICENSE-MIT', 'LICENSE-APACHE', 'README.md']) same(installed(name).length > 500, true, name);
    same(JSON.parse(installed('package.json')).version, '1.2.3', 'the version');
  },

  async 'its types are found by each way of TypeScript to resolve a package'() {
    mkdirSync(join(project, 'src'), { recursive: true });
    writeFileSync(join(project, 'src/program.ts'), PROGRAM);
    for (const [module, resolution] of [['ESNext', 'bundler'], ['NodeNext', 'NodeNext']])
      tool('tsc', '--noEmit', '--strict', '--target', 'ES2022', '--lib', 'ES2022,DOM',
        '--module', module, '--moduleResolution', resolution, 'src/program.ts');
  },

  async 'a bundle of it receives events in a page'({ server, browser }) {
    tool('esbuild', 'src/program.ts', '--bundle', '--minify', '--format=iife', '--outfile=bundle.js', '--log-level=warning');
    const site = createServer((_, answer) => {
      answer.setHeader('content-type', 'text/html; charset=utf-8');
      answer.end(`<!doctype html><body><script>${readFileSync(join(project, 'bundle.js'), 'utf8')}</script>`);
    });
    await new Promise((listening) => site.listen(0, '127.0.0.1', listening));
    try {
      const page = await browser.newPage();
      await page.goto(`http://127.0.0.1:${site.address().port}/?stream=${encodeURIComponent(`${server.base}/channels/news`)}`);
      await page.waitForFunction(() => document.title === 'open', null, { timeout: DEADLINE_MS });
      await server.publish('news', { event: 'headline', data: 'from a bundle' });
      await page.getByText('from a bundle').waitFor({ timeout: DEADLINE_MS });
    } finally {
      site.close();
      site.closeAllConnections();
    }
  },
};

const tally = new Tally();
let server;
let browser;
try {
  server = await Server.start();
  browser = await launchChromium();
  await tally.tell(stories, async () => ({ given: { server, browser }, cleanUp: () => {} }));
} catch (wrong) {
  tally.fail('the suite', wrong);
} finally {
  await browser?.close();
  await server?.kill();
}
tally.close('npm');
