// The chart without the library: closes as a line on a canvas, with the same face as CandleChart.

import { barTime, fixed } from "./numbers.js";

const RIGHT = 76, BOTTOM = 24, TOP = 30;

export class LineChart {
  levelLines = [];
  #canvas; #told; #colours; #colour;
  #bars = [];
  #spans = [];
  #levels = [];
  #mode = "on";
  #about = { digits: 2, step: 60 };
  #count = 130;
  #back = 0;

  constructor(container, told, colours) {
    this.#told = told;
    this.#colours = colours;
    this.#colour = colours();
    this.#canvas = document.createElement("canvas");
    this.#canvas.className = "pane";
    this.#canvas.ariaHidden = "true";
    this.#canvas.style.width = this.#canvas.style.height = "100%";
    container.prepend(this.#canvas);
    new ResizeObserver(() => this.#paint()).observe(container);
  }

  open(about) {
    this.#about = about;
    this.#bars = [];
    this.#back = 0;
    this.setGaps([]);
  }

  draw({ all, bars }) {
    if (all) this.#bars = bars;
    this.#paint();
  }

  setLevels(levels, mode) {
    this.#levels = levels;
    this.#mode = mode;
    this.levelLines = mode === "off" ? [] : levels;
    this.#paint();
  }

  get outOfSight() {
    return {};
  }

  setGaps(spans) {
    this.#spans = spans;
    this.#paint();
  }

  get gapCount() {
    return this.#spans.length;
  }

  setEnigma() {}

  setTheme() {
    this.#colour = this.#colours();
    this.#paint();
  }

  toNow() {
    this.pan(Infinity);
  }

  get isAtNow() {
    return this.#back === 0;
  }

  pan(bars) {
    this.#back = Math.max(0, Math.min(this.#bars.length - 10, this.#back - bars));
    if (this.#back + this.#count + 100 > this.#bars.length) this.#told.older();
    this.#told.moved();
    this.#paint();
  }

  zoom(factor) {
    this.#count = Math.round(Math.max(20, Math.min(2_000, this.#count / factor)));
    this.pan(0);
  }

  #paint() {
    const canvas = this.#canvas, ratio = devicePixelRatio, colour = this.#colour;
    const { clientWidth: width, clientHeight: height } = canvas;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const end = this.#bars.length - this.#back, bars = this.#bars.slice(Math.max(0, end - this.#count), end);
    if (!bars.length || !width) return;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.font = `11px ${colour.font}`;
    const prices = bars.map((bar) => bar.close);
    if (this.#mode === "fit") prices.push(...this.#levels.map((level) => level.price));
    const low = Math.min(...prices), high = Math.max(...prices), size = high - low || 1;
    const x = (at) => ((width - RIGHT) * (at + 0.5)) / bars.length;
    const y = (price) => TOP + (height - TOP - BOTTOM) * (1 - (price - low) / size);
    this.#shade(context, bars, x, height);
    for (const { name, price } of this.levelLines) {
      if (price >= low && price <= high) this.#rule(context, y(price), width, `${name} %`, colour.accent);
    }
    for (let step = 0; step <= 4; step++) {
      const price = low + (size * step) / 4;
      context.fillStyle = colour.text;
      context.fillText(fixed(price, this.#about.digits), width - RIGHT + 8, y(price) + 4);
    }
    for (let at = 0; at < bars.length; at += Math.ceil(bars.length / 5)) {
      context.fillText(barTime(bars[at].time, this.#about.step), x(at), height - 8);
    }
    context.strokeStyle = colour.accent;
    context.lineWidth = 1.5;
    context.beginPath();
    bars.forEach((bar, at) => context.lineTo(x(at), y(bar.close)));
    context.stroke();
  }

  #shade(context, bars, x, height) {
    context.fillStyle = this.#colour.shade;
    for (const { from, to } of this.#spans) {
      const inside = bars.map((bar, at) => (bar.time + this.#about.step > from && bar.time <= to ? at : -1));
      const touched = inside.filter((at) => at >= 0);
      if (touched.length) {
        context.fillRect(x(touched[0] - 0.5), 0, x(touched.at(-1) + 0.5) - x(touched[0] - 0.5), height);
      }
    }
  }

  #rule(context, y, width, text, colour) {
    context.fillStyle = colour;
    context.fillRect(0, y, width - RIGHT, 0.5);
    context.fillText(text, 8, y - 3);
  }
}
