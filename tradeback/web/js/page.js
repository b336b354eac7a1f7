// The page: wires the feed, the list, the chart and the panels. Read it and you have seen the flow.
//
//   feed, HTTP -> what is known (list, market, strip) -> "something has changed" -> one animation frame

import { colours, makeChart } from "./chart.js";
import { offerAbout, offerLogIn, toggleAbout, toggleTheme } from "./dialogs.js";
import { Feed } from "./feed.js";
import { Frames } from "./frames.js";
import * as http from "./http.js";
import { drawLatency } from "./latency_plot.js";
import { Market } from "./market.js";
import { barTime, clock, compact, duration, fixed, percent } from "./numbers.js";
import { EnigmaPanel, EventPanel, gapWords, levelsOf } from "./panels.js";
import { Strip } from "./strip.js";
import { formatState, LEVELS, next, parseState, RESOLUTIONS, resolutionOf } from "./view_state.js";
import { WatchList } from "./watch_list.js";
import { Flag } from "./wire_v2.js";

const LISTED_MAX = 200;
const QUOTES_EVERY_S = 60;
const QUOTES_AGAIN_MS = 5_000;
const SPARKS_AT_ONCE = 3;
const SPARK_PAUSE_MS = 5_000;
const WATCH_PAUSE_MS = 300;
/** A break that was longer is not resumed trade by trade: what is newest counts. */
const RESUME_MAX_MS = 60_000;
const REPAIRED_OR_LATE = Flag.REPAIRED | Flag.LATE;

const byId = (id) => document.getElementById(id);
const put = (id, text) => {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
};

class Page {
  state = parseState(location.hash);
  frames = new Frames();
  feed = new Feed(location.origin);
  strip = new Strip(this.frames);
  events = new EventPanel();
  enigmaPanel = new EnigmaPanel();
  symbols = [];
  byName = new Map();
  watched = null;
  selected = null;
  enigma = null;
  quote = null;
  hovered = null;
  stats = null;
  #follows = new Set();
  #sparks = [];
  #sparking = 0;
  #openGaps = new Map();
  #downSince = 0;
  #everOpen = false;
  #seconds = 0;
  #asking = false;
  #watchTimer;
  #quotesTimer;

