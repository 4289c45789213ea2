// Makes the pictures of the page at `/` in the manual: a server with a minute of traffic.
//
//   node pictures.mjs BINARY ../../docs/images && pngquant --ext .png --force ../../docs/images/*.png

import { launchChromium, until } from './common.mjs';
import { Server, pictures, shows } from './page_parts.mjs';

const TRAFFIC_MS = 75_000;
/// Channels: clients, and events per second.
const CHANNELS = {
  news: [14, 2], 'price.EURUSD': [9, 5], 'chat.42': [6, 2], orders: [5, 2], 'price.USDJPY': [4, 5], 'chat.7': [3, 1], 'user.7': [2, 0.2], 'task.1837': [1, 1],
};
const PEOPLE = ['ann', 'ben', 'cleo', 'dan', 'eve'];
const WORDS = ['the shop opens', 'two tables are free', 'the market is closed on Sunday', 'a new issue is out'];

const server = await Server.start(undefined, ['--channel', '{ pattern = "price.*", lag_policy = "conflate" }']);
const browser = await launchChromium();
try {
  let published = 0;
  const publish = (channel) => {
    const n = ++published;
    if (channel.startsWith('price.')) return server.publish(channel, { event: 'price', key: channel.slice(6), data: { bid: (1.08 + Math.sin(n / 40) / 100).toFixed(5) } });
    if (channel === 'orders') return server.publish(channel, { event: 'order', data: { number: 1000 + n, items: 1 + (n % 4) } });
    return server.publish(channel, { data: WORDS[n % WORDS.length] });
  };
  for (const [channel, [clients]] of Object.entries(CHANNELS))
    for (let n = 0; n < clients; n++) await server.subscribe(channel, `?client=${PEOPLE[n % PEOPLE.length]}-${n}&meta.role=${n % 3 ? 'guest' : 'admin'}&meta.city=${n % 2 ? 'Oslo' : 'Bern'}`);
  const timers = Object.entries(CHANNELS).map(([channel, [, rate]]) => setInterval(() => publish(channel), 1000 / rate));
  await server.call('GET', '/channels/absent/clients').catch(() => {});
  await server.call('DELETE', '/channels/chat.7/clients/cleo-2');

  const page = await browser.newPage({ deviceScaleFactor: 1 });
  await page.goto(`${server.base}/`);
  const begun = Date.now();
  await until('the traffic', () => Date.now() - begun > TRAFFIC_MS, 2 * TRAFFIC_MS);
  const photograph = async (name, scheme, [width, height], hash) => {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
    await page.setViewportSize({ width, height });
    await page.evaluate((hash) => (location.hash = hash), hash);
    if (hash) await shows(page, '#watch-note', 'The last ');
    await page.evaluate(() => scrollTo(0, 0));
    await page.screenshot({ path: `${pictures}/${name}.png`, animations: 'disabled' });
  };
  await photograph('dashboard', 'light', [1180, 760], '');
  await photograph('dashboard-phone', 'dark', [390, 844], '');
  await photograph('channel', 'dark', [1180, 900], 'orders');
  await photograph('channel-phone', 'light', [390, 844], 'orders');
  timers.forEach(clearInterval);
} finally {
  await browser.close();
  await server.stop();
}
