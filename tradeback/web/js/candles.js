// Candles of one symbol and resolution: history as the engine tells it, the running one from its trades.
// The rules are the engine's own (docs/architecture.md): a trade belongs to the slot of its match time, the
// close is that of the highest trade id, and quantities are summed as whole lots. Pure.

export const NONE = 0;
/** The running candle has changed. */
export const CHANGED = 1;
/** A new one has begun. */
export const BEGUN = 2;
/** The trade belongs to a candle that is closed, or came behind a later one: ask the engine again. */
export const LATE = 3;

const WAITING_MAX = 20_000;

export class Candles {
  /** Ascending: {time, open, high, low, close, volume}; time in unix seconds. */
  bars = [];
  /** Highest trade id in the running candle; 0: not known. */
  lastId = 0;

  #step; #scale; #from;
  #waiting = [];
  #live = false;
  #all = true;

  /** @param {number} stepS seconds @param {number} quantityDigits decimals of a quantity */
  constructor(stepS, quantityDigits) {
    this.#step = stepS;
    this.#scale = 10 ** quantityDigits;
    this.#from = Infinity;
  }

  get step() {
    return this.#step;
  }

  get last() {
    return this.bars.at(-1);
  }

  /** Put these in, over those with the same time. They may be older, newer or in between. */
  merge(bars) {
    if (!bars.length) return;
    const [first, end] = [bars[0].time, bars.at(-1).time];
    const before = this.bars.slice(0, this.#place(first));
    const behind = this.bars.slice(this.#place(end + 1));
    this.bars = [...before, ...bars, ...behind];
    this.#all = true;
  }

  /** Over a span that was read as a whole: what is not among `bars` does not exist. */
  replace(bars, fromS, toS) {
    const before = this.bars.slice(0, this.#place(fromS)), behind = this.bars.slice(this.#place(toS));
    this.bars = [...before, ...bars, ...behind];
    this.#all = true;
  }

  /** Forget the oldest beyond `most`: a page that stays open for a week has a candle for each second. */
  trim(most) {
    if (this.bars.length <= most) return;
    this.bars = this.bars.slice(-most);
    this.#all = true;
  }

  /**
   * The newest candle as the engine has it, made of the trades up to `lastId`; later ones that have come
   * meanwhile are put on top. From now on trades count. An answer that is behind what has come here already
   * (who answers reads the tape on his own) takes nothing away.
   */
  base(bar, lastId) {
    const { last } = this, behind = last?.time === bar?.time && lastId > 0 && lastId < this.lastId;
    if (bar && !behind && (!last || bar.time >= last.time)) {
      this.#touch(bar.time);
      if (last?.time === bar.time) this.bars[this.bars.length - 1] = { ...bar };
      else this.bars.push({ ...bar });
      this.lastId = lastId;
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#live = true;
    for (const trade of waiting) this.#take(trade);
  }

  /** Trades wait again until the next `base`. */
  hold() {
    this.#live = false;
  }

  /** One trade of the feed: CHANGED, BEGUN, LATE or NONE. */
  trade(trade) {
    if (this.#live) return this.#take(trade);
    this.#waiting.push(trade);
    if (this.#waiting.length > WAITING_MAX) this.#waiting.splice(0, WAITING_MAX / 2);
    return NONE;
  }

  /** What is to be drawn: `{all: true}`, or the candles that have changed since the last call. */
  changes() {
    const made = { all: this.#all, bars: this.#all ? this.bars : this.bars.slice(this.#place(this.#from)) };
    this.#all = false;
    this.#from = Infinity;
    return made;
  }

  /** The candle at a time, or undefined. */
  at(time) {
    const bar = this.bars[this.#place(time)];
    return bar?.time === time ? bar : undefined;
  }

  /** Index of the first candle that is not before `time`. */
  #place(time) {
    let low = 0, high = this.bars.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.bars[middle].time < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #touch(time) {
    this.#from = Math.min(this.#from, time);
  }

  #take({ id, price, quantity, exchangeUs }) {
    const slot = Math.floor(exchangeUs / 1e6 / this.#step) * this.#step;
    const bar = this.last;
    if (!bar || slot > bar.time) {
      this.bars.push({ time: slot, open: price, high: price, low: price, close: price, volume: quantity });
      this.lastId = id;
      this.#touch(slot);
      return BEGUN;
    }
    if (slot < bar.time) return LATE;
    if (id <= this.lastId) return id < this.lastId ? LATE : NONE;
    if (price > bar.high) bar.high = price;
    if (price < bar.low) bar.low = price;
    bar.close = price;
    bar.volume = Math.round(bar.volume * this.#scale + quantity * this.#scale) / this.#scale;
    this.lastId = id;
    this.#touch(slot);
    return CHANGED;
  }
}
