// The packages of npm that read event streams. Each entry opens a stream as the
// package's own documentation does, and calls `heard(data, id)` for each message.
//
//   empty    messages without data that the client's handler sees, for each
//            new stream; in none of them: with `cursor=false`
//   unseen   whether it misses nothing when it is cut off before its first event

import { fetchEventSource } from '@microsoft/fetch-event-source';
import { EventSource } from 'eventsource';
import { EventSourceParserStream } from 'eventsource-parser/stream';
import { EventSource as ExtendedEventSource } from 'extended-eventsource';
import { Stream } from 'openai/streaming';

// fetch-event-source is written for a page.
globalThis.window = globalThis;
globalThis.document = { addEventListener() {}, removeEventListener() {}, hidden: false };

function eventSource(url, heard) {
  const source = new EventSource(url);
  source.onmessage = ({ data, lastEventId }) => heard(data, lastEventId);
  return () => source.close();
}

function extended(url, heard) {
  const source = new ExtendedEventSource(url, { retry: 200, disableLogger: true });
  source.onmessage = ({ data, lastEventId }) => heard(data, lastEventId);
  return () => source.close();
}

/// As its documentation has it: `onclose` throws, so that it comes back.
const fetching = (more) => (url, heard) => {
  const life = new AbortController();
  const again = () => {
    throw new Error('the stream ended');
  };
  fetchEventSource(url, {
    ...more,
    signal: life.signal,
    openWhenHidden: true,
    onmessage: ({ data, id }) => heard(data, id),
    onclose: again,
  });
  return () => life.abort();
};

/// A client that reads one body, and comes back by itself, with the last id that
/// `read` has given it, or the one in the head of the first answer.
const byHand = (read, more) => (url, heard) => {
  const life = new AbortController();
  const run = async () => {
    for (let last; !life.signal.aborted; ) {
      const headers = { Accept: 'text/event-stream', ...(last && { 'Last-Event-ID': last }) };
      const answer = await fetch(url, { ...more, headers, signal: life.signal });
      last ??= answer.headers.get('Last-Event-ID');
      await read(answer, life, (data, id) => {
        if (id) last = id;
        heard(data, id);
      });
      await new Promise((later) => setTimeout(later, 200));
    }
  };
  run().catch((wrong) => life.signal.aborted || heard(`{"wrong":${JSON.stringify(String(wrong))}}`));
  return () => life.abort();
};

async function parserStream(answer, life, heard) {
  const events = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  for await (const { data, id } of events) heard(data, id);
}

/// The SDK gives what it has parsed, and no ids: these are in the data too.
async function openai(answer, life, heard) {
  const stream = Stream.fromSSEResponse(answer, new AbortController());
  for await (const value of stream) heard(JSON.stringify(value), value.id);
}

const noStore = { cache: 'no-store' };

export const packages = {
  'eventsource': { open: eventSource, empty: 0, unseen: true },
  'eventsource-parser': { open: byHand(parserStream), empty: 0, unseen: true },
  'eventsource-parser, no-store': { open: byHand(parserStream, noStore), empty: 0, unseen: true },
  'fetch-event-source': { open: fetching(), empty: 0, unseen: false },
  'fetch-event-source, no-store': { open: fetching(noStore), empty: 1, unseen: true },
  'fetch-event-source, no-store, cursor=false': { open: fetching(noStore), query: '?cursor=false', empty: 0, unseen: false },
  'extended-eventsource': { open: extended, empty: 1, unseen: true },
  'extended-eventsource, cursor=false': { open: extended, query: '?cursor=false', empty: 0, unseen: false },
  'openai': { open: byHand(openai), empty: 0, unseen: true },
};
