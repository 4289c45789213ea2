// Serves a page of the documentation on loopback, as the documentation says, opens it
// and waits until it shows a text: node doc_page.mjs FILE TEXT. Instead of a file it opens
// a URL too. Prints `open` when the page has subscribed.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { DEADLINE_MS, launchChromium, within } from './common.mjs';

const [file, text] = process.argv.slice(2);
const site = createServer((_, answer) => {
  answer.setHeader('content-type', 'text/html; charset=utf-8');
  answer.end(readFileSync(file));
});
await new Promise((listening) => site.listen(0, '127.0.0.1', listening));
const browser = await launchChromium();
try {
  const page = await browser.newPage();
  const subscribed = page.waitForResponse((response) => response.url().includes('/channels/'));
  await page.goto(/^http:/.test(file) ? file : `http://localhost:${site.address().port}/`);
  await within(DEADLINE_MS, subscribed);
  console.log('open');
  await page.getByText(text).waitFor({ timeout: DEADLINE_MS });
} finally {
  await browser.close();
  site.close();
}
