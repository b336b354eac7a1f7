// The strip under the head: how the feed is, once a second.

import { byId, put } from "./dom.js";
import { between, ClockBound, lineState, Recent } from "./measure.js";
import { clock, compact, duration, grouped, span, whole } from "./numbers.js";

export const KEPT = 300;
/** Figures that nobody has confirmed for so long are old, and are said to be. */
const OLD_MS = 4_000;

function cell(id, value, unit, below, state = "") {
  const element = byId(id);
  const set = (query, text) => {
    const found = element.querySelector(query);
    if (found) put(found, text);
  };
  if (value !== null) set("b", value);
  if (unit !== null) set("i", unit);
  set(".sub", below);
  element.dataset.state = state;
}

/** Where a line is broken it is not between a number and its unit. */
const tight = (text) => text.replaceAll(" ", "\u00a0");

/** How wrong a difference of two clocks can be, or that they were not compared yet. */
function bound(errorUs) {
  return errorUs === null ? "clocks not compared" : `± ${duration(Math.max(1, errorUs))}`;
}

/** A latency that two clocks told: it is not below zero, and not known better than the bound. */
function hop(id, { p50Us, p99Us, errorUs }) {
  if (p50Us === null) return cell(id, "–", "", errorUs === null ? "" : bound(errorUs));
  const unsure = errorUs !== null && p50Us < errorUs;
  const [value, unit] = span(unsure ? Math.max(0, p50Us) + errorUs : p50Us);
  const below = `${tight(`p99 ${duration(Math.max(0, p99Us))}`)}, ${tight(bound(errorUs))}`;
  cell(id, `${unsure ? "< " : ""}${value}`, unit, below);
}

export class Strip {
  /** One entry a second for the plot: {wire, engine, page}, each [p50, p99] in us or null. */
  points = [];
  #before = null;
  #clock = new ClockBound();
  #arrival = new Recent(2_048);
  #drawn = new Recent();
  #sentAwaitsFrame = NaN;
  #frames;
  #toDraw = null;
  #takenMs = NaN;
  #takenAt = NaN;

