// What stands beside the chart: Enigma's gauge, Fibonacci levels, events.

import { byId, made, put } from "./dom.js";
import { clock, duration, fixed, grouped, percent, whole } from "./numbers.js";

/** The retracement convention: 0 is the high, 100 the low. The engine's own formula, in the same order. */
export const RATIOS = ["0", "23.6", "38.2", "50", "61.8", "78.6", "100"];

export function levelsOf({ ath, atl }) {
  const at = (percent) => Math.min(Math.max(ath - ((ath - atl) * percent) / 100, atl), ath);
  return RATIOS.map((name) => ({ name, price: at(Number(name)) }));
}

const SVG = "http://www.w3.org/2000/svg";
export class EnigmaPanel {
  #value = byId("gauge-value");
  #needle = byId("gauge-needle");
  #rows = new Map();
  #here;
  #body = byId("fib-rows");
  #place = -1;

  constructor() {
    const ticks = byId("gauge-ticks");
    for (const name of RATIOS) {
      const angle = Math.PI * (1 - (100 - Number(name)) / 100);
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      const mark = ticks.appendChild(document.createElementNS(SVG, "line"));
      mark.setAttribute("class", "mark");
      for (const [key, value] of [["x1", 110 + 97 * cos], ["x2", 110 + 101 * cos]]) mark.setAttribute(key, value);
      for (const [key, value] of [["y1", 114 - 97 * sin], ["y2", 114 - 101 * sin]]) mark.setAttribute(key, value);
      const row = this.#body.insertRow();
      for (let at = 0; at < 3; at++) row.insertCell().textContent = at ? "–" : `${name} %`;
      this.#rows.set(name, row);
    }
    this.#here = made("tr", "here");
    this.#needle.style.visibility = "hidden";
    for (let at = 0; at < 3; at++) this.#here.insertCell();
  }

  /** Enigma as the feed has it, or null; `price` the newest, and its decimals. */
  draw(enigma, price, digits) {
    const level = enigma ? enigma.level : NaN, known = Number.isFinite(level);
    put("gauge-text", known ? level.toFixed(2) : "–");
    const turn = known ? Math.min(100, Math.max(0, level)) : 0;
    this.#value.style.strokeDasharray = `${turn} 100`;
    this.#needle.setAttribute("transform", `rotate(${(1.8 * turn).toFixed(2)} 110 114)`);
    this.#needle.style.visibility = known ? "visible" : "hidden";
    put("atl", known ? fixed(enigma.atl, digits) : "–");
    put("ath", known ? fixed(enigma.ath, digits) : "–");
    put("enigma-trade", known ? grouped(String(enigma.tradeId)) : "–");
    if (known) byId("gauge").setAttribute("aria-label", `Enigma ${level.toFixed(2)} of 100`);
    this.#drawLevels(known ? levelsOf(enigma) : null, price, digits);
  }

  drawAge(enigma, nowUs) {
    const age = enigma ? nowUs - enigma.exchangeUs : NaN;
    put("enigma-age", !Number.isFinite(age) ? "" : age < 1e6 ? "under 1 s old" : `${duration(age)} old`);
  }

  #drawLevels(levels, price, digits) {
    if (!levels) {
      for (const row of this.#rows.values()) row.cells[1].textContent = row.cells[2].textContent = "–";
      this.#here.remove();
      this.#place = -1;
      return;
    }
    for (const level of levels) {
      const [, at, away] = this.#rows.get(level.name).cells;
      put(at, fixed(level.price, digits));
      put(away, percent(level.price / price - 1, 1));
    }
    const place = levels.filter((level) => level.price >= price).length;
    if (place !== this.#place) {
      this.#place = place;
      const behind = levels[place];
      this.#body.insertBefore(this.#here, behind ? this.#rows.get(behind.name) : null);
    }
    const [name, at] = this.#here.cells;
    put(name, "now");
    put(at, fixed(price, digits));
  }
}

const SHOWN = 30;

/** The newest events first. One with the same key takes the place of the one before. */
export class EventPanel {
  #list = byId("event-list");
  #items = new Map();

  add(key, ms, text, look = "") {
    let item = this.#items.get(key);
    if (!item) {
      item = made("li");
      item.append(made("time"), made("span"));
      this.#items.set(key, item);
    }
    const [time, words] = item.children;
    item.dataset.ms = ms;
    time.textContent = clock(ms);
    time.dateTime = new Date(ms).toISOString();
    words.textContent = text;
    words.className = look;
    const behind = [...this.#list.children].find((other) => other !== item && Number(other.dataset.ms) <= ms);
    this.#list.insertBefore(item, behind ?? null);
    byId("event-empty").hidden = true;
    while (this.#list.children.length > SHOWN) {
      const last = this.#list.lastElementChild;
      for (const [name, held] of this.#items) if (held === last) this.#items.delete(name);
      last.remove();
    }
  }
}

/** What is said of a gap: [text, look]. Takes the feed's entry or one of /api/v1/gaps. */
export function gapWords({ symbol, state, missing, ids, tookMs }) {
  const trades = (count) => `${whole(count)} ${count === 1 ? "trade" : "trades"}`;
  if (state === "open") return [`${symbol}: gap, ${trades(missing)} missing`, "bad"];
  if (state === "repaired") {
    const took = tookMs > 0 ? ` after ${duration(1e3 * tookMs)}` : "";
    return [`${symbol}: gap of ${trades(ids)} repaired${took}`, "good"];
  }
  return [`${symbol}: ${trades(missing)} cannot be had any more`, "bad"];
}
