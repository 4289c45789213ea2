// What the page's parts share: elements, figures as text, JSON made readable,
// and the question before something is ended.
//
// What comes from clients and events becomes an element's text, never markup.

export const byId = (id) => document.getElementById(id);

/// An element. `wishes` are attributes, and `text` and listeners (`onclick`).
export function element(tag, wishes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(wishes)) {
    if (name === 'text') made.textContent = value;
    else if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/// Sets a text if it is another one, so that selections and readers are left
/// alone.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/// A name as it is to be read: what turns the direction of text, and could make
/// one name look like another, is written out.
export function visible(name) {
  return name.replace(/\p{Bidi_Control}/gu, (mark) => `\\u{${mark.codePointAt().toString(16)}}`);
}

/// Why no channel can have this name, or ''.
export function wrongName(name) {
  if (name === '') return 'Say which channel: type its name.';
  // A browser takes a path's `.` and `..` for steps.
  if (/^\.\.?$/.test(name)) return 'No browser can ask for a channel of this name.';
  const isName = !/[\p{Cc}/]/u.test(name) && new TextEncoder().encode(name).length <= 255;
  return isName ? '' : 'No channel can have this name: it has to have at most 255 bytes, and no slash.';
}

/// Makes the rows of `body` those of `items`, each known by its key: a row
/// that stays is the same element, and keeps the focus. While somebody is in
/// the table its order stays, lest a row slips away under a finger.
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

/// Of what may be large and stands in little room.
export const brief = (value) => (value < 100_000 ? whole : short).format(value);

/// Per second; slow ones with a digit more.
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

/// How long something lasts, by its two largest units.
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

export const clients = (number) => `${count(number)} ${number === 1 ? 'client' : 'clients'}`;

// ---- JSON -----------------------------------------------------------------------

/// An object or array of JSON on several lines; `undefined` for anything else.
/// Each token stays as it was written: a number too long for a script is shown
/// with all of its digits.
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

// ---- the question ---------------------------------------------------------------

/// Asks before something is done that cannot be undone; gives whether to do it.
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
