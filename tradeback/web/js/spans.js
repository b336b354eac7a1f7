// Shaded spans of time on the chart: where trades are missing.

/**
 * The candles that a span of time touches, as indexes [first, last] into `times` (ascending unix seconds);
 * null when it lies outside of them. A span that ends between two candles takes the one before.
 */
export function indexesOf(times, fromS, toS) {
  if (!times.length || toS < times[0]) return null;
  const first = Math.max(0, above(times, fromS) - 1), last = above(times, toS) - 1;
  return [first, Math.max(first, last)];
}

/** How many of `times` are not above `value`. */
function above(times, value) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The spans to shade of what /api/v1/gaps told: open ones and those that will never be filled. */
export function spansOf(gaps, nowMs) {
  return gaps
    .filter((gap) => gap.stream === "trade" && gap.state !== "repaired" && gap.missing > 0)
    .map((gap) => {
      const from = gap.from_time ?? gap.to_time ?? gap.opened_at;
      const to = gap.to_time ?? (gap.state === "open" ? nowMs : gap.opened_at);
      return { from: from / 1e3, to: Math.max(from, to) / 1e3, state: gap.state, missing: gap.missing };
    });
}

/** A primitive of lightweight-charts that shades spans behind the candles. */
export class Shades {
  #chart = null;
  #update = () => {};
  #spans = [];
  #times = [];
  #colours = { fill: "", edge: "" };
  #views;

  constructor() {
    const renderer = { draw: (target) => target.useBitmapCoordinateSpace((scope) => this.#draw(scope)) };
    this.#views = [{ zOrder: () => "bottom", renderer: () => renderer }];
  }

  attached({ chart, requestUpdate }) {
    this.#chart = chart;
    this.#update = requestUpdate;
  }

  detached() {
    this.#chart = null;
  }

  paneViews() {
    return this.#views;
  }

  updateAllViews() {}

  show(spans, times, colours) {
    this.#spans = spans;
    this.#times = times;
    this.#colours = colours;
    this.#update();
  }

  #draw({ context, bitmapSize, horizontalPixelRatio: ratio }) {
    if (!this.#chart) return;
    const scale = this.#chart.timeScale(), half = scale.options().barSpacing / 2;
    for (const { from, to } of this.#spans) {
      const found = indexesOf(this.#times, from, to);
      if (!found) continue;
      const left = scale.logicalToCoordinate(found[0]), right = scale.logicalToCoordinate(found[1]);
      if (left === null || right === null) continue;
      const begin = Math.round((left - half) * ratio), end = Math.round((right + half) * ratio);
      context.fillStyle = this.#colours.fill;
      context.fillRect(begin, 0, Math.max(ratio, end - begin), bitmapSize.height);
      context.fillStyle = this.#colours.edge;
      context.fillRect(begin, 0, ratio, bitmapSize.height);
      context.fillRect(Math.max(begin, end - ratio), 0, ratio, bitmapSize.height);
    }
  }
}
