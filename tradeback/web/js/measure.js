// What the health strip says, worked out of what the engine and this page have counted. Pure.

/** The quantile of a histogram, interpolated inside its bucket; null when it is empty. us. */
export function quantile(bounds, counts, share) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (!total) return null;
  const rank = share * total;
  let seen = 0;
  for (let at = 0; at < counts.length; at++) {
    if (counts[at] && seen + counts[at] >= rank) {
      const low = at ? bounds[at - 1] : 0, high = bounds[Math.min(at, bounds.length - 1)];
      return low + ((high - low) * Math.max(0, rank - seen)) / counts[at];
    }
    seen += counts[at];
  }
  return bounds.at(-1);
}

/** What a histogram has counted since `before`; all of it when it began anew. */
export function passed(before, now) {
  if (!before || before.counts.length !== now.counts.length) return now.counts;
  const made = now.counts.map((count, at) => count - before.counts[at]);
  return made.some((count) => count < 0) ? now.counts : made;
}

const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);

/**
 * Two answers of /api/v1/stats -> the numbers of the time between them. Rates are null without a `before`
 * of the same engine.
 */
export function between(before, now) {
  const same = before && before.started_at === now.started_at && now.timestamp > before.timestamp;
  const seconds = same ? (now.timestamp - before.timestamp) / 1e3 : null;
  const rate = (name) => (same ? Math.max(0, sum(now[name]) - sum(before[name])) / seconds : null);
  const told = (name) => {
    const counts = passed(same ? before[name] : null, now[name]);
    const { bounds_us: bounds } = now[name];
    return { p50Us: quantile(bounds, counts, 0.5), p99Us: quantile(bounds, counts, 0.99) };
  };
  const wire = told("exchange_to_engine"), clock = now.clock;
  const ahead = passed(same ? { counts: [before.exchange_to_engine.ahead] } : null, {
    counts: [now.exchange_to_engine.ahead],
  })[0];
  const count = passed(same ? before.exchange_to_engine : null, now.exchange_to_engine);
  return {
    seconds, messages: rate("messages"), accepted: rate("accepted"), duplicates: rate("duplicates"),
    wire: { ...corrected(wire, clock), hidden: ahead > 0.5 * sum(count) }, engine: told("inside_engine"),
  };
}

/** Exchange to engine, corrected by the offset of the two clocks, with how wrong that can be. us. */
function corrected({ p50Us, p99Us }, clock) {
  if (!clock) return { p50Us, p99Us, errorUs: null };
  const offset = 1e3 * clock.offset_ms, errorUs = 1e3 * clock.error_ms;
  const moved = (us) => (us === null ? null : us + offset);
  return { p50Us: moved(p50Us), p99Us: moved(p99Us), errorUs };
}

/**
 * How far the engine's clock is from this one, by request and answer: the engine had the request after it was
 * sent, and answered before the answer was here, so each exchange bounds the offset from both sides.
 */
export class ClockBound {
  #samples = [];
  #most;

  constructor(most = 60) {
    this.#most = most;
  }

  /** One exchange; all in ms since 1970, when it was asked and when it answered by the engine's clock. */
  add(sentMs, askedMs, answeredMs, receivedMs) {
    this.#samples.push([answeredMs - receivedMs, askedMs - sentMs]);
    if (this.#samples.length > this.#most) this.#samples.shift();
  }

  /** `{offsetMs, errorMs}`: engine minus page, within +- errorMs. Null before the first exchange. */
  get now() {
    let low = -Infinity, high = Infinity;
    for (let at = this.#samples.length - 1; at >= 0; at--) {
      const newLow = Math.max(low, this.#samples[at][0]), newHigh = Math.min(high, this.#samples[at][1]);
      if (newLow > newHigh) {
        this.#samples.splice(0, at + 1); // a clock was set: what was before says nothing any more
        break;
      }
      [low, high] = [newLow, newHigh];
    }
    return this.#samples.length ? { offsetMs: (low + high) / 2, errorMs: (high - low) / 2 } : null;
  }
}

/** Numbers of the last few seconds, and their quantiles. */
export class Recent {
  #values; #times;
  #next = 0;
  #count = 0;

  constructor(most = 512) {
    this.#values = new Float64Array(most);
    this.#times = new Float64Array(most);
  }

  add(value, nowMs) {
    this.#values[this.#next] = value;
    this.#times[this.#next] = nowMs;
    this.#next = (this.#next + 1) % this.#values.length;
    this.#count = Math.min(this.#count + 1, this.#values.length);
  }

  /** Quantiles of what is not older than `ageMs`; nulls when there is nothing. */
  quantiles(shares, nowMs, ageMs = 5_000) {
    const kept = [];
    for (let at = 0; at < this.#count; at++) if (nowMs - this.#times[at] <= ageMs) kept.push(this.#values[at]);
    kept.sort((one, other) => one - other);
    return shares.map((share) =>
      kept.length ? kept[Math.min(kept.length - 1, Math.floor(share * kept.length))] : null,
    );
  }
}

/** The state of a line from those of its streams: all ok, some, or none. */
export function lineState(streams) {
  const up = streams.filter((stream) => stream.state === "ok").length;
  return !streams.length ? "none" : up === streams.length ? "ok" : up ? "degraded" : "down";
}
