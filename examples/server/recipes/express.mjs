// Publishing from Express, once for each order, whatever happens to a response.
//
//   PUSHWHEEL_KEY=... node express.mjs          http://127.0.0.1:3000

import express from 'express';

const pushwheel = process.env.PUSHWHEEL_URL ?? 'http://127.0.0.1:8080';

/// Publishes an event once. `key` names the change: a request that is repeated with the
/// same key publishes nothing, so a request without a response is repeated.
async function publish(channel, key, event) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(`${pushwheel}/channels/${encodeURIComponent(channel)}`, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        'Idempotency-Key': `"${key}"`,
        Authorization: `Bearer ${process.env.PUSHWHEEL_KEY ?? ''}`,
      },
      body: JSON.stringify(event),
      signal: AbortSignal.timeout(5000),
    }).catch((error) => ({ ok: false, status: 0, text: async () => error.message }));
    if (response.ok) return response.json();
    const passes = [0, 409, 429].includes(response.status) || response.status >= 500;
    if (!passes || attempt === 5) throw new Error(`not published: ${await response.text()}`);
    await new Promise((later) => setTimeout(later, 100 * 2 ** attempt));
  }
}

const app = express();
app.use(express.json());

app.post('/orders', async (request, response) => {
  const { number, state } = request.body;
  // The change is stored first, here in the database of the shop.
  const { id } = await publish('orders', `order-${number}-${state}`, { event: 'order', data: { number, state } });
  response.json({ id });
});

const server = app.listen(process.env.PORT ?? 3000, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
