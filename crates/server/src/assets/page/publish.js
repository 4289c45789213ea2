// The form that publishes to the channel that is shown.

import { byId, clients, element, say } from './parts.js';
import { ask, pathOf } from './server.js';

/// A publish can have more, but a person would rather use a script.
const CONDITIONS_MAX = 20;

export class Publish {
  #channel;

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
    byId('publish-data').addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) byId('publish-form').requestSubmit();
    });
  }

  /// Another channel is shown, or none. What was typed was for the one before.
  show(channel) {
    this.#channel = channel;
    this.#tell('', '');
    byId('publish-form').reset();
    byId('conditions').replaceChildren();
    byId('add-condition').disabled = false;
    byId('publish-target').dispatchEvent(new Event('change'));
  }

  /// Gives where its first half is typed.
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
    this.#tell('', '');
    const data = this.#data();
    if (data === undefined) return;
    const query = this.#query();
    if (query === undefined) return;
    const event = byId('publish-event').value;
    // The data is put in as it was typed: numbers keep their digits.
    const json = `{${event ? `"event":${JSON.stringify(event)},` : ''}"data":${data}}`;
    try {
      const answer = await ask('POST', `${pathOf(channel)}${query.size ? `?${query}` : ''}`, { json });
      if (isShown()) this.#tell(`Published as ${answer.id} to ${clients(answer.clients)}.`, '');
    } catch (wrong) {
      if (isShown()) this.#tell('', wrong.message);
    }
  }

  /// The data as JSON; `undefined` when it is none.
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

  /// For whom it is; `undefined` when that is not said: nobody meant everybody.
  #query() {
    const query = new URLSearchParams();
    const target = byId('publish-target').value;
    if (target === 'client') query.set('client', byId('publish-client').value);
    if (target !== 'where') return query;
    const rows = [...byId('conditions').children].map((row) => row.querySelectorAll('input'));
    const unnamed = rows.length ? rows.find(([field]) => !field.value)?.[0] : byId('add-condition');
    if (unnamed) {
      this.#tell('', 'Name a field of their metadata, such as role.');
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

  /// Fills in one client as the target.
  aimAt(client) {
    byId('publish-target').value = 'client';
    byId('publish-target').dispatchEvent(new Event('change'));
    byId('publish-client').value = client;
  }
}