  constructor(frames) {
    this.#frames = frames;
    frames.add("strip", () => this.#toDraw && this.#draw(...this.#toDraw));
  }

  /** Engine minus page, {offsetMs, errorMs}; null before the first answer. */
  get clock() {
    return this.#clock.now;
  }

  /** The engine's time now, ms. */
  get nowMs() {
    return performance.timeOrigin + performance.now() + (this.clock?.offsetMs ?? 0);
  }

  /** A live batch came: when the engine sent it (ms, its clock), when it was here (ms, this one). */
  arrived(sentMs, receivedMs) {
    this.#arrival.add(receivedMs - sentMs, performance.now());
    this.#sentAwaitsFrame = sentMs;
  }

  /** A frame was drawn. */
  framed() {
    if (Number.isNaN(this.#sentAwaitsFrame)) return;
    this.#drawn.add(performance.timeOrigin + performance.now() - this.#sentAwaitsFrame, performance.now());
    this.#sentAwaitsFrame = NaN;
  }

  /** An answer of /api/v1/stats, and when it was asked for and had, ms. Returns what is between two. */
  take(stats, sentMs, receivedMs) {
    this.#clock.add(sentMs, stats.asked, stats.now, receivedMs);
    const told = between(this.#before, stats);
    if (!this.#before || stats.timestamp > this.#before.timestamp) this.#before = stats;
    else return null; // the same reading again: nothing has passed
    const page = this.#page();
    this.points.push({
      wire: pair(told.wire), engine: pair(told.engine), page: pair(page),
    });
    if (this.points.length > KEPT) this.points.shift();
    this.#toDraw = [stats, told, page];
    this.#takenMs = performance.now();
    this.#takenAt = stats.timestamp;
    this.#frames.want("strip");
    return told;
  }

  /** How long ago the figures were those of the engine, ms; null before the first ones. */
  get ageMs() {
    return Number.isNaN(this.#takenMs) ? null : performance.now() - this.#takenMs;
  }

  /** Once a second: old figures are grey, with the time of which they are. */
  sweep() {
    const old = this.ageMs !== null && this.ageMs > OLD_MS;
    byId("strip").dataset.old = String(old);
    if (old) put(byId("s-rate").querySelector(".sub"), `as of ${clock(this.#takenAt)}`);
  }

  #page() {
    const offset = this.clock, now = performance.now();
    const [p50, p99] = this.#arrival.quantiles([0.5, 0.99], now);
    const [drawn] = this.#drawn.quantiles([0.5], now);
    const us = (ms) => (ms === null || !offset ? null : 1e3 * (ms + offset.offsetMs));
    return { p50Us: us(p50), p99Us: us(p99), drawnUs: us(drawn), errorUs: offset ? 1e3 * offset.errorMs : null };
  }

  #draw(stats, told, page) {
    const copies = told.duplicates === null ? "" : `${compact(told.duplicates)} of them copies`;
    cell("s-rate", told.messages === null ? "–" : whole(told.messages), "msg/s", copies);
    hop("s-wire", told.wire);
    const [value, unit] = span(told.engine.p50Us);
    cell("s-engine", value, unit, told.engine.p99Us === null ? "" : `${tight(`p99 ${duration(told.engine.p99Us)}`)}, one clock`);
    hop("s-page", page);
    put("drawn", page.drawnUs === null ? "" : `, drawn after ${duration(Math.max(0, page.drawnUs))}`);
    this.#drawLines(stats.lines);
    this.#drawGaps(stats.gaps);
    this.#drawComplete(stats.symbol);
  }

  #drawLines(lines) {
    const words = [];
    for (const lamp of document.querySelectorAll("#s-lines [data-line]")) {
      const streams = lines[lamp.dataset.line] ?? [], state = lineState(streams);
      lamp.dataset.state = state;
      lamp.title = streams.map((stream) => `${stream.stream}: ${stream.state}`).join("\n");
      lamp.role = "img";
      lamp.ariaLabel = `line ${lamp.dataset.line.toUpperCase()} ${state}`;
      if (state === "down" || state === "degraded") words.push(`${lamp.dataset.line.toUpperCase()} ${state}`);
    }
    cell("s-lines", null, null, words.join(", ") || firsts(lines));
  }

  #drawGaps(gaps) {
    if (!gaps) return cell("s-gaps", "–", "open", "");
    const lost = gaps.unrepairable ? `, ${whole(gaps.unrepairable)} lost` : "";
    const below = gaps.open ? `${whole(gaps.missing)} ids missing` : `${whole(gaps.repaired)} repaired${lost}`;
    return cell("s-gaps", whole(gaps.open), "open", below, gaps.open ? "bad" : "");
  }

  #drawComplete(symbol) {
    const id = symbol?.complete_through_id ?? null;
    if (id === null) return cell("s-complete", "–", null, "not known yet");
    const behind = symbol.newest_id - id;
    const words = behind > 0 ? `${whole(behind)} newer wait` : "every trade so far";
    const at = symbol.complete_through ? `${clock(symbol.complete_through)}, ` : "";
    return cell("s-complete", grouped(String(id)), null, at + words, behind > 0 ? "warn" : "");
  }
}

/** How often each line was first. */
function firsts(lines) {
  const wins = (name) => (lines[name] ?? []).reduce((sum, stream) => sum + (stream.wins ?? 0), 0);
  const total = wins("a") + wins("b");
  return total && lines.b ? `A first ${Math.round((100 * wins("a")) / total)} %` : "";
}

/** For the plot. What the clocks' offset has made negative has no place on a logarithmic axis. */
function pair({ p50Us, p99Us }) {
  return p50Us === null || p50Us <= 0 ? null : [p50Us, Math.max(p50Us, p99Us)];
}
