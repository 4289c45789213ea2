// An event stream with better-sse: a channel, its sessions, and node's own HTTP server.
import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
import { createChannel, createSession } from 'better-sse'

const channel = createChannel()
let newest = 0

const server = createServer(async (request, response) => {
  if (request.method === 'POST') {
    newest += 1
    channel.broadcast(await text(request), undefined, { eventId: String(newest) })
    response.writeHead(204).end()
    return
  }
  // Data is text, and is not to be quoted as JSON.
  const session = await createSession(request, response, { serializer: String, keepAlive: 15_000 })
  channel.register(session)
})

server.listen(0, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`)
})
