// The types of pushwheel.js. Usage: docs/client.md.

/** The data of an event `pushwheel.gap`: events are missing. */
export interface Gap {
  /** The id to resume after, or `"earliest"`. */
  requested: string | null;
  /** The oldest id in the history that this client may see. */
  oldest: string | null;
  /** The newest id in the history that this client may see. */
  newest: string | null;
  reason: "evicted" | "lost" | "restart" | "unknown" | "slow" | "audience";
}

/** The changes of `onReauth` for the next connection. */
export interface Renewed {
  url?: string | URL;
  headers?: Record<string, string>;
  withCredentials?: boolean;
}

export interface PushWheelOptions {
  /** Send cookies to another origin too. Default: `false`. */
  withCredentials?: boolean;
  /**
   * One connection for all tabs of the site with this URL, or with a string, such as
   * a user name, for the tabs with the same string. Default: `true`, but `false` with
   * `headers`, which may belong to different users.
   */
  shared?: boolean | string;
  /** Headers of each request, such as `Authorization`. Default: none. */
  headers?: Record<string, string>;
  /**
   * Maximum time without a byte before a reconnection, in milliseconds; 0 for no limit.
   * Use more than twice the heartbeat of the server. Default: 45,000.
   */
  watchdog?: number;
  /**
   * Maximum delay between failed attempts, in milliseconds, before a random factor of up
   * to 2. The delay begins with the `retry:` of the server (3,000 without one) and doubles
   * each time. Default: 60,000.
   */
  delayMax?: number;
  /**
   * Storage that keeps the cursor over a reload; `null` for none. Default:
   * `sessionStorage`, which each tab has for itself.
   */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem"> | null;
  /** Called if missed events are no longer available. Load the state again. */
  onGap?: (gap: Gap, event: PushWheelEvent) => void;
  /**
   * Called if the credentials are rejected or have expired, in the tab that has the
   * connection, with the status 401 or 403 (401 for `pushwheel.reauth`). Return the
   * changes, a URL, or nothing after a cookie was renewed: the stream reconnects
   * immediately, unless the last attempt failed too. `false` closes it for all tabs.
   */
  onReauth?: (status: number) => Renewed | string | false | void | Promise<Renewed | string | false | void>;
}

/** An event with a name, or `message`. */
export interface PushWheelEvent extends MessageEvent<string> {
  /** The channel of the event, if the URL has `channel_names`, or while it polls. */
  readonly channel?: string;
}

/** An `error`: the stream has ended or could not be opened. */
export interface PushWheelErrorEvent extends Event {
  /** Status of the last response; 0 without one. 200: the stream ended or broke. */
  readonly status?: number;
}

export class PushWheel extends EventTarget {
  static readonly CONNECTING: 0;
  static readonly OPEN: 1;
  static readonly CLOSED: 2;
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSED: 2;

  /** @throws TypeError if the URL is invalid or contains a password. */
  constructor(url: string | URL, options?: PushWheelOptions);

  readonly url: string;
  readonly withCredentials: boolean;
  readonly readyState: 0 | 1 | 2;
  /** The cursor: the last id of the stream, which an event or a heartbeat contained, or "". */
  readonly lastEventId: string;

  onopen: ((event: Event) => void) | null;
  onmessage: ((event: PushWheelEvent) => void) | null;
  onerror: ((event: PushWheelErrorEvent) => void) | null;

  /** Closes the stream in this tab, and deletes the cursor. */
  close(): void;

  addEventListener(
    type: "open",
    listener: ((event: Event) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: "error",
    listener: ((event: PushWheelErrorEvent) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: ((event: PushWheelEvent) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;

  removeEventListener(
    type: "open",
    listener: ((event: Event) => void) | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: "error",
    listener: ((event: PushWheelErrorEvent) => void) | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: ((event: PushWheelEvent) => void) | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

/**
 * The parser alone, for other streams: pass decoded text in pieces of any size. `take` is
 * called for each block, without a type if the block has no data.
 */
export function parser(
  at: string | undefined,
  take: (at: string | undefined, type?: string, data?: string, channel?: string) => void,
  retry: (ms: number) => void,
): (text: string) => void;
