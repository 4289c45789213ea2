// The parts of the stories of the page: the server behind it, what it
// shows, and its pictures.

import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { same, until } from './common.mjs';
import { Server as AnyServer } from './server.mjs';

export const pictures = process.argv[3] ? resolve(process.argv[3]) : mkdtempSync(join(tmpdir(), 'pushwheel-page-'));
mkdirSync(pictures, { recursive: true });

// ---- the server -----------------------------------------------------------------

export class Server extends AnyServer {
  streams = [];

  publish(channel, event, headers) {
    return this.call('POST', `/channels/${encodeURIComponent(channel)}`, event, headers);
  }

  /// A client that stays, and takes what has come by `text`.
  async subscribe(channel, query = '') {
    const stop = new AbortController();
    this.streams.push(stop);
    const answer = await fetch(`${this.base}/channels/${encodeURIComponent(channel)}${query}`, { signal: stop.signal });
    const client = { text: '', ended: false };
    const read = async () => {
      for await (const part of answer.body.pipeThrough(new TextDecoderStream())) client.text += part;
    };
    read().catch(() => {}).finally(() => (client.ended = true));
    await until(`a client of ${channel} learns that it is there`, () => client.text !== '');
    return client;
  }

  async stop() {
    for (const stream of this.streams) stream.abort();
    await this.kill();
  }
}

// ---- what a page shows ------------------------------------------------------------

export const text = async (page, selector) => (await page.locator(selector).textContent()).replaceAll('\u00a0', ' ');
export const figure = (page, name) => text(page, `[data-figure=${name}] b`);
export const isShown = (page, selector) => page.locator(selector).isVisible();

export const shows = (page, selector, wanted) =>
  until(`${selector} shows ${wanted}`, async () => (await text(page, selector)).includes(wanted));

export const showsFigure = (page, name, condition) =>
  until(`the figure of ${name}`, async () => condition(Number.parseFloat(await figure(page, name))));

export const isLive = (page) => shows(page, '#state', 'live');
export const names = (page) => page.locator('#channel-table tbody th').allTextContents();
export const showsNames = (page, wanted) =>
  until(`the channels ${wanted}`, async () => JSON.stringify(await names(page)) === JSON.stringify(wanted));

export async function watch(page, from = 'live') {
  await page.selectOption('#watch-from', from);
  await page.click('#watch-start');
  await shows(page, '#watch-state', 'open');
}

export async function signIn(page, key) {
  await page.fill('#key', key);
  await page.press('#key', 'Enter');
}

/// Presses Tab until the element has the focus, and requires a visible focus ring: the
/// page has to work without a pointer.
export async function tabTo(page, selector) {
  for (let press = 0; press < 60; press++) {
    await page.keyboard.press('Tab');
    const outline = await page.evaluate((wanted) => {
      const focused = document.activeElement;
      return focused?.matches(wanted) && getComputedStyle(focused).outlineStyle;
    }, selector);
    if (outline === 'none') throw new Error(`the focus of ${selector} cannot be seen`);
    if (outline) return;
  }
  throw new Error(`60 presses of Tab do not lead to ${selector}`);
}

/// By day and by night, on a desk and in a hand, never to be scrolled sideways.
export async function photograph(page, name) {
  for (const [device, width, height] of [['desktop', 1360, 860], ['tablet', 800, 900], ['phone', 360, 740]])
    for (const colorScheme of ['light', 'dark']) {
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      same(wide > 0, false, `${name} has to be scrolled sideways on a ${device}`);
      same(await faint(page), [], `what is too faint to read in ${name} on a ${device} by ${colorScheme}`);
      const path = join(pictures, `${name}-${device}-${colorScheme}.png`);
      await page.screenshot({ path, animations: 'disabled', fullPage: true });
    }
  await page.setViewportSize({ width: 1360, height: 860 });
}

/// The texts whose contrast is less than 4.5 (WCAG 2.2, 1.4.3), but for those
/// of controls that are disabled.
function faint(page) {
  return page.evaluate(() => {
    const channels = (color) => color.match(/[\d.]+/g).map(Number);
    const linear = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const ground = (node) => {
      for (; node; node = node.parentElement) {
        const color = getComputedStyle(node).backgroundColor;
        if (color.startsWith('rgb(')) return color;
      }
      return 'rgb(255, 255, 255)';
    };
    const found = [];
    for (const node of document.body.querySelectorAll('*')) {
      const isText = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
      if (!isText || !node.checkVisibility() || node.closest(':disabled, noscript, dialog')) continue;
      const [a, b] = [getComputedStyle(node).color, ground(node)].map((color) => luminance(channels(color)));
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (contrast < 4.5) found.push(`${node.tagName} ${node.textContent.slice(0, 30)}: ${contrast.toFixed(2)}`);
    }
    return found;
  });
}
