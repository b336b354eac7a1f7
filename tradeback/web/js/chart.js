// The chart: candles, volume, levels, shades. Lightweight Charts where it is there, else a line of our own.

import { LineChart } from "./line_chart.js";
import { barTime, compact } from "./numbers.js";
import { Shades } from "./spans.js";

/** Candles left of the picture below which older ones are asked for. */
const OLDER_BELOW = 100;
/** Pixels of a candle at first. */
const SPACING = 7;
const ROOM_RIGHT = 7;
const NARROW = 600;

/** The colours of the style sheet, as they are now. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: of("muted"), strong: of("text"), grid: of("grid"), line: of("line"), edge: of("line-strong"),
    up: of("up"), down: of("down"), upSoft: of("up-soft"), downSoft: of("down-soft"), accent: of("accent"),
    panel: of("panel"), shade: of("shade"), shadeEdge: of("shade-edge"), font: of("sans"),
    wire: of("wire"), engine: of("engine"), page: of("page"), raised: of("raised"),
  };
}

/** The chart for this browser. `told`: older(), moved(), hover(time | null). */
export function makeChart(container, told) {
  const library = globalThis.LightweightCharts;
  return library ? new CandleChart(library, container, told) : new LineChart(container, told, colours);
}

export class CandleChart {
  #library; #chart; #candles; #volume;
  #enigma = null;
  #told;
  #shades = new Shades();
  #lines = new Map();
  #levels = [];
  #mode = "on";
  #spans = [];
  #bars = [];
  #times = [];
  #colours;
  #step = 60;
  #range = null;
  #level = null;

