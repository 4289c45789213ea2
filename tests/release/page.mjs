// Opens a page in headless Chromium, as a reader of docs/first-stream.md does: node
// page.mjs URL TEXT. Prints `open` when the page has subscribed, `shown` when it shows the
// text, and `reloaded` when it has loaded itself again.

import { DEADLINE_MS, launchChromium } from '../browser/common.mjs';

const [url, text] = process.argv.slice(2);
const browser = await launchChromium();
try {
  const page = await browser.newPage();
  const subscribed = page.waitForResponse((response) => response.url().includes('/channels/'));
  await page.goto(url);
  await subscribed;
  console.log('open');
  await page.getByText(text, { exact: true }).waitFor({ timeout: DEADLINE_MS });
  console.log('shown');
  await page.waitForEvent('load', { timeout: DEADLINE_MS });
  console.log('reloaded');
} finally {
  await browser.close();
}
