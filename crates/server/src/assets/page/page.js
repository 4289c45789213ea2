// The page: rights, polling of the server about once a second, and the channel in the
// fragment of the address.

import { ChannelView } from './channel.js';
import { Channels, hashOf } from './channels.js';
import { Figures } from './figures.js';
import { Outage } from './outage.js';
import { byId, duration, say, visible } from './parts.js';
import { ServerPanel } from './panel.js';
import { ClusterPanel } from './cluster.js';
import { ask, hasKey, rightsOf, setKey } from './server.js';

const POLL_EVERY_MS = 1000;
const POLL_EVERY_MS_MAX = 60_000;
/// The polling interval is at least this many times the response time, so that a server
/// with many channels gets fewer requests. Of the last two times the shorter one counts,
/// because a single pause of the server says nothing about its load.
const POLL_SHARE = 10;

/// The rights of this page's key: `undefined` until the server has responded.
let rights;
let selected;
let timer; // of the next poll, or none
let pollNumber = 0;
let took_ms = 0; // by the last poll

const figures = new Figures();
const server = new ServerPanel();
const cluster = new ClusterPanel();
const outage = new Outage({ onretry: () => (rights ? poll() : enter()) });
const view = new ChannelView({ onchange: poll });
const channels = new Channels({ onsearch: poll, onopen: (name) => (location.hash = hashOf(name)) });

// ---- rights -----------------------------------------------------------------------

/// Requests the rights of the key, if there is one, and shows the page accordingly.
async function enter() {
  outage.asked();
  try {
    rights = await rightsOf();
  } catch (wrong) {
    return fail(wrong);
  }
  outage.answered();
  if (hasKey() && !rights.publish && !rights.manage) {
    setKey('');
    say(byId('key-error'), 'The key is no longer valid. Sign in with another one.');
  }
  arrange();
}

function arrange() {
  const { manage } = rights;
  byId('access').hidden = manage;
  byId('figures').hidden = byId('server').hidden = !manage;
  byId('sign-out').hidden = !hasKey();
  byId('key-form').hidden = hasKey();
  say(byId('access-title'), hasKey() ? 'This key can only publish' : 'Sign in');
  say(byId('access-text'), accessText());
  for (const part of ['channels-there', 'channels-none']) if (!manage) byId(part).hidden = true;
  if (!manage) for (const text of ['found', 'version']) say(byId(text), '');
  byId('search').placeholder = manage ? 'Search, or open by name' : 'Name of a channel';
  view.allow(rights);
  figures.forget();
  server.forget();
  cluster.take(undefined);
  channels.forget();
  if (manage) poll();
  else {
    clearTimeout(timer);
    pollNumber++;
    showState('closed', hasKey() ? 'publishing only' : 'no key');
  }
}

function accessText() {
  if (!rights.has_admin_key)
    return 'Viewing channels and clients needs an admin key, but this server has none. Start it with --admin-key-file.';
  return hasKey()
    ? 'Viewing channels and clients needs the admin key. Sign out to use another key.'
    : 'Viewing channels and clients needs the admin key. Publishing needs the admin key or the publish key.';
}

async function signIn() {
  const input = byId('key');
  const key = input.value.trim();
  const isKey = /^[\x21-\x7e]+$/.test(key);
  say(byId('key-error'), isKey ? '' : 'Invalid key. A key has only visible ASCII characters.');
  if (!isKey) return input.select();
  try {
    const offered = await rightsOf(key);
    if (!offered.publish && !offered.manage) {
      say(byId('key-error'), 'This key is not valid for this server.');
      return input.select();
    }
    setKey(key);
    input.value = '';
    rights = offered;
    arrange();
    byId('channels-title').focus();
  } catch (wrong) {
    say(byId('key-error'), wrong.message);
  }
}

function signOut() {
  setKey('');
  say(byId('key-error'), '');
  view.show(undefined);
  location.hash = '';
  enter().then(() => !byId('access').hidden && byId('key').focus());
}

// ---- polling ----------------------------------------------------------------------

/// Requests the statistics now, and starts the timer for the next request.
async function poll() {
  clearTimeout(timer);
  if (!rights?.manage || document.hidden) return;
  const number = ++pollNumber;
  const begun_ms = performance.now();
  outage.asked();
  try {
    const stats = await ask('GET', `stats?server&${channels.query(selected)}`);
    if (number !== pollNumber) return; // a later request is in flight
    outage.answered();
    await show(stats, performance.now());
  } catch (wrong) {
    if (number !== pollNumber) return;
    if (wrong.isOfKey) return enter(); // the keys have changed
    if (wrong.status === undefined) throw wrong;
    return fail(wrong);
  }
  if (number !== pollNumber) return;
  const before_ms = took_ms;
  took_ms = performance.now() - begun_ms;
  const every_ms = Math.max(POLL_EVERY_MS, POLL_SHARE * Math.min(before_ms, took_ms));
  timer = setTimeout(poll, Math.min(every_ms, POLL_EVERY_MS_MAX));
}

function fail(wrong) {
  showState('no response', wrong.message);
  outage.failed(wrong.message);
  figures.rest();
  server.rest();
}

async function show(stats, at_ms) {
  figures.take({
    at_ms,
    clients: stats.clients,
    channels: stats.channels,
    published: stats.totals.published,
    delivered: stats.totals.delivered,
    gaps: stats.totals.gaps,
    bytes: stats.history.bytes,
  });
  server.take(stats, at_ms);
  cluster.take(stats.totals.cluster);
  showState('live');
  say(byId('version'), `${stats.version} · up ${duration(stats.totals.uptime_s)}`);
  const rows = channels.take(stats, at_ms);
  if (selected !== undefined) await view.take(rows.get(selected));
}

function showState(state, detail = '') {
  const pill = byId('state');
  pill.dataset.state = { live: 'open', closed: 'closed' }[state] ?? 'connecting';
  say(pill, detail && state === 'closed' ? detail : state);
  pill.title = detail;
}

// ---- the channel that is shown ------------------------------------------------------

/// Shows the channel in the address. The first call does not move the focus.
function follow({ isFirst = false } = {}) {
  const before = selected;
  selected = named(location.hash);
  view.show(selected);
  channels.select(selected);
  document.body.classList.toggle('has-channel', selected !== undefined);
  document.title = selected === undefined ? 'pushwheel' : `${visible(selected)} – pushwheel`;
  if (selected === before) return;
  const title = byId(selected === undefined ? 'channels-title' : 'channel-title');
  if (!isFirst) title.focus({ preventScroll: true });
  title.scrollIntoView({ block: 'nearest' });
  poll();
}

function named(hash) {
  try {
    return decodeURIComponent(hash.slice(1)) || undefined;
  } catch {
    return undefined;
  }
}

// ---- the start ------------------------------------------------------------------

byId('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  signIn();
});
byId('sign-out').addEventListener('click', signOut);
byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  // A small screen shows either all channels or one of them.
  const title = byId('channels-title');
  (title.checkVisibility() ? title : byId('channel-title')).focus();
});
byId('back').addEventListener('click', (event) => {
  event.preventDefault();
  location.hash = '';
});
addEventListener('hashchange', () => follow());
document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    pollNumber++; // ignores the response in flight
    clearTimeout(timer);
    outage.rest();
    figures.rest();
    server.rest();
  } else if (rights) poll();
  else enter();
});
follow({ isFirst: true });
enter();