  constructor(library, container, told) {
    this.#library = library;
    this.#told = told;
    const pane = document.createElement("div");
    pane.className = "pane";
    pane.ariaHidden = "true"; // the legend says in words what is drawn
    container.prepend(pane);
    const top = container.clientWidth < NARROW ? 0.17 : 0.09; // the legend stands there, on a phone in two lines
    this.#chart = library.createChart(pane, {
      autoSize: true,
      layout: { fontSize: 11, attributionLogo: true },
      rightPriceScale: { borderVisible: false, scaleMargins: { top, bottom: 0.2 }, minimumWidth: 76 },
      timeScale: {
        borderVisible: false, timeVisible: true, secondsVisible: false, rightOffset: ROOM_RIGHT,
        minBarSpacing: 0.8,
      },
      crosshair: { mode: library.CrosshairMode.Normal },
      localization: { timeFormatter: (time) => barTime(time, this.#step) },
      handleScale: { axisPressedMouseMove: true },
      handleScroll: { vertTouchDrag: false }, // a finger that moves up or down scrolls the page
    });
    this.#candles = this.#chart.addSeries(library.CandlestickSeries, {
      autoscaleInfoProvider: (own) => this.#scale(own()), priceLineStyle: 2,
    });
    this.#volume = this.#chart.addSeries(library.HistogramSeries, {
      priceScaleId: "volume", lastValueVisible: false, priceLineVisible: false,
      priceFormat: { type: "custom", minMove: 1e-8, formatter: compact },
    });
    this.#volume.priceScale().applyOptions({ scaleMargins: { top: 0.86, bottom: 0 } });
    this.#candles.attachPrimitive(this.#shades);
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => this.#moved(range));
    this.#chart.subscribeCrosshairMove(({ time }) => told.hover(time ?? null));
    this.setTheme(colours());
  }

  /** Another symbol or resolution: its decimals, and the seconds of a candle. */
  open({ digits, tick, step }) {
    this.#step = step;
    this.#candles.applyOptions({ priceFormat: { type: "price", precision: digits, minMove: tick } });
    this.#chart.timeScale().applyOptions({ timeVisible: step < 86_400, secondsVisible: step < 60 });
    this.#chart.priceScale("right").applyOptions({ autoScale: true });
    this.#bars = this.#times = [];
    this.#level = null;
    this.#set([]);
    this.setLevels([], this.#mode);
    this.setGaps([]);
  }

  /** Draw what has changed: `{all, bars}` of Candles. */
  draw({ all, bars }) {
    const drawn = this.#times.at(-1) ?? -Infinity;
    if (all) this.#reset(bars);
    else if (bars.length && bars[0].time < drawn) throw new RangeError("a candle that is drawn has changed");
    else for (const bar of bars) this.#update(bar);
  }

  #reset(bars) {
    const fresh = !this.#times.length && bars.length;
    this.#times = bars.map((bar) => bar.time);
    this.#bars = bars;
    this.#set(bars);
    this.#shade();
    if (fresh) this.toNow(true);
  }

  #set(bars) {
    this.#candles.setData(bars.map((bar) => ({ ...bar })));
    this.#volume.setData(bars.map((bar) => this.#volumeOf(bar)));
    this.#enigma?.setData(this.#level ? bars.map((bar) => this.#levelOf(bar)) : []);
  }

  #update(bar) {
    if (this.#times.at(-1) !== bar.time) this.#times.push(bar.time);
    this.#candles.update({ ...bar });
    this.#volume.update(this.#volumeOf(bar));
    if (this.#level) this.#enigma?.update(this.#levelOf(bar));
  }

  #volumeOf({ time, open, close, volume }) {
    return { time, value: volume, color: close < open ? this.#colours.downSoft : this.#colours.upSoft };
  }

  #levelOf({ time, close }) {
    const { ath, atl } = this.#level;
    return { time, value: ath > atl ? (100 * (close - atl)) / (ath - atl) : 50 };
  }

  /** Fibonacci levels, [{name, price}]; `mode`: off, on, or fit, which makes the scale hold them all. */
  setLevels(levels, mode) {
    const shown = mode === "off" ? [] : levels;
    const refit = mode !== this.#mode || mode === "fit";
    this.#levels = levels;
    this.#mode = mode;
    for (const [name, line] of this.#lines) {
      if (!shown.some((level) => level.name === name)) {
        this.#candles.removePriceLine(line);
        this.#lines.delete(name);
      }
    }
    for (const { name, price } of shown) {
      const line = this.#lines.get(name);
      if (!line) this.#lines.set(name, this.#candles.createPriceLine(this.#lineOptions(name, price)));
      else if (line.options().price !== price) line.applyOptions({ price });
    }
    if (refit) this.#candles.applyOptions({});
    this.#told.moved();
  }

  /** What is drawn: name and price of each level. */
  get levelLines() {
    return [...this.#lines].map(([name, line]) => ({ name, price: line.options().price }));
  }

  #lineOptions(name, price) {
    const outer = name === "0" || name === "100";
    return {
      price, title: `${name} %`, color: this.#colours.accent, lineWidth: 1, lineStyle: outer ? 0 : 2,
      axisLabelVisible: true, axisLabelColor: this.#colours.raised, axisLabelTextColor: this.#colours.accent,
    };
  }

  #scale(own) {
    if (own && this.#mode === "fit" && this.#levels.length) {
      const prices = this.#levels.map((level) => level.price);
      own.priceRange.minValue = Math.min(own.priceRange.minValue, ...prices);
      own.priceRange.maxValue = Math.max(own.priceRange.maxValue, ...prices);
    }
    return own;
  }

  /** The nearest levels out of sight, {above, below, height}: each {name, price} or undefined; of the pane. */
  get outOfSight() {
    if (this.#mode === "off" || !this.#times.length) return {};
    const top = this.#candles.coordinateToPrice(0);
    const height = this.#chart.panes()[0].getHeight(), bottom = this.#candles.coordinateToPrice(height);
    if (top === null || bottom === null) return {};
    const byPrice = [...this.#levels].sort((one, other) => one.price - other.price);
    return {
      above: byPrice.find((level) => level.price > top),
      below: byPrice.findLast((level) => level.price < bottom), height,
    };
  }

  /** Spans without all trades: [{from, to}], unix seconds. */
  setGaps(spans) {
    this.#spans = spans;
    this.#shade();
  }

  get gapCount() {
    return this.#spans.length;
  }

  #shade() {
    const { shade: fill, shadeEdge: edge } = this.#colours;
    this.#shades.show(this.#spans, this.#times, { fill, edge });
  }

  /** A pane with the Enigma of each candle's close, at the present extremes; null: none. */
  setEnigma(on, level) {
    const redraw = on && (!this.#enigma || level?.ath !== this.#level?.ath || level?.atl !== this.#level?.atl);
    this.#level = level;
    if (on && !this.#enigma) {
      const { accent } = this.#colours;
      const options = {
        color: accent, lineWidth: 1.5, priceLineVisible: false, title: "Enigma",
        priceFormat: { type: "price", precision: 2, minMove: 0.01 },
      };
      this.#enigma = this.#chart.addSeries(this.#library.LineSeries, options, 1);
      this.#chart.panes()[1]?.setStretchFactor(0.28);
    } else if (!on && this.#enigma) {
      this.#chart.removeSeries(this.#enigma);
      this.#enigma = null;
      if (this.#chart.panes().length > 1) this.#chart.removePane(1);
    }
    if (redraw && level) this.#enigma.setData(this.#bars.map((bar) => this.#levelOf(bar)));
  }

  setTheme(now) {
    this.#colours = now;
    this.#chart.applyOptions({
      layout: {
        background: { type: "solid", color: now.panel }, textColor: now.text, fontFamily: now.font,
        panes: { separatorColor: now.line, separatorHoverColor: now.raised },
      },
      grid: { vertLines: { color: now.grid }, horzLines: { color: now.grid } },
      crosshair: {
        vertLine: { color: now.text, labelBackgroundColor: now.edge },
        horzLine: { color: now.text, labelBackgroundColor: now.edge },
      },
    });
    this.#candles.applyOptions({
      upColor: now.up, downColor: now.down, wickUpColor: now.up, wickDownColor: now.down, borderVisible: false,
    });
    this.#enigma?.applyOptions({ color: now.accent });
    for (const [name, line] of this.#lines) line.applyOptions(this.#lineOptions(name, line.options().price));
    if (this.#times.length) this.#volume.setData(this.#bars.map((bar) => this.#volumeOf(bar)));
    this.#shade();
  }

  toNow(reset = false) {
    if (reset) {
      const count = this.#times.length, scale = this.#chart.timeScale();
      const bars = Math.max(30, scale.width() / SPACING);
      scale.setVisibleLogicalRange({ from: count + ROOM_RIGHT - bars, to: count + ROOM_RIGHT });
    } else this.#chart.timeScale().scrollToRealTime();
  }

  get isAtNow() {
    return !this.#range || this.#range.to >= this.#times.length - 2;
  }

  pan(bars) {
    const scale = this.#chart.timeScale();
    scale.scrollToPosition(scale.scrollPosition() + bars, false);
  }

  zoom(factor) {
    const scale = this.#chart.timeScale();
    scale.applyOptions({ barSpacing: Math.min(60, Math.max(0.8, scale.options().barSpacing * factor)) });
  }

  #moved(range) {
    this.#range = range;
    if (range && this.#times.length && range.from < OLDER_BELOW) this.#told.older();
    this.#told.moved();
  }
}
