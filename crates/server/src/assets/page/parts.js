// Shared by the parts of the page: elements, numbers as text, readable JSON, and the
// confirmation dialog.
//
// Data of clients and events becomes text of an element, never markup.

export const byId = (id) => document.getElementById(id);

/// Returns an element. `properties` are attributes, `text`, and listeners (`onclick`).
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === 'text') made.textContent = value;
    else if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/// Sets a text if it differs, so that selections and screen readers are not disturbed.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/// Returns a name with escapes for characters that change the direction of text, and could
/// make one name look like another.
export function visible(name) {
  return name.replace(/\p{Bidi_Control}/gu, (mark) => `\\u{${mark.codePointAt().toString(16)}}`);
}

/// Returns why a channel cannot have this name, or ''.
export function wrongName(name) {
  if (name === '') return 'Enter the name of a channel.';
  // A browser resolves `.` and `..` in a path.
  if (/^\.\.?$/.test(name)) return 'A browser cannot request a channel of this name.';
  const isName = !/[\p{Cc}/]/u.test(name) && new TextEncoder().encode(name).length <= 255;
  return isName ? '' : 'Invalid channel name. A name has at most 255 bytes, and no slash or control character.';
}

/// Updates the rows of `body` to `items`, by key. A row that stays is the same element and
/// keeps the focus. While the pointer or the focus is in the table, its order stays, so
/// that no row moves away before a click.
export function keepRows(body, items, { key, make, update }) {
  const rows = new Map(Array.from(body.rows, (row) => [row.dataset.key, row]));
  const keys = new Set(items.map(key));
  for (const [name, row] of rows) if (!keys.has(name)) row.remove();
  const isHeld = body.matches(':hover, :focus-within');
  let place = body.firstElementChild;
  for (const item of items) {
    const known = rows.get(key(item));
    const row = known ?? make(item);
    row.dataset.key = key(item);
    update(row, item);
    if (isHeld) {
      if (!known) body.append(row);
    } else if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
  }
}

// ---- figures --------------------------------------------------------------------

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

export const count = (value) => whole.format(value);

/// A number in few characters.
export const brief = (value) => (value < 100_000 ? whole : short).format(value);

/// A rate per second; small ones with one decimal.
export function rate(value) {
  if (value === undefined) return '–';
  return value > 0 && value < 9.95 ? value.toFixed(1) : brief(value);
}

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit && value < 9.95 ? value.toFixed(1) : whole.format(value)}\u00a0${units[unit]}`;
}

/// A duration in its two largest units.
export function duration(seconds) {
  const left = Math.max(0, Math.floor(seconds));
  const parts = [
    [Math.floor(left / 86400), 'd'],
    [Math.floor(left / 3600) % 24, 'h'],
    [Math.floor(left / 60) % 60, 'min'],
    [left % 60, 's'],
  ];
  const first = Math.min(parts.findIndex(([amount]) => amount > 0) >>> 0, 3);
  return parts.slice(first, first + 2).filter(([amount], i) => amount || !i).map(([amount, unit]) => `${amount}\u00a0${unit}`).join('\u00a0');
}

/// A short time, in microseconds, milliseconds or seconds.
export function time(seconds) {
  const [value, unit] = seconds < 0.001 ? [seconds * 1e6, 'µs'] : seconds < 1 ? [seconds * 1000, 'ms'] : [seconds, 's'];
  return `${value < 9.95 && unit !== 'µs' ? value.toFixed(1) : whole.format(value)}\u00a0${unit}`;
}

/// A part of one, in per cent.
export const share = (value) => `${value > 0 && value < 0.0995 ? (value * 100).toFixed(1) : whole.format(value * 100)}\u00a0%`;

export const clients = (number) => `${count(number)} ${number === 1 ? 'client' : 'clients'}`;

// ---- JSON -----------------------------------------------------------------------

/// Returns a JSON object or array on several lines; `undefined` for anything else. Tokens
/// do not change: a number that is too long for JavaScript keeps all of its digits.
export function indented(text) {
  if (!/^\s*[{[]/.test(text)) return undefined;
  try {
    JSON.parse(text);
  } catch {
    return undefined;
  }
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g);
  let depth = 0;
  let shown = '';
  const line = () => '\n' + '  '.repeat(Math.min(depth, 40));
  tokens.forEach((token, i) => {
    const isEmpty = /[{[]/.test(tokens[i - 1]) && tokens[i - 1].length === 1 && /^[}\]]$/.test(token);
    if (/^[}\]]$/.test(token)) {
      depth--;
      shown += isEmpty ? token : line() + token;
    } else if (/^[{[]$/.test(token)) {
      depth++;
      shown += token + (/^[}\]]$/.test(tokens[i + 1]) ? '' : line());
    } else if (token === ',') shown += token + line();
    else shown += token === ':' ? ': ' : token;
  });
  return shown;
}

// ---- confirmation ---------------------------------------------------------------

/// Asks before an action that cannot be undone. Returns whether it is confirmed.
export function confirmed(title, text, yes) {
  const dialog = byId('confirm');
  say(byId('confirm-title'), title);
  say(byId('confirm-text'), text);
  say(byId('confirm-yes'), yes);
  return new Promise((answer) => {
    byId('confirm-no').onclick = () => dialog.close('no');
    byId('confirm-yes').onclick = () => dialog.close('yes');
    dialog.onclose = () => answer(dialog.returnValue === 'yes');
    dialog.returnValue = 'no';
    dialog.showModal();
  });
}
