// The page: wires the feed, the list, the chart and the panels. Read it and you have seen the flow.
//
//   feed, HTTP -> what is known (list, market, strip) -> "something has changed" -> one animation frame

import { colours, makeChart } from "./chart.js";
import { followSystemTheme, mustLogIn, offerAbout, offerLogIn, toggleTheme } from "./dialogs.js";
import { byId, press, put } from "./dom.js";
import { Feed } from "./feed.js";
import { Frames } from "./frames.js";
import { drawEdges, drawLink, drawName, drawPrice, Legend } from "./head.js";
import * as http from "./http.js";
import { listen } from "./keys.js";
import { drawLatency } from "./latency_plot.js";
import { ListFacts } from "./list_facts.js";
import { Market } from "./market.js";
import { duration, fixed, whole } from "./numbers.js";
import { EnigmaPanel, EventPanel, gapWords, levelsOf } from "./panels.js";
import { Strip } from "./strip.js";
import { formatState, LEVELS, next, parseState, resolutionOf } from "./view_state.js";
import { WatchList } from "./watch_list.js";
import { Watched } from "./watching.js";
import { Flag } from "./wire_v2.js";

const LISTED_MAX = 200;
const QUOTES_EVERY_S = 60;
const EVENTS_BACK_S = 3_600;
const EVENTS_MAX = 20;
/** A break that was longer is not resumed trade by trade: what is newest counts. */
const RESUME_MAX_MS = 60_000;
const DAMAGED_MAX = 3;
/** Of a feed that was closed, and not by this page. */
const ANEW_MS = 2_000;
const REPAIRED_OR_LATE = Flag.REPAIRED | Flag.LATE;

class Page {
  state = parseState(location.hash);
  frames = new Frames();
  feed = new Feed(location.origin);
  strip = new Strip(this.frames);
  events = new EventPanel();
  enigmaPanel = new EnigmaPanel();
  legend = new Legend();
  symbols = [];
  byName = new Map();
  selected = null;
  enigma = null;
  quote = null;
  hovered = null;
  stats = null;
  #follows = new Set();
  #openGaps = new Map();
  #downSince = 0;
  #everOpen = false;
  #seconds = 0;
  #asking = false;
  #eventsKnown = false;
  #damaged = 0;

