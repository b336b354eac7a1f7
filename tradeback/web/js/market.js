// The candles of the symbol that is shown: history by UDF, the running one from the feed, and healing.

import { BEGUN, Candles, LATE, NONE } from "./candles.js";
import * as http from "./http.js";
import { spansOf } from "./spans.js";

const FIRST = 500;
const PAGE = 500;
const BARS_MAX = 20_000;
/** After a candle has closed, when late trades of it should have come. */
const CLOSED_MS = 1_200;
const LATE_MS = 400;
const GAP_MS = 120;
const SETTLE_PAUSE_MS = 2_500;
/** The running candle is compared with the engine's now and then, whatever happens. */
const SETTLE_EVERY_MS = 10_000;
const GAPS_BACK_S = 7 * 86_400;

const FIELDS = ["open", "high", "low", "close", "volume"];
const same = (one, other) => one && FIELDS.every((field) => one[field] === other[field]);
const plain = ({ time, open, high, low, close, volume }) => ({ time, open, high, low, close, volume });
const keyOf = (gap) => `${gap.stream}:${gap.from_id}:${gap.to_id}`;

export class Market {
  symbol = null;
  resolution = null;
  candles = new Candles(60, 8);
  gaps = [];

  #frames; #chart; #told;
  #turn = new AbortController();
  #timers = new Map();
  #settledMs = 0;
  #settling = false;
  #older = false;
  #handled = new Map();
  #gapsKnown = false;

  /** `told`: wait(text), what the empty chart says; nowMs(), the engine's time. */
  constructor(frames, chart, told) {
    this.#frames = frames;
    this.#chart = chart;
    this.#told = told;
    frames.add("candles", () => chart.draw(this.candles.changes()));
    frames.add("gaps", () => chart.setGaps(spansOf(this.gaps, told.nowMs())));
  }

  /** Show another symbol or resolution. Whatever is under way for the one before is dropped. */
  async open(symbol, resolution) {
    this.#turn.abort();
    const { signal } = (this.#turn = new AbortController());
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    Object.assign(this, { symbol, resolution, gaps: [] });
    this.candles = new Candles(resolution.step, symbol.quantity_precision);
    this.#settling = this.#older = this.#gapsKnown = false;
    this.#handled.clear();
    const tick = Number(symbol.tick_size) || 10 ** -symbol.price_precision;
    this.#chart.open({ digits: symbol.price_precision, tick, step: resolution.step });
    this.#told.wait("Loading candles");
    await this.#guard(signal, () => this.#read(signal));
  }

  /** One live trade of this symbol. Draws nothing. */
  trade(trade) {
    const outcome = this.candles.trade(trade);
    if (outcome === NONE) return;
    if (outcome === LATE) return this.#soon("settle", LATE_MS, (signal) => this.#settle(signal));
    if (outcome === BEGUN) {
      this.#soon("settle", CLOSED_MS, (signal) => this.#settle(signal));
      if (this.candles.bars.length === 1) this.#told.wait("");
      if (this.candles.bars.length >= BARS_MAX + PAGE) this.candles.trim(BARS_MAX);
    }
    this.#frames.want("candles");
  }

  /** A gap of this symbol has another state. */
  gapChanged() {
    this.#soon("gaps", GAP_MS, (signal) => this.#readGaps(signal));
  }

  /** After a break: whatever may have happened meanwhile is read again. */
  refresh() {
    if (this.symbol) this.#soon("refresh", 0, (signal) => this.#read(signal));
  }

  /** Once a second. */
  tick(nowMs) {
    if (this.symbol && nowMs - this.#settledMs > SETTLE_EVERY_MS) {
      this.#soon("settle", 0, (signal) => this.#settle(signal));
    }
    if (this.gaps.some((gap) => gap.state === "open")) this.#frames.want("gaps");
  }

  /** The picture nears the left end of what is here. */
  async older() {
    const oldest = this.candles.bars[0];
    if (this.#older || !oldest || this.candles.bars.length >= BARS_MAX) return;
    this.#older = true;
    const { signal } = this.#turn;
    await this.#guard(signal, async () => {
      const { symbol, resolution } = this;
      const ask = () => http.history(symbol.symbol, resolution.udf, oldest.time, PAGE, { signal });
      const bars = await http.persist(ask, { signal });
      this.candles.merge(bars.filter((bar) => bar.time < oldest.time));
      this.#frames.want("candles");
      if (bars.length) this.#older = false;
    });
  }

