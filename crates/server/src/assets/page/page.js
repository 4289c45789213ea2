// The page: who may see what, the look at the server every second or so, and
// the channel that the address names after its `#`.

import { ChannelView } from './channel.js';
import { Channels, hashOf } from './channels.js';
import { Figures } from './figures.js';
import { byId, duration, say, visible } from './parts.js';
import { ask, hasKey, rightsOf, setKey } from './server.js';

const LOOK_EVERY_MS = 1000;
const LOOK_EVERY_MS_MAX = 60_000;
const RETRY_EVERY_MS = 3000;
/// While one look is answered, so many could be: a server with very many
/// channels is asked less often.
const LOOK_SHARE = 10;

/// What this page may do with its key: `undefined` until the server has said.
let rights;
let selected;
let looking; // the timer of the next look, or none
let lookNumber = 0;

const figures = new Figures();
const view = new ChannelView({ onchange: look });
const channels = new Channels({ onsearch: look, onopen: (name) => (location.hash = hashOf(name)) });

// ---- rights -----------------------------------------------------------------------

/// Asks what the key opens, if there is one, and shows the page accordingly.
async function enter() {
  try {
    rights = await rightsOf();
  } catch (wrong) {
    tell('no answer', wrong.message);
    setTimeout(enter, RETRY_EVERY_MS);
    return;
  }
  if (hasKey() && !rights.publish && !rights.manage) {
    setKey('');
    say(byId('key-error'), 'The key no longer opens anything here: another one is needed.');
  }
  arrange();
}

function arrange() {
  const { manage } = rights;
  byId('door').hidden = manage;
  byId('figures').hidden = !manage;
  byId('sign-out').hidden = !hasKey();
  byId('key-form').hidden = hasKey();
  say(byId('door-title'), hasKey() ? 'This key may publish' : 'This server has keys');
  say(byId('door-text'), doorText());
  for (const part of ['channels-there', 'channels-none']) if (!manage) byId(part).hidden = true;
  if (!manage) for (const text of ['found', 'version']) say(byId(text), '');
  byId('search').placeholder = manage ? 'Search, or open by name' : 'Name a channel to open';
  view.allow(rights);
  figures.forget();
  channels.forget();
  if (manage) look();
  else {
    clearTimeout(looking);
    lookNumber++;
    tell('closed', hasKey() ? 'publishing only' : 'no key');
  }
}

function doorText() {
  if (!rights.has_admin_key)
    return 'Looking at channels and clients is open to nobody: this server has a publish key and no admin key. Start it with --admin-key to look.';
  return hasKey()
    ? 'Looking at channels and clients needs the admin key: sign out to give another one.'
    : 'Looking at channels and clients needs the admin key; publishing needs it or the publish key.';
}

async function signIn() {
  const input = byId('key');
  const key = input.value.trim();
  const isKey = /^[\x21-\x7e]+$/.test(key);
  say(byId('key-error'), isKey ? '' : 'A key is visible ASCII without spaces: this is none.');
  if (!isKey) return input.select();
  try {
    const offered = await rightsOf(key);
    if (!offered.publish && !offered.manage) {
      say(byId('key-error'), 'This is no key of this server: look again, or ask who runs it.');
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
  enter().then(() => !byId('door').hidden && byId('key').focus());
}

// ---- looking ----------------------------------------------------------------------

/// Looks at once, and again after a while.
async function look() {
  clearTimeout(looking);
  if (!rights?.manage || document.hidden) return;
  const number = ++lookNumber;
  const begun_ms = performance.now();
  let failed = false;
  try {
    const stats = await ask('GET', `stats?${channels.query(selected)}`);
    if (number !== lookNumber) return; // a later one is on its way
    await show(stats, performance.now());
  } catch (wrong) {
    if (number !== lookNumber) return;
    if (wrong.isOfKey) return enter(); // the keys were changed
    if (wrong.status === undefined) throw wrong;
    tell('no answer', wrong.message);
    failed = true;
  }
  if (number !== lookNumber) return;
  const every_ms = Math.max(LOOK_EVERY_MS, LOOK_SHARE * (performance.now() - begun_ms));
  looking = setTimeout(look, failed ? RETRY_EVERY_MS : Math.min(every_ms, LOOK_EVERY_MS_MAX));
}

async function show(stats, at_ms) {
  figures.take({
    at_ms,
    clients: stats.clients,
    channels: stats.channels,
    published: stats.published,
    delivered: stats.delivered,
    gaps: stats.gaps,
    bytes: stats.history.bytes,
  });
  tell('live', '');
  say(byId('version'), `${stats.version} · up ${duration(stats.totals.uptime_s)}`);
  const rows = channels.take(stats, at_ms);
  if (selected !== undefined) await view.take(rows.get(selected));
}

function tell(state, detail) {
  const pill = byId('state');
  pill.dataset.state = { live: 'open', closed: 'closed' }[state] ?? 'connecting';
  say(pill, detail && state === 'closed' ? detail : state);
  pill.title = detail;
}

// ---- the channel that is shown ------------------------------------------------------

/// Shows the channel that the address names. At the beginning nobody has gone
/// anywhere yet, and the focus stays.
function follow({ isBeginning = false } = {}) {
  const before = selected;
  selected = named(location.hash);
  view.show(selected);
  channels.select(selected);
  document.body.classList.toggle('has-channel', selected !== undefined);
  document.title = selected === undefined ? 'pushwheel' : `${visible(selected)} – pushwheel`;
  if (selected === before) return;
  const title = byId(selected === undefined ? 'channels-title' : 'channel-title');
  if (!isBeginning) title.focus({ preventScroll: true });
  title.scrollIntoView({ block: 'nearest' });
  look();
}

function named(hash) {
  try {
    return decodeURIComponent(hash.slice(1)) || undefined;
  } catch {
    return undefined;
  }
}

// ---- the beginning ------------------------------------------------------------------

byId('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  signIn();
});
byId('sign-out').addEventListener('click', signOut);
byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  // On a small screen either the channels are there or one of them.
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
    lookNumber++; // what is on its way comes too late
    clearTimeout(looking);
    figures.rest();
  } else look();
});
follow({ isBeginning: true });
enter();
