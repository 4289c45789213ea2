// The types of pushwheel.js. What each of these is for: docs/client.md.

/** What a stream that could not be resumed without a hole says of it. */
export interface Gap {
  /** The id after which the stream was to continue, or `"earliest"`. */
  requested: string | null;
  /** The oldest id in the history that this client may see. */
  oldest: string | null;
  /** The newest one. */
  newest: string | null;
  reason: "evicted" | "restart" | "unknown" | "slow" | "audience";
}

/** What `onReauth` may change before the next connection. */
export interface Renewed {
  url?: string | URL;
  headers?: Record<string, string>;
  withCredentials?: boolean;
}

export interface PushWheelOptions {
  /** Send cookies to another origin too. Default: `false`. */
  withCredentials?: boolean;
  /**
   * One connection for all tabs of the site with this URL; with a string, such as
   * a user's name, for the tabs with the same one. Default: `true`, and `false` with
   * `headers`, which may be those of different users.
   */
  shared?: boolean | string;
  /** Sent with each request, such as `Authorization`. Default: none. */
  headers?: Record<string, string>;
  /**
   * After so many milliseconds without a byte a line is dead; 0 trusts any
   * line. More than two of the server's heartbeats. Default: 45,000.
   */
  watchdog?: number;
  /**
   * Pauses between failing attempts grow from the server's `retry:` (3,000
   * without one) to so many milliseconds, and are up to twice as long by
   * chance. Default: 60,000.
   */
  delayMax?: number;
  /**
   * Where the cursor is kept over a reload; `null`: nowhere. Default:
   * `sessionStorage`, which is the tab's own.
   */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem"> | null;
  /** Events were missed and are gone: load the state anew. */
  onGap?: (gap: Gap, event: MessageEvent<string>) => void;
  /**
   * The credentials have run out: called in the tab that has the connection,
   * with the status (401 or 403; 401 for a stream that said so). Give what is
   * to change, a URL, or nothing when a cookie was renewed, and it reconnects
   * at once, unless it failed just before; `false` closes it for all tabs.
   */
  onReauth?: (status: number) => Renewed | string | false | void | Promise<Renewed | string | false | void>;
}

/** An `error`: the stream has ended or could not be opened. */
export interface PushWheelErrorEvent extends Event {
  /** Of the last answer; 0: there was none. 200: the stream ended or broke. */
  readonly status?: number;
}

export class PushWheel extends EventTarget {
  static readonly CONNECTING: 0;
  static readonly OPEN: 1;
  static readonly CLOSED: 2;
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSED: 2;

  /** @throws TypeError when the URL cannot be one, or has a password in it. */
  constructor(url: string | URL, options?: PushWheelOptions);

  readonly url: string;
  readonly withCredentials: boolean;
  readonly readyState: 0 | 1 | 2;
  /** The cursor: the id of the last event, or "". */
  readonly lastEventId: string;

  onopen: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent<string>) => void) | null;
  onerror: ((event: PushWheelErrorEvent) => void) | null;

  /** Ends it in this tab, and forgets the cursor. */
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
    listener: ((event: MessageEvent<string>) => void) | null,
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
    listener: ((event: MessageEvent<string>) => void) | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

/**
 * The parser alone, for streams from elsewhere: give it the decoded text in any
 * pieces. `take` is called for each block, without a type where it has no data.
 */
export function parser(
  at: string | undefined,
  take: (at: string | undefined, type?: string, data?: string) => void,
  retry: (ms: number) => void,
): (text: string) => void;
