// The form that publishes to the current channel.

import { byId, clients, element, say } from './parts.js';
import { ask, hasKey, pathOf } from './server.js';

/// A publish can have more, but then a script is more convenient.
const CONDITIONS_MAX = 20;

export class Publish {
  #channel;
  #keyVariable; // of a shell

  constructor() {
    const target = byId('publish-target');
    target.addEventListener('change', () => {
      byId('publish-client-row').hidden = target.value !== 'client';
      byId('publish-client').required = target.value === 'client';
      byId('publish-where').hidden = target.value !== 'where';
      if (target.value === 'where' && !byId('conditions').childElementCount) this.#addCondition();
    });
    byId('add-condition').addEventListener('click', () => this.#addCondition().focus());
    byId('publish-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#publish();
    });
    byId('publish-curl').addEventListener('click', () => this.#copyCommand());
    byId('publish-data').addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) byId('publish-form').requestSubmit();
    });
  }

  /// Shows another channel or none, and clears the form.
  show(channel) {
    this.#channel = channel;
    this.#tell('', '');
    byId('publish-form').reset();
    byId('publish-command').hidden = true;
    say(byId('publish-command'), '');
    byId('conditions').replaceChildren();
    byId('add-condition').disabled = false;
    byId('publish-target').dispatchEvent(new Event('change'));
  }

  allow({ manage }) {
    this.#keyVariable = manage ? 'PUSHWHEEL_ADMIN_KEY' : 'PUSHWHEEL_PUBLISH_KEY';
  }

  /// Returns the input of its field.
  #addCondition() {
    const field = element('input', { 'aria-label': 'Field', placeholder: 'role', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false' });
    const value = element('input', { 'aria-label': 'Value', placeholder: 'admin', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false' });
    const remove = () => {
      row.remove();
      byId('add-condition').disabled = false;
      byId('add-condition').focus();
    };
    const row = element('div', { class: 'row condition' }, field, element('span', { text: 'is' }), value,
      element('button', { type: 'button', text: 'Remove', onclick: remove }));
    byId('conditions').append(row);
    byId('add-condition').disabled = byId('conditions').childElementCount >= CONDITIONS_MAX;
    return field;
  }

  async #publish() {
    const channel = this.#channel;
    const isShown = () => channel === this.#channel;
    const request = this.#request();
    if (!request) return;
    try {
      const { id, clients: number } = await ask('POST', request.path, { json: request.json });
      if (isShown()) this.#tell(`Published as ${id} to ${clients(number)}.`, '');
    } catch (wrong) {
      if (isShown()) this.#tell('', wrong.message);
    }
  }

  /// Shows the command that publishes the same, and copies it if the browser allows that.
  async #copyCommand() {
    const request = this.#request();
    if (!request) return;
    const key = hasKey() ? `-H "Authorization: Bearer $${this.#keyVariable}" ` : '';
    const url = new URL(request.path, document.baseURI).href;
    const command = `curl ${key}-H 'Content-Type: application/json' \\\n  -d ${quoted(request.json)} ${quoted(url)}`;
    byId('publish-command').hidden = false;
    say(byId('publish-command'), command);
    try {
      await navigator.clipboard.writeText(command);
      this.#tell('Copied.', '');
    } catch {
      getSelection().selectAllChildren(byId('publish-command'));
      this.#tell('', 'The browser does not allow this page to copy. Copy the selected text.');
    }
  }

  /// Returns the path and the body of the request, or reports what is wrong.
  #request() {
    this.#tell('', '');
    const data = this.#data();
    const query = data === undefined ? undefined : this.#query();
    if (query === undefined) return undefined;
    const retry = byId('publish-retry').value;
    if (!/^\d*$/.test(retry)) {
      this.#tell('', 'Enter the retry as a number of milliseconds.');
      byId('publish-retry').focus();
      return undefined;
    }
    const fields = Object.entries({ event: 'publish-event', id: 'publish-id', key: 'publish-key' });
    const texts = fields.filter(([, input]) => byId(input).value).map(([name, input]) => `"${name}":${JSON.stringify(byId(input).value)}`);
    // The data and the retry are inserted as text, so that numbers keep their digits.
    const json = `{${[...texts, ...(retry && [`"retry":${BigInt(retry)}`]), `"data":${data}`].join(',')}}`;
    return { path: `${pathOf(this.#channel)}${query.size ? `?${query}` : ''}`, json };
  }

  /// Returns the data as JSON; `undefined` if it is not JSON.
  #data() {
    const text = byId('publish-data').value;
    if (byId('publish-format').value === 'text') return JSON.stringify(text);
    try {
      JSON.parse(text);
      return text;
    } catch (wrong) {
      this.#tell('', `The data is not JSON: ${wrong.message}.`);
      byId('publish-data').focus();
      return undefined;
    }
  }

  /// Returns the target; `undefined` if a condition is incomplete, which must not mean all
  /// clients.
  #query() {
    const query = new URLSearchParams();
    const target = byId('publish-target').value;
    if (target === 'client') query.set('client', byId('publish-client').value);
    if (target !== 'where') return query;
    const rows = [...byId('conditions').children].map((row) => row.querySelectorAll('input'));
    const unnamed = rows.length ? rows.find(([field]) => !field.value)?.[0] : byId('add-condition');
    if (unnamed) {
      this.#tell('', 'Enter a metadata field, such as role.');
      unnamed.focus();
      return undefined;
    }
    for (const [field, value] of rows) query.append(`where.${field.value}`, value.value);
    return query;
  }

  #tell(answer, error) {
    say(byId('publish-answer'), answer);
    say(byId('publish-error'), error);
  }

  /// Selects one client as the target.
  aimAt(client) {
    byId('publish-target').value = 'client';
    byId('publish-target').dispatchEvent(new Event('change'));
    byId('publish-client').value = client;
  }
}

/// Returns a text as one word of a shell.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