  constructor() {
    this.list = new WatchList(byId("rows"), this.frames, {
      select: (name) => this.select(name), spark: (name) => this.wantSpark(name),
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
    this.frames.add("price", () => this.#drawPrice());
    this.frames.add("legend", () => this.#drawLegend());
    this.frames.add("levels", () => this.#drawLevels());
    this.frames.add("edges", () => this.#drawEdges());
    this.frames.add("plot", () => this.#drawPlot());
    this.frames.add("second", () => this.#drawSecond());
    this.frames.add("sent", () => this.strip.framed());
    this.#listen();
  }

  async start() {
    setInterval(() => this.#tick(), 1_000);
    this.#tick();
    this.symbols = await this.#readSymbols();
    for (const symbol of this.symbols) this.byName.set(symbol.symbol, symbol);
    put("wait", "");
    await this.#readWatched();
    this.showList();
    const wanted = this.byName.has(this.state.symbol) ? this.state.symbol : this.list.names[0];
    this.#followFeed();
    this.select(wanted ?? this.symbols[0].symbol);
    this.feed.connect();
    this.#readQuotes();
    this.#readEvents();
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
    this.#follow([name]);
    this.feed.subscribe(name, ["quotes", "enigma"]);
    this.change({ symbol: name });
    const label = byId("name");
    label.textContent = symbol.base_currency || name;
    if (symbol.quote_currency) label.append(small(`/${symbol.quote_currency}`));
    this.#drawStar();
    this.#open();
    for (const part of ["price", "levels"]) this.frames.want(part);
  }

  #open() {
    this.hovered = null;
    this.market.open(this.selected, resolutionOf(this.state.resolution));
    this.frames.want("legend");
  }

  /** Another view: buttons, the address, and what it changes. */
  change(changes) {
    const before = this.state;
    this.state = { ...before, ...changes };
    history.replaceState(null, "", formatState(this.state));
    for (const button of byId("resolutions").children) press(button, button.dataset.name === this.state.resolution);
    press(byId("levels"), this.state.levels !== "off");
    byId("levels").textContent = this.state.levels === "fit" ? "Fib, all" : "Fib";
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
    const watched = this.state.list === "watch" && this.watched && !text;
    const all = watched ? this.watched.map((name) => this.byName.get(name)).filter(Boolean) : this.symbols;
    const found = text ? all.filter((symbol) => symbol.symbol.includes(text)) : all;
    this.list.show(found.slice(0, LISTED_MAX));
    const words = text ? `No symbol has “${text}” in its name.` : "Star a symbol to watch it (w).";
    byId("rows-empty").hidden = found.length > 0;
    byId("rows-empty").textContent = words;
    this.#follow(this.list.names);
  }

  /** Have trades and gaps of these. */
  #follow(names) {
    const fresh = names.filter((name) => !this.#follows.has(name));
    if (!fresh.length) return;
    for (const name of fresh) this.#follows.add(name);
    this.feed.subscribe(fresh, ["trades", "gaps"]);
    clearTimeout(this.#quotesTimer);
    if (this.feed.state === "open") this.#quotesTimer = setTimeout(() => this.#readQuotes(), WATCH_PAUSE_MS);
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
    feed.onWatched = feed.onUnsubscribed = () => this.#readWatchedSoon();
    feed.onLost = () => this.events.add(`lost:${Date.now()}`, this.strip.nowMs, "A break too long to resume: history is read anew", "bad");
  }

  #takeTrades(trades, batch) {
    const nowMs = performance.now(), shown = this.selected.symbol;
    for (const trade of trades) {
      if (!(trade.flags & REPAIRED_OR_LATE)) this.list.take(trade.symbol, trade.price, nowMs);
      if (trade.symbol === shown && !batch.snapshot) this.market.trade(trade);
    }
    this.frames.want("price");
    this.frames.want("legend");
  }

  #takeGap({ symbol, stream, firstId, lastId, state, missing, notedUs }) {
    const key = `gap:${symbol}:${stream}:${firstId}:${lastId}`, ids = lastId - firstId + 1;
    if (state === "open") this.#openGaps.set(key, notedUs);
    const tookMs = (notedUs - (this.#openGaps.get(key) ?? notedUs)) / 1e3;
    this.#tellGap(key, notedUs / 1e3, { symbol, state, missing, ids, tookMs });
    if (symbol === this.selected.symbol) this.market.gapChanged();
  }

  #tellGap(key, ms, gap) {
    const [text, look] = gapWords(gap);
    this.events.add(key, ms, text, look);
  }

  #takeState(state, reason) {
    const nowMs = performance.now();
    if (state === "open") {
      const lasted = this.#downSince ? nowMs - this.#downSince : 0;
      if (lasted) this.events.add(`up:${nowMs}`, this.strip.nowMs, `Feed is back after ${duration(1e3 * lasted)}`, "good");
      if (this.#everOpen) this.#comeBack();
      this.#everOpen = true;
      this.#downSince = 0;
    } else if (state === "waiting" && !this.#downSince) {
      this.#downSince = nowMs;
      if (this.#everOpen) this.events.add(`down:${nowMs}`, this.strip.nowMs, `Feed is lost (${reason})`, "bad");
    } else if (state === "connecting" && nowMs - this.#downSince > RESUME_MAX_MS && this.#downSince) {
      this.feed.position = null;
    } else if (state === "closed" && this.feed.position) {
      // What came could not be read: begin anew, from a snapshot.
      this.#downSince ||= nowMs;
      this.feed.position = null;
      setTimeout(() => this.feed.connect(), 2_000);
    }
    this.frames.want("second");
  }

  #comeBack() {
    this.market.refresh();
    this.#readStats();
    this.#readQuotes();
    this.list.sparkAgain();
  }

  // What is asked for.

  async #readSymbols() {
    for (;;) {
      const told = (error) => put("wait", error.status ? error.message : "The engine does not answer; trying again");
      let found = [];
      try {
        found = await http.persist(() => http.symbols(), { told });
      } catch (error) {
        if (!(error instanceof http.HttpError)) throw error;
          put("wait", error.status === 401 ? "" : error.message);
      }
      const active = found.filter((symbol) => symbol.is_active);
      if (active.length) return active;
      if (!byId("login").open) put("wait", "Waiting for the exchange to list its symbols");
      await http.waited(1_000);
    }
  }

  #readWatchedSoon() {
    clearTimeout(this.#watchTimer);
    this.#watchTimer = setTimeout(() => this.watched && this.#readWatched(), WATCH_PAUSE_MS);
  }

  async #readWatched() {
    try {
      const before = String(this.watched);
      this.watched = (await http.watched()).symbols;
      byId("lists").hidden = byId("star").hidden = false;
      this.#drawStar();
      if (this.state.list === "watch" && String(this.watched) !== before) this.showList();
    } catch (error) {
      if (!(error instanceof http.HttpError)) throw error;
      this.watched = null; // this engine has none: the page does without
    }
  }

  async toggleWatch() {
    const name = this.selected?.symbol;
    if (!name || !this.watched) return;
    const on = !this.watched.includes(name), before = this.watched;
    this.watched = on ? [...before, name] : before.filter((other) => other !== name);
    this.#drawStar();
    if (this.state.list === "watch") this.showList();
    try {
      await http.watch(name, on);
    } catch (error) {
      if (!(error instanceof http.HttpError)) throw error;
      this.watched = before;
      this.events.add(`watch:${name}`, this.strip.nowMs, `${name} cannot be watched: ${error.message}`, "bad");
      this.#drawStar();
    }
  }

  #drawStar() {
    if (this.selected) press(byId("star"), this.watched?.includes(this.selected.symbol) ?? false);
  }

  async #readStats() {
    if (this.#asking || document.hidden) return;
    this.#asking = true;
    const now = () => performance.timeOrigin + performance.now();
    const sentMs = now();
    try {
      const stats = await http.stats(this.selected?.symbol ?? "");
      this.strip.take(stats, ...(onTheWire("/api/v1/stats") ?? [sentMs, now()]));
      // An engine that has just been started fetches what was before: then there is more to show.
      if (stats.history === "ok" && this.stats && this.stats.history !== "ok") this.#comeBack();
      this.stats = stats;
      byId("newer").hidden = !stats.page || document.querySelector("meta[name=page-version]").content.endsWith(stats.page);
      this.frames.want("plot");
      this.frames.want("second");
    } catch (error) {
      if (!(error instanceof http.HttpError)) throw error;
      this.stats = null;
    } finally {
      this.#asking = false;
    }
  }

  async #readQuotes() {
    const { names } = this.list;
    clearTimeout(this.#quotesTimer);
    try {
      const found = await http.quotes(names);
      for (const [name, { lp, ch, open_price: open }] of found) {
        this.list.setBase(name, Number.isFinite(ch) && Number.isFinite(lp) ? lp - ch : open);
      }
      // Symbols that have not traded yet since the engine's start have no quote.
      if (found.size < names.length) this.#quotesTimer = setTimeout(() => this.#readQuotes(), QUOTES_AGAIN_MS);
      this.frames.want("price");
    } catch (error) {
      if (!(error instanceof http.HttpError)) throw error;
    }
  }

  async #readEvents() {
    try {
      const found = await http.gaps("", this.strip.nowMs / 1e3 - 3_600);
      for (const gap of found.slice(-20)) {
        const kind = gap.stream === "trade" ? 1 : 3, ids = gap.to_id - gap.from_id + 1;
        const key = `gap:${gap.symbol}:${kind}:${gap.from_id}:${gap.to_id}`;
        const tookMs = (gap.closed_at ?? gap.opened_at) - gap.opened_at;
        this.#tellGap(key, gap.closed_at ?? gap.opened_at, { ...gap, ids, tookMs });
        if (gap.state === "open") this.#openGaps.set(key, 1e3 * gap.opened_at);
      }
    } catch (error) {
      if (!(error instanceof http.HttpError)) throw error;
    }
  }

  wantSpark(name) {
    if (matchMedia("(max-width: 899px)").matches) return;
    this.#sparks.push(name);
    this.#nextSpark();
  }

  async #nextSpark() {
    if (this.#sparking >= SPARKS_AT_ONCE || !this.#sparks.length) return;
    this.#sparking++;
    const name = this.#sparks.shift();
    try {
      const bars = await http.history(name, "5", this.strip.nowMs / 1e3 + 600, 48);
      this.list.spark(name, bars.map((bar) => bar.close));
    } catch (error) {
      if (!(error instanceof http.HttpError)) throw error;
      setTimeout(() => this.wantSpark(name), SPARK_PAUSE_MS);
    } finally {
      this.#sparking--;
      this.#nextSpark();
    }
  }

  // What is drawn, in a frame.

  #drawPrice() {
    const row = this.selected && this.list.row(this.selected.symbol);
    if (!row) return;
    const digits = this.selected.price_precision, { price, change } = row;
    put("price", fixed(price, digits));
    const flashes = performance.now() < row.flashUntil;
    byId("price").className = flashes ? row.direction : "";
    if (flashes) this.frames.want("price");
    put("change", Number.isFinite(change) ? percent(change) : "");
    byId("change").className = `change ${change >= 0 ? "up-text" : "down-text"}`;
    document.title = `${fixed(price, digits)} ${this.selected.symbol} · tradeback`;
    const { bid, ask } = this.quote ?? {};
    put("bid", fixed(bid, digits));
    put("ask", fixed(ask, digits));
    put("spread", fixed(ask - bid, digits));
  }

  #drawLegend() {
    const { candles, resolution } = this.market;
    const bar = (this.hovered !== null && candles.at(this.hovered)) || candles.last;
    const legend = byId("legend");
    if (!bar || !resolution) return legend.replaceChildren();
    const digits = this.selected.price_precision, look = bar.close < bar.open ? "down-text" : "up-text";
    const words = [["O", bar.open], ["H", bar.high], ["L", bar.low], ["C", bar.close]].map(([name, value]) =>
      pairOf(name, fixed(value, digits), look));
    const change = pairOf("", percent(bar.close / bar.open - 1), look);
    const volume = pairOf("V", bar.volume < 1e6 ? fixed(bar.volume, Math.min(4, this.selected.quantity_precision)) : compact(bar.volume), "");
    legend.replaceChildren(pairOf("", barTime(bar.time, resolution.step), ""), ...words, change, volume);
  }

  #drawLevels() {
    if (!this.selected) return;
    const digits = this.selected.price_precision, { enigma } = this;
    const price = this.list.row(this.selected.symbol)?.price ?? NaN;
    this.enigmaPanel.draw(enigma, price, digits);
    this.enigmaPanel.drawAge(enigma, 1e3 * this.strip.nowMs);
    this.chart.setLevels(enigma ? levelsOf(enigma) : [], this.state.levels);
    this.chart.setEnigma(this.state.pane === "enigma", enigma);
  }

  #drawEdges() {
    const { above, below, height } = this.chart.outOfSight;
    const digits = this.selected?.price_precision ?? 2;
    const place = (id, arrow, level, top) => {
      byId(id).hidden = !level;
      if (!level) return;
      put(id, `${arrow} ${level.name} % at ${fixed(level.price, digits)}`);
      byId(id).style.top = `${top}px`;
    };
    place("edge-above", "↑", above, byId("legend").offsetHeight + 14);
    place("edge-below", "↓", below, height - 62);
    byId("now").hidden = this.chart.isAtNow;
  }

