// The list of symbols: prices, the day's change, a line of the last hours. It is also the symbol switch.

import { fixed, lookOf, percent } from "./numbers.js";

const FLASH_MS = 220;
/** A symbol is called silent after so many of its usual pauses, and never before so long. */
const SILENT_PAUSES = 12;
const SILENT_MS = 15_000;
const SPARK = { width: 46, height: 28, points: 48 };
const SVG = "http://www.w3.org/2000/svg";

class Row {
  price = NaN;
  /** Price from which the day's change counts. */
  base = NaN;
  direction = "";
  flashUntil = 0;
  heardMs = 0;
  pauseMs = 0;
  stale = false;
  sparked = false;
  #shown = { price: "", change: "", look: "" };

  constructor(symbol) {
    this.symbol = symbol;
    this.element = document.createElement("li");
    this.element.className = "row";
    this.element.role = "option";
    this.element.id = `row-${symbol.id}`;
    this.element.dataset.symbol = symbol.symbol;
    this.element.ariaSelected = "false";
    this.parts = {};
    for (const name of ["name", "base", "price", "change"]) {
      this.parts[name] = document.createElement("span");
      this.parts[name].className = name;
    }
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "spark");
    svg.setAttribute("viewBox", `0 0 ${SPARK.width} ${SPARK.height}`);
    svg.setAttribute("aria-hidden", "true");
    this.line = svg.appendChild(document.createElementNS(SVG, "polyline"));
    this.parts.name.textContent = symbol.base_currency || symbol.symbol;
    this.parts.base.textContent = symbol.quote_currency || "";
    const { name, base, price, change } = this.parts;
    this.element.append(name, svg, price, base, change);
  }

  take(price, nowMs) {
    if (price !== this.price) {
      if (Number.isFinite(this.price)) {
        this.direction = price > this.price ? "up" : "down";
        this.flashUntil = nowMs + FLASH_MS;
      }
      this.price = price;
    }
    if (this.heardMs) {
      const pause = nowMs - this.heardMs;
      this.pauseMs = this.pauseMs ? 0.9 * this.pauseMs + 0.1 * pause : pause;
    }
    this.heardMs = nowMs;
  }

  isSilent(nowMs) {
    const most = Math.max(SILENT_MS, SILENT_PAUSES * this.pauseMs);
    return this.heardMs > 0 && this.pauseMs > 0 && nowMs - this.heardMs > most;
  }

  get change() {
    return this.price / this.base - 1;
  }

  /** Returns true while it flashes. */
  draw(nowMs) {
    const { parts } = this;
    const text = fixed(this.price, this.symbol.price_precision);
    if (text !== this.#shown.price) parts.price.textContent = this.#shown.price = text;
    const change = Number.isFinite(this.change) ? percent(this.change) : "";
    if (change !== this.#shown.change) {
      parts.change.textContent = this.#shown.change = change;
      parts.change.className = `change ${lookOf(this.change)}`;
    }
    const flashes = nowMs < this.flashUntil;
    const look = flashes ? `price ${this.direction}` : "price";
    if (look !== this.#shown.look) parts.price.className = this.#shown.look = look;
    return flashes;
  }

  drawStale(nowMs) {
    const stale = this.isSilent(nowMs);
    if (stale === this.stale) return;
    this.stale = stale;
    this.element.classList.toggle("stale", stale);
    this.parts.base.textContent = stale ? "silent" : this.symbol.quote_currency || "";
  }

  spark(closes) {
    const low = Math.min(...closes), size = Math.max(...closes) - low || 1;
    const step = SPARK.width / Math.max(1, closes.length - 1);
    const points = closes.map((close, at) => {
      const y = 2 + (SPARK.height - 4) * (1 - (close - low) / size);
      return `${(at * step).toFixed(1)},${y.toFixed(1)}`;
    });
    this.line.setAttribute("points", points.join(" "));
  }
}

export class WatchList {
  #list; #frames; #select; #wantSpark;
  #rows = new Map();
  #order = [];
  #changed = new Set();
  #selected = "";
  #seen;

  /** `select(name)`: a symbol was chosen; `spark(name)`: a row has come into sight that has no line yet. */
  constructor(list, frames, { select, spark }) {
    this.#list = list;
    this.#frames = frames;
    this.#select = select;
    this.#wantSpark = spark;
    frames.add("list", () => this.#draw());
    list.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.#select(row.dataset.symbol);
    });
    this.#seen = new IntersectionObserver((entries) => this.#inSight(entries), { root: list });
  }

  /** Names in the order in which they are shown. */
  get names() {
    return this.#order.map((row) => row.symbol.symbol);
  }

  /** Show these symbols, in this order. Rows that go keep what they know, and go on taking prices. */
  show(symbols) {
    for (const row of this.#order) this.#seen.unobserve(row.element);
    this.#order = symbols.map((symbol) => this.#rowOf(symbol));
    this.#list.replaceChildren(...this.#order.map((row) => row.element));
    for (const row of this.#order) {
      this.#seen.observe(row.element);
      this.#changed.add(row);
    }
    this.select(this.#selected);
    this.#frames.want("list");
  }

  #rowOf(symbol) {
    let row = this.#rows.get(symbol.symbol);
    if (!row) this.#rows.set(symbol.symbol, (row = new Row(symbol)));
    return row;
  }

  row(name) {
    return this.#rows.get(name);
  }

  /** A price came. Draws nothing. */
  take(name, price, nowMs) {
    const row = this.#rows.get(name);
    if (!row) return;
    row.take(price, nowMs);
    this.#changed.add(row);
    this.#frames.want("list");
  }

  /** From which price the day's change counts. */
  setBase(name, price) {
    const row = this.#rows.get(name);
    if (!row || !(price > 0)) return;
    row.base = price;
    this.#changed.add(row);
    this.#frames.want("list");
  }

  /** Closes for a row's line. */
  spark(name, closes) {
    if (closes.length > 1) this.#rows.get(name)?.spark(closes);
  }

  /** Lines of all rows are asked for again as they are in sight. */
  sparkAgain() {
    for (const row of this.#rows.values()) row.sparked = false;
    for (const row of this.#order) {
      this.#seen.unobserve(row.element);
      this.#seen.observe(row.element);
    }
  }

  select(name) {
    this.#rows.get(this.#selected)?.element.setAttribute("aria-selected", "false");
    this.#selected = name;
    const row = this.#rows.get(name);
    row?.element.setAttribute("aria-selected", "true");
    if (row) this.#list.setAttribute("aria-activedescendant", row.element.id);
    this.#scrollTo(row?.element);
  }

  /** Only the list scrolls, never the page around it. */
  #scrollTo(element) {
    if (!element) return;
    const list = this.#list.getBoundingClientRect(), row = element.getBoundingClientRect();
    if (row.top < list.top) this.#list.scrollTop -= list.top - row.top;
    else if (row.bottom > list.bottom) this.#list.scrollTop += row.bottom - list.bottom;
    if (row.left < list.left) this.#list.scrollLeft -= list.left - row.left + 8;
    else if (row.right > list.right) this.#list.scrollLeft += row.right - list.right + 8;
  }

  /** Once a second: who has been silent for too long. */
  sweep(nowMs) {
    for (const row of this.#order) row.drawStale(nowMs);
  }

  #draw() {
    const nowMs = performance.now(), changed = this.#changed;
    this.#changed = new Set();
    for (const row of changed) if (row.draw(nowMs)) this.#changed.add(row);
    if (this.#changed.size) this.#frames.want("list");
  }

  #inSight(entries) {
    for (const { isIntersecting, target } of entries) {
      const row = this.#rows.get(target.dataset.symbol);
      if (isIntersecting && row && !row.sparked) {
        row.sparked = true;
        this.#wantSpark(row.symbol.symbol);
      }
    }
  }
}
