// Opens a page of the documentation and waits until it shows a text:
// node doc_page.mjs FILE TEXT. Prints `open` when the page has subscribed.

import { pathToFileURL } from 'node:url';
import { DEADLINE_MS, launchChromium, within } from './common.mjs';

const [file, text] = process.argv.slice(2);
const browser = await launchChromium();
try {
  const page = await browser.newPage();
  const subscribed = page.waitForResponse((response) => response.url().includes('/channels/'));
  await page.goto(pathToFileURL(file).href);
  await within(DEADLINE_MS, subscribed);
  console.log('open');
  await page.getByText(text).waitFor({ timeout: DEADLINE_MS });
} finally {
  await browser.close();
}