  #drawPlot() {
    if (this.state.pane === "latency") drawLatency(byId("plot-canvas"), this.strip.points, colours());
  }

  #drawSecond() {
    put("utc", clock(this.strip.nowMs));
    this.list.sweep(performance.now());
    const [state, text] = this.#linkState();
    byId("link").dataset.state = state;
    put("link-text", text);
    byId("link").title = (this.stats?.troubles ?? []).map(({ name, last_error: words }) => `${name}: ${words}`).join("\n");
    byId("chart").classList.toggle("grey", state === "down");
    if (this.enigma) this.enigmaPanel.drawAge(this.enigma, 1e3 * this.strip.nowMs);
    this.frames.want("edges");
  }

  #linkState() {
    const { state } = this.feed;
    if (this.#downSince) {
      const seconds = Math.max(1, Math.round((performance.now() - this.#downSince) / 1e3));
      return ["down", `no connection for ${seconds} s, trying again`];
    }
    if (state !== "open") return ["connecting", "connecting"];
    const { stats } = this;
    if (stats?.waiting_for?.length) return ["degraded", `waiting: ${stats.waiting_for[0]}`];
    if (stats?.gaps?.open) return ["degraded", `live, repairing ${stats.gaps.open === 1 ? "a gap" : `${stats.gaps.open} gaps`}`];
    if (stats && stats.history === "starting") return ["degraded", "live, loading history"];
    if (stats && stats.status !== "ok") {
      const [worst] = stats.troubles;
      return ["degraded", worst ? `live, ${worst.name} ${worst.state}` : `live, engine ${stats.status}`];
    }
    return ["live", "live"];
  }

  // Seconds, keys, buttons.

  #tick() {
    this.#seconds++;
    if (document.hidden) return;
    if (this.feed.state !== "waiting" && this.feed.state !== "connecting") this.#readStats();
    if (this.#seconds % QUOTES_EVERY_S === 0) this.#readQuotes();
    this.market.tick(performance.now());
    this.frames.want("second");
  }

  #listen() {
    for (const { name } of RESOLUTIONS) {
      const button = byId("resolutions").appendChild(document.createElement("button"));
      button.type = "button";
      button.dataset.name = button.textContent = name;
      button.addEventListener("click", () => this.change({ resolution: name }));
    }
    for (const button of byId("lists").children) {
      button.addEventListener("click", () => this.change({ list: button.dataset.list }));
    }
    const clicks = {
      levels: () => this.nextLevels(), "enigma-pane": () => this.togglePane("enigma"),
      "latency-pane": () => this.togglePane("latency"), theme: () => this.nextTheme(),
      star: () => this.toggleWatch(), now: () => this.chart.toNow(), newer: () => location.reload(),
    };
    for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", act);
    const find = byId("find");
    find.addEventListener("input", () => this.showList());
    find.addEventListener("keydown", (event) => this.#findKey(event));
    document.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("hashchange", () => this.#takeHash());
    addEventListener("resize", () => this.frames.want("plot"));
    document.addEventListener("visibilitychange", () => !document.hidden && this.#tick());
    offerAbout();
    this.change({});
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
    this.chart.setTheme(colours());
    for (const part of ["plot", "edges"]) this.frames.want(part);
  }

  step(by) {
    const { names } = this.list;
    if (!names.length) return;
    const at = names.indexOf(this.selected?.symbol);
    this.select(names[at < 0 ? 0 : Math.min(names.length - 1, Math.max(0, at + by))]);
  }

  #findKey(event) {
    const find = event.target;
    if (event.key === "Enter" && this.list.names.length) this.select(this.list.names[0]);
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();
    find.value = "";
    find.blur();
    this.showList();
  }

  #key(event) {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (target.matches("input")) {
      if (key === "ArrowDown" || key === "ArrowUp") this.step(key === "ArrowDown" ? 1 : -1);
      return;
    }
    const number = RESOLUTIONS["1234567".indexOf(key)];
    const keys = {
      ArrowUp: () => this.step(-1), ArrowDown: () => this.step(1), k: () => this.step(-1), j: () => this.step(1),
      ArrowLeft: () => this.chart.pan(-10), ArrowRight: () => this.chart.pan(10),
      "+": () => this.chart.zoom(1.25), "=": () => this.chart.zoom(1.25), "-": () => this.chart.zoom(0.8),
      End: () => this.chart.toNow(), f: () => this.nextLevels(), e: () => this.togglePane("enigma"),
      l: () => this.togglePane("latency"), t: () => this.nextTheme(), w: () => this.toggleWatch(),
      "?": toggleAbout, "/": () => byId("find").focus(),
    };
    const act = number ? () => this.change({ resolution: number.name }) : keys[key];
    if (!act) return;
    event.preventDefault();
    act();
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

function press(button, on) {
  button.setAttribute("aria-pressed", String(on));
}

function small(text) {
  const element = document.createElement("small");
  element.textContent = text;
  return element;
}

function pairOf(name, value, look) {
  const element = document.createElement("span"), strong = document.createElement("b");
  strong.textContent = value;
  strong.className = look;
  element.append(name ? `${name} ` : "", strong);
  return element;
}

offerLogIn();
const page = new Page();
/** For tests and for curious people. */
globalThis.tradeback = page;
page.start();