  constructor() {
    this.list = new WatchList(byId("rows"), this.frames, {
      select: (name) => this.select(name), spark: (name) => this.facts.wantSpark(name),
    });
    this.facts = new ListFacts(this.list, {
      changed: () => this.frames.want("price"), may: () => !mustLogIn(),
    });
    this.chart = makeChart(byId("chart"), {
      older: () => this.market.older(), moved: () => this.frames.want("edges"),
      hover: (time) => {
        this.hovered = time;
        this.frames.want("legend");
      },
    });
    this.market = new Market(this.frames, this.chart, {
      wait: (text) => put("wait", text), nowMs: () => this.strip.nowMs,
    });
    this.watched = new Watched({
      changed: () => this.state.list === "watch" && this.showList(), shown: () => this.selected?.symbol,
      refused: (name, words) => this.#tell(`watch:${name}`, `${name} cannot be watched: ${words}`, "bad"),
    });
    this.frames.add("price", () => this.#drawPrice());
    this.frames.add("legend", () => this.#drawLegend());
    this.frames.add("levels", () => this.#drawLevels());
    this.frames.add("panel", () => this.#drawPanel());
    this.frames.add("edges", () => drawEdges(this.chart, this.digits));
    this.frames.add("plot", () => this.#drawPlot());
    this.frames.add("second", () => this.#drawSecond());
    this.frames.add("sent", () => this.strip.framed());
    listen(this);
    addEventListener("hashchange", () => this.#takeHash());
    addEventListener("resize", () => this.frames.want("plot"));
    document.addEventListener("visibilitychange", () => !document.hidden && this.#tick());
    offerAbout();
    followSystemTheme(() => this.#themed());
    this.change({});
  }

  async start() {
    setInterval(() => this.#tick(), 1_000);
    this.#tick();
    this.#takeSymbols(await this.#readSymbols());
    put("wait", "");
    await this.watched.read();
    this.showList();
    const wanted = this.byName.has(this.state.symbol) ? this.state.symbol : this.list.names[0];
    this.#followFeed();
    this.select(wanted ?? this.symbols[0].symbol);
    this.feed.connect();
    this.facts.read();
  }

  /** Decimals of the prices that are shown. */
  get digits() {
    return this.selected?.price_precision ?? 2;
  }

  // What is shown.

  select(name) {
    const symbol = this.byName.get(name);
    if (!symbol || this.selected === symbol) return;
    const before = this.selected;
    this.selected = symbol;
    this.enigma = this.quote = null;
    this.list.select(name);
    if (before) this.feed.unsubscribe(before.symbol, ["quotes", "enigma"]);
    this.#follow();
    this.feed.subscribe(name, ["quotes", "enigma"]);
    this.change({ symbol: name });
    this.watched.draw();
    this.#open();
    for (const part of ["price", "levels", "second"]) this.frames.want(part);
  }

  #open() {
    const resolution = resolutionOf(this.state.resolution);
    this.hovered = null;
    drawName(this.selected, resolution);
    this.market.open(this.selected, resolution);
    this.frames.want("legend");
  }

  /** Another view: buttons, the address, and what it changes. */
  change(changes) {
    const before = this.state;
    this.state = { ...before, ...changes };
    history.replaceState(null, "", formatState(this.state));
    for (const button of byId("resolutions").children) press(button, button.dataset.name === this.state.resolution);
    press(byId("levels"), this.state.levels !== "off");
    put("levels", this.state.levels === "fit" ? "Fib, all" : "Fib");
    press(byId("enigma-pane"), this.state.pane === "enigma");
    press(byId("latency-pane"), this.state.pane === "latency");
    byId("plot").hidden = this.state.pane !== "latency";
    for (const button of byId("lists").children) press(button, button.dataset.list === this.state.list);
    if (before.resolution !== this.state.resolution && this.selected) this.#open();
    if (before.list !== this.state.list) this.showList();
    this.frames.want("levels");
    this.frames.want("plot");
  }

  showList() {
    const text = byId("find").value.trim().toUpperCase().replace(/[/\s-]/g, "");
    const watched = this.state.list === "watch" && this.watched.names && !text;
    const all = watched ? this.watched.names.map((name) => this.byName.get(name)).filter(Boolean) : this.symbols;
    const found = text ? all.filter((symbol) => symbol.symbol.includes(text)) : all;
    this.list.show(found.slice(0, LISTED_MAX));
    const none = text ? `No symbol has “${text}” in its name.` : "Star a symbol to watch it (w).";
    const words = found.length > LISTED_MAX ? `${LISTED_MAX} of ${whole(found.length)}: type to find others.` : "";
    byId("rows-empty").hidden = found.length > 0 && !words;
    put("rows-empty", found.length ? words : none);
    this.#follow();
  }

  /** Have trades and gaps of what is listed and shown; of others only while all of them are few. */
  #follow() {
    const wanted = new Set(this.list.names);
    if (this.selected) wanted.add(this.selected.symbol);
    const fresh = [...wanted].filter((name) => !this.#follows.has(name));
    if (fresh.length) {
      for (const name of fresh) this.#follows.add(name);
      this.feed.subscribe(fresh, ["trades", "gaps"]);
      if (this.feed.state === "open") this.facts.readSoon();
    }
    if (this.#follows.size <= 2 * LISTED_MAX) return;
    const spare = [...this.#follows].filter((name) => !wanted.has(name));
    for (const name of spare) this.#follows.delete(name);
    this.feed.unsubscribe(spare, ["trades", "gaps"]);
  }

  // What comes.

  #followFeed() {
    const { feed } = this;
    feed.onBatch = (batch) => {
      const { engineToClientUs } = batch.latency;
      if (engineToClientUs === null) return;
      const sentMs = batch.receivedMs - engineToClientUs / 1e3;
      this.strip.arrived(sentMs, performance.timeOrigin + performance.now());
      this.frames.want("sent");
    };
    feed.onTrades = (trades, batch) => this.#takeTrades(trades, batch);
    feed.onQuotes = (quotes) => {
      const found = quotes.findLast((quote) => quote.symbol === this.selected.symbol);
      if (found) this.quote = found;
      this.frames.want("price");
    };
    feed.onEnigma = (levels) => {
      const found = levels.findLast((level) => level.symbol === this.selected.symbol);
      if (found) this.enigma = found;
      this.frames.want("levels");
    };
    feed.onGap = (gap) => this.#takeGap(gap);
    feed.onState = (state, reason) => this.#takeState(state, reason);
    // The market watch was changed, here or elsewhere.
    feed.onWatched = feed.onUnsubscribed = () => this.watched.readSoon();
    // A message that cannot be read costs a connection, and comes again. Should it never pass: begin anew.
    feed.onError = ({ code }) => {
      if (code === "damaged" && ++this.#damaged % DAMAGED_MAX === 0) feed.position = null;
    };
    feed.onLost = () => this.#tell(`lost:${Date.now()}`, "A break too long to resume: history is read anew", "bad");
  }

  #takeTrades(trades, batch) {
    const nowMs = performance.now(), shown = this.selected.symbol;
    let ours = false;
    for (const trade of trades) {
      if (!(trade.flags & REPAIRED_OR_LATE)) this.list.take(trade.symbol, trade.price, nowMs);
      if (trade.symbol !== shown) continue;
      ours = true;
      if (!batch.snapshot) this.market.trade(trade);
    }
    if (ours) for (const part of ["price", "legend", "panel"]) this.frames.want(part);
  }

  #takeGap({ symbol, stream, firstId, lastId, state, missing, notedUs }) {
    const key = `gap:${symbol}:${stream}:${firstId}:${lastId}`, ids = lastId - firstId + 1;
    if (state === "open") this.#openGaps.set(key, notedUs);
    const tookMs = (notedUs - (this.#openGaps.get(key) ?? notedUs)) / 1e3;
    if (state === "repaired") this.#openGaps.delete(key);
    this.#tellGap(key, notedUs / 1e3, { symbol, state, missing, ids, tookMs });
    if (symbol === this.selected.symbol) this.market.gapChanged();
  }

  #tellGap(key, ms, gap) {
    const [text, look] = gapWords(gap);
    this.events.add(key, ms, text, look);
  }

  /** Something that has happened here and now. */
  #tell(key, text, look) {
    this.events.add(key, this.strip.nowMs, text, look);
  }

  #takeState(state, reason) {
    const nowMs = performance.now();
    if (state === "open") {
      const lasted = this.#downSince ? nowMs - this.#downSince : 0;
      if (lasted) this.#tell(`up:${nowMs}`, `Feed is back after ${duration(1e3 * lasted)}`, "good");
      if (this.#everOpen) this.#comeBack();
      this.#everOpen = true;
      this.#downSince = 0;
    } else if ((state === "waiting" || state === "closed") && !this.#downSince) {
      this.#downSince = nowMs;
      if (this.#everOpen) this.#tell(`down:${nowMs}`, `Feed is lost (${reason})`, "bad");
    } else if (state === "connecting" && nowMs - this.#downSince > RESUME_MAX_MS && this.#downSince) {
      this.feed.position = null;
    }
    if (state === "closed" && !mustLogIn()) setTimeout(() => this.feed.connect(), ANEW_MS);
    this.frames.want("second");
  }

  #comeBack() {
    this.market.refresh();
    this.#readStats();
    this.facts.read();
    this.list.sparkAgain();
    this.#renewSymbols();
  }

  // What is asked for.

  /** Waits until there are some. */
  async #readSymbols() {
    for (;;) {
      const told = (error) => put("wait", error.status ? error.message : "The engine does not answer; trying again");
      const failed = (error) => put("wait", error.status === 401 ? "" : error.message);
      const found = mustLogIn() ? [] : await http.attempt(() => http.persist(() => http.symbols(), { told }), failed);
      const active = found?.filter((symbol) => symbol.is_active) ?? [];
      if (active.length) return active;
      if (!mustLogIn()) put("wait", "Waiting for the exchange to list its symbols");
      await http.waited(1_000);
    }
  }

  #takeSymbols(symbols) {
    this.symbols = symbols;
    this.byName = new Map(symbols.map((symbol) => [symbol.symbol, symbol]));
  }

  /** The exchange may have listed others since. */
  async #renewSymbols() {
    const found = await http.attempt(() => http.symbols());
    const active = found?.filter((symbol) => symbol.is_active) ?? [];
    const names = (symbols) => symbols.map((symbol) => symbol.symbol).join();
    if (!active.length || names(active) === names(this.symbols)) return;
    this.#takeSymbols(active);
    this.showList();
  }

  toggleWatch() {
    return this.watched.toggle(this.selected?.symbol);
  }

  async #readStats() {
    if (this.#asking || document.hidden || mustLogIn()) return;
    this.#asking = true;
    const now = () => performance.timeOrigin + performance.now(), sentMs = now();
    try {
      const stats = await http.attempt(() => http.stats(this.selected?.symbol ?? ""));
      if (stats) this.#takeStats(stats, ...(onTheWire("/api/v1/stats") ?? [sentMs, now()]));
      this.frames.want("second");
    } finally {
      this.#asking = false;
    }
  }

  #takeStats(stats, sentMs, receivedMs) {
    this.strip.take(stats, sentMs, receivedMs);
    // An engine that has just been started fetches what was before: then there is more to show.
    if (stats.history === "ok" && this.stats && this.stats.history !== "ok") this.#comeBack();
    this.stats = stats;
    byId("newer").hidden = !stats.page || document.querySelector("meta[name=page-version]").content.endsWith(stats.page);
    this.frames.want("plot");
    if (!this.#eventsKnown && stats.gaps) this.#readEvents();
  }

  /** What has happened before; the engine's clock must be known for that. */
  async #readEvents() {
    this.#eventsKnown = true;
    const found = await http.attempt(() => http.gaps("", this.strip.nowMs / 1e3 - EVENTS_BACK_S));
    for (const gap of (found ?? []).slice(-EVENTS_MAX)) {
      const kind = gap.stream === "trade" ? 1 : 3, ids = gap.to_id - gap.from_id + 1;
      const key = `gap:${gap.symbol}:${kind}:${gap.from_id}:${gap.to_id}`;
      const tookMs = (gap.closed_at ?? gap.opened_at) - gap.opened_at;
      this.#tellGap(key, gap.closed_at ?? gap.opened_at, { ...gap, ids, tookMs });
      if (gap.state === "open") this.#openGaps.set(key, 1e3 * gap.opened_at);
    }
  }

  // What is drawn, in a frame.

  #drawPrice() {
    const row = this.selected && this.list.row(this.selected.symbol);
    if (row && drawPrice(row, this.quote, this.digits)) this.frames.want("price");
  }

  #drawLegend() {
    if (!this.selected) return;
    const { candles, resolution } = this.market;
    const bar = (this.hovered !== null && candles.at(this.hovered)) || candles.last;
    this.legend.draw(bar, this.selected, resolution);
  }

  #drawLevels() {
    if (!this.selected) return;
    const { enigma } = this;
    this.chart.setLevels(enigma ? levelsOf(enigma) : [], this.state.levels);
    this.chart.setEnigma(this.state.pane === "enigma", enigma);
    this.frames.want("panel");
  }

  #drawPanel() {
    if (!this.selected) return;
    const price = this.list.row(this.selected.symbol)?.price ?? NaN;
    this.enigmaPanel.draw(this.enigma, price, this.digits);
    this.enigmaPanel.drawAge(this.enigma, 1e3 * this.strip.nowMs);
  }

  #drawPlot() {
    if (this.state.pane === "latency") drawLatency(byId("plot-canvas"), this.strip.points, colours());
  }

