// The line on top, and what stands over the chart: state of the connection, price, the candle's numbers.

import { byId, made, put } from "./dom.js";
import { barTime, clock, compact, fixed, lookOf, percent } from "./numbers.js";

/** An engine that says nothing of itself for so long is slow. */
const SLOW_MS = 5_000;

/**
 * How the page and its engine are: [state, words, more], state one of live, degraded, connecting, down.
 * `feed`: the feed's state; `downMs`: how long it has been away, or 0; `stats`: the engine's newest answer or
 * null; `silentMs`: how old that is, or null.
 */
export function linkState({ feed, downMs, stats, silentMs }) {
  if (downMs) return ["down", "no connection, trying again", `${Math.max(1, Math.round(downMs / 1e3))} s`];
  const waits = stats?.waiting_for?.length ? ["degraded", `waiting: ${stats.waiting_for[0]}`, ""] : null;
  if (feed !== "open") return waits ?? ["connecting", "connecting", ""];
  if (silentMs !== null && silentMs > SLOW_MS) {
    return ["degraded", "live, the engine's health is not told", `${Math.round(silentMs / 1e3)} s`];
  }
  if (waits) return waits;
  const open = stats?.gaps?.open ?? 0;
  if (open) return ["degraded", `live, repairing ${open === 1 ? "a gap" : `${open} gaps`}`, ""];
  if (stats?.history === "starting") return ["degraded", "live, loading history", ""];
  if (stats && stats.status !== "ok") {
    const [worst] = stats.troubles;
    return ["degraded", worst ? `live, ${worst.name} ${worst.state}` : `live, engine ${stats.status}`, ""];
  }
  return ["live", "live", ""];
}

/** The state in the head line; what is degraded says why in its tooltip. */
export function drawLink(facts, nowMs) {
  const [state, words, more] = linkState(facts), link = byId("link");
  link.dataset.state = state;
  put("link-text", words);
  put("link-more", more);
  link.title = (facts.stats?.troubles ?? []).map(({ name, last_error: why }) => `${name}: ${why}`).join("\n");
  byId("chart").classList.toggle("grey", state === "down");
  put("utc", clock(nowMs));
}

/** Name and currency of the symbol that is shown. */
export function drawName(symbol, resolution) {
  const label = byId("name"), { base_currency: base, quote_currency: quote } = symbol;
  label.textContent = base || symbol.symbol;
  if (quote) label.append(made("small", "", `/${quote}`));
  byId("chart").ariaLabel = `Candles of ${symbol.symbol}, ${resolution.name}`;
}

/** Price, the day's change and both sides; true while the price flashes. */
export function drawPrice(row, quote, digits) {
  const { price, change } = row, flashes = performance.now() < row.flashUntil;
  put("price", fixed(price, digits));
  byId("price").className = flashes ? row.direction : "";
  put("change", Number.isFinite(change) ? percent(change) : "");
  byId("change").className = `change ${lookOf(change)}`;
  const { bid, ask } = quote ?? {};
  put("bid", fixed(bid, digits));
  put("ask", fixed(ask, digits));
  put("spread", fixed(ask - bid, digits));
  return flashes;
}

const LEGEND = ["", "O", "H", "L", "C", "", "V"];

/** The numbers of one candle. */
export class Legend {
  #words = LEGEND.map((name) => {
    const pair = made("span"), value = pair.appendChild(made("b"));
    if (name) pair.prepend(`${name} `);
    byId("legend").append(pair);
    return value;
  });

  /** `bar` undefined: there is none. */
  draw(bar, symbol, resolution) {
    byId("legend").hidden = !bar;
    if (!bar) return;
    const { price_precision: digits, quantity_precision: lots } = symbol, { open, high, low, close, volume } = bar;
    const look = close < open ? "down-text" : "up-text";
    const texts = [
      barTime(bar.time, resolution.step), ...[open, high, low, close].map((price) => fixed(price, digits)),
      percent(close / open - 1), volume < 1e6 ? fixed(volume, Math.min(4, lots)) : compact(volume),
    ];
    this.#words.forEach((word, at) => {
      put(word, texts[at]);
      word.className = at > 0 && at < LEGEND.length - 1 ? look : "";
    });
  }
}

/** The nearest levels above and below what the chart shows, and the way back to now. */
export function drawEdges(chart, digits) {
  const { above, below, height } = chart.outOfSight;
  const place = (id, arrow, level, top) => {
    byId(id).hidden = !level;
    if (!level) return;
    put(id, `${arrow} ${level.name} % at ${fixed(level.price, digits)}`);
    byId(id).style.top = `${top}px`;
  };
  place("edge-above", "↑", above, byId("legend").offsetHeight + 14);
  place("edge-below", "↓", below, height - 62);
  byId("now").hidden = chart.isAtNow;
}
