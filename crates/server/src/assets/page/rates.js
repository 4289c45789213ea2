// Rates of the server's counters. A rate is an average over the last seconds, because a
// difference of one second is 0 or 1 for most channels.

export const AVERAGED_MS = 10_000;

/// The counters of the last seconds, as polls have read them.
export class Counters {
  #looks = [];

  /// Adds a poll: `{at_ms}` and the counters.
  add(look) {
    const before = this.#looks.at(-1);
    // Counters begin again with another server or another channel of the same name.
    if (before && Object.keys(before).some((name) => look[name] < before[name])) this.#looks = [];
    this.#looks.push(look);
    while (this.#looks.length > 2 && this.#looks[1].at_ms <= look.at_ms - AVERAGED_MS) this.#looks.shift();
  }

  /// Returns the rate of a counter; `undefined` before the second poll.
  perSecond(name) {
    const [first, last] = [this.#looks[0], this.#looks.at(-1)];
    if (!first || last.at_ms <= first.at_ms) return undefined;
    return ((last[name] - first[name]) * 1000) / (last.at_ms - first.at_ms);
  }
}
