// A program against the types. tsc checks it; it never runs.

import { PushWheel, parser, type Gap, type PushWheelErrorEvent, type PushWheelOptions } from "/pushwheel.js";

const options: PushWheelOptions = {
  withCredentials: true,
  shared: "alice",
  headers: { Authorization: "Bearer t" },
  watchdog: 30_000,
  storage: localStorage,
  onGap: ({ reason, oldest }: Gap) => console.log(reason === "evicted", oldest),
  onReauth: async (status) => (status === 403 ? false : { headers: { Authorization: "Bearer fresh" } }),
};
const source: PushWheel = new PushWheel(new URL("https://a.example/channels/news"), options);

source.onmessage = ({ data, lastEventId }) => console.log(data.length, lastEventId);
source.addEventListener("headline", ({ data }) => console.log(data.trim()));
source.addEventListener("error", ({ status }) => console.log(status === 204), { once: true });
source.onerror = ({ status }) => source.readyState === PushWheel.CLOSED && console.log(status);
const heard = ({ data }: MessageEvent<string>) => console.log(data);
source.addEventListener("headline", heard);
source.removeEventListener("headline", heard);
const failed = ({ status }: PushWheelErrorEvent) => console.log(status);
source.addEventListener("error", failed);
source.removeEventListener("error", failed);
source.close();

// What is there for an EventSource takes a PushWheel.
const other: EventSource = source;
other.onerror = (event) => console.log(event.type);

const parse = parser(undefined, (at, type, data) => console.log(at, type, data), (ms) => console.log(ms));
parse("data: hello\n\n");

// @ts-expect-error: it is for the stream to say.
source.readyState = 1;
// @ts-expect-error: no such option.
new PushWheel("/channels/news", { shraed: false });
// @ts-expect-error: neither a URL, nor what is to change, nor false.
new PushWheel("/channels/news", { onReauth: () => 7 });