  /** What was aborted is over; what else fails is said where the candles would be. */
  async #guard(signal, work) {
    try {
      await work();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof http.HttpError)) throw error;
      if (!this.candles.bars.length) this.#told.wait(error.message);
    }
  }

  #soon(name, ms, work) {
    if (this.#timers.has(name)) return;
    const { signal } = this.#turn;
    const run = () => {
      this.#timers.delete(name);
      if (!signal.aborted) this.#guard(signal, () => work(signal));
    };
    const pause = name === "settle" ? this.#settledMs + SETTLE_PAUSE_MS - performance.now() : 0;
    this.#timers.set(name, setTimeout(run, Math.max(ms, pause)));
  }

  /** History, then what is missing of it, then the running candle. */
  async #read(signal) {
    await this.#load(signal);
    this.#told.wait(this.candles.bars.length ? "" : "No trades yet");
    this.#guard(signal, () => this.#readGaps(signal));
    await this.#settle(signal);
  }

  async #load(signal) {
    const { symbol, resolution, candles } = this;
    const count = Math.min(Math.max(FIRST, candles.bars.length), 2_000);
    const ask = () => http.newest(symbol.symbol, resolution.udf, count, { signal });
    const told = (error) => this.candles.bars.length || this.#told.wait(error.message);
    const bars = await http.persist(ask, { signal, told });
    if (bars.length) candles.replace(bars, bars[0].time, Infinity);
    this.#frames.want("candles");
  }

  /**
   * Have the newest candles as the engine has them. Trades wait meanwhile, and those that the engine's answer
   * does not hold yet go on top: no trade counts twice, none is lost.
   */
  async #settle(signal) {
    if (this.#settling) return;
    const { candles } = this;
    this.#settling = true;
    this.#settledMs = performance.now();
    candles.hold();
    try {
      await this.#compare(candles, signal);
    } finally {
      if (candles === this.candles) {
        this.#settling = false;
        this.#frames.want("candles");
      }
      candles.base(null, 0); // trades count again also when nobody answers
    }
  }

  async #compare(candles, signal) {
    const { symbol, resolution } = this, { step } = resolution;
    const nowS = this.#told.nowMs() / 1e3;
    const since = candles.bars.at(-3)?.time ?? Math.floor(nowS / step) * step;
    const { bars, lastId } = await http.bars(symbol.symbol, resolution.name, since, { signal });
    const newest = bars.at(-1);
    if (!newest) return;
    if (candles.last && newest.time < candles.last.time) {
      // Who answers is behind: what he says of the candle that closed here may lack its last trades.
      return void this.#soon("settle", CLOSED_MS, (now) => this.#settle(now));
    }
    for (const bar of bars) {
      if (bar !== newest && !same(candles.at(bar.time), bar)) candles.merge([plain(bar)]);
    }
    candles.base(plain(newest), lastId);
  }

  /** What is missing of this symbol; candles of gaps that were closed meanwhile are read again. */
  async #readGaps(signal) {
    const { symbol, candles } = this;
    const oldest = candles.bars[0]?.time ?? 0, newest = candles.last?.time ?? this.#told.nowMs() / 1e3;
    const fromS = Math.max(oldest, newest - GAPS_BACK_S);
    const gaps = await http.persist(() => http.gaps(symbol.symbol, fromS, { signal }), { signal });
    this.gaps = gaps;
    this.#frames.want("gaps");
    for (const gap of gaps) {
      const closed = gap.state !== "open" && this.#handled.get(keyOf(gap)) !== gap.state;
      this.#handled.set(keyOf(gap), gap.state);
      if (closed && this.#gapsKnown && gap.stream === "trade") await this.#heal(gap, signal);
    }
    this.#gapsKnown = true;
  }

  async #heal(gap, signal) {
    const { symbol, resolution, candles } = this, { step } = resolution;
    const floor = (ms) => Math.floor(ms / 1e3 / step) * step;
    const from = floor(gap.from_time ?? gap.opened_at), running = candles.last?.time ?? Infinity;
    const to = Math.min(floor(gap.to_time ?? gap.closed_at) + step, running);
    if (from < to) {
      const bars = await http.historyOf(symbol.symbol, resolution.udf, from, to, { signal });
      if (bars.some((bar) => !same(candles.at(bar.time), bar))) candles.replace(bars, from, to);
      this.#frames.want("candles");
    }
    this.#soon("settle", 0, (now) => this.#settle(now));
  }
}