  #drawSecond() {
    const nowMs = performance.now(), downMs = this.#downSince ? nowMs - this.#downSince : 0;
    const facts = { feed: this.feed.state, downMs, stats: this.stats, silentMs: this.strip.ageMs };
    drawLink(facts, this.strip.clock ? this.strip.nowMs : NaN);
    this.strip.sweep();
    if (!downMs) this.list.sweep(nowMs);
    if (this.enigma) this.enigmaPanel.drawAge(this.enigma, 1e3 * this.strip.nowMs);
    const name = this.selected?.symbol, price = this.list.row(name)?.price ?? NaN;
    document.title = Number.isFinite(price) ? `${fixed(price, this.digits)} ${name} · tradeback` : "tradeback";
    this.frames.want("edges");
  }

  // Seconds, and what keys and buttons do.

  #tick() {
    this.#seconds++;
    if (mustLogIn() && this.feed.state !== "closed") this.feed.close();
    if (document.hidden || mustLogIn()) return;
    if (this.feed.state !== "waiting" && this.feed.state !== "connecting") this.#readStats();
    if (this.#seconds % QUOTES_EVERY_S === 0) this.facts.read();
    this.market.tick(performance.now());
    this.frames.want("second");
  }

  #takeHash() {
    const { symbol, ...rest } = parseState(location.hash);
    this.change(rest);
    if (symbol) this.select(symbol);
  }

  nextLevels() {
    this.change({ levels: next(LEVELS, this.state.levels) });
  }

  togglePane(pane) {
    this.change({ pane: this.state.pane === pane ? "none" : pane });
  }

  nextTheme() {
    toggleTheme();
    this.#themed();
  }

  #themed() {
    this.chart.setTheme(colours());
    for (const part of ["plot", "edges"]) this.frames.want(part);
  }

  /** The symbol after or before the one that is shown. */
  step(by) {
    const { names } = this.list;
    if (!names.length) return;
    const at = names.indexOf(this.selected?.symbol);
    this.select(names[at < 0 ? 0 : Math.min(names.length - 1, Math.max(0, at + by))]);
  }
}

/** When the newest request of a path left the browser and its answer came in, ms since 1970; the way to and from
 * this script is left out. Null when the browser does not tell. */
function onTheWire(path) {
  const entry = performance.getEntriesByType("resource").findLast((one) => one.name.includes(path));
  performance.clearResourceTimings();
  if (!entry?.responseStart) return null;
  return [performance.timeOrigin + entry.requestStart, performance.timeOrigin + entry.responseStart];
}

offerLogIn();
const page = new Page();
/** For tests and for curious people. */
globalThis.tradeback = page;
page.start();
