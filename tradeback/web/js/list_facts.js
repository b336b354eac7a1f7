// What the list shows besides the feed's prices: the day's change, and a line of the last hours.

import * as http from "./http.js";

const QUOTES_AGAIN_MS = 5_000;
const QUOTES_SOON_MS = 300;
const SPARKS_AT_ONCE = 3;
const SPARK_PAUSE_MS = 5_000;
const SPARK_BARS = 48;
const NARROW = "(max-width: 899px)";

export class ListFacts {
  #list; #changed; #may;
  #waiting = [];
  #asking = 0;
  #timer;

  /** `changed()`: a day's change is known; `may()`: whether to ask at all. */
  constructor(list, { changed, may }) {
    this.#list = list;
    this.#changed = changed;
    this.#may = may;
    // A phone that is turned shows lines that were not asked for.
    matchMedia(NARROW).addEventListener("change", () => list.sparkAgain());
  }

  readSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.read(), QUOTES_SOON_MS);
  }

  /** The day's change of all that are listed. */
  async read() {
    const { names } = this.#list;
    clearTimeout(this.#timer);
    if (!names.length || !this.#may()) return;
    const found = await http.attempt(() => http.quotes(names));
    if (!found) return;
    for (const [name, { lp, ch, open_price: open }] of found) {
      this.#list.setBase(name, Number.isFinite(ch) && Number.isFinite(lp) ? lp - ch : open);
    }
    // Symbols that have not traded yet since the engine's start have no quote.
    if (found.size < names.length) this.#timer = setTimeout(() => this.read(), QUOTES_AGAIN_MS);
    this.#changed();
  }

  /** A row has come into sight: have its line. */
  wantSpark(name) {
    if (matchMedia(NARROW).matches) return;
    this.#waiting.push(name);
    this.#next();
  }

  async #next() {
    if (this.#asking >= SPARKS_AT_ONCE || !this.#waiting.length || !this.#may()) return;
    this.#asking++;
    const name = this.#waiting.shift();
    try {
      const ask = () => http.newest(name, "5", SPARK_BARS);
      const bars = await http.attempt(ask, (error) => {
        if (http.passes(error)) setTimeout(() => this.wantSpark(name), SPARK_PAUSE_MS);
      });
      if (bars) this.#list.spark(name, bars.map((bar) => bar.close));
    } finally {
      this.#asking--;
      this.#next();
    }
  }
}
