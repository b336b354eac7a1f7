import assert from "node:assert/strict";
import { test } from "node:test";
import { decades } from "../../../tradeback/web/js/latency_plot.js";
import { gapWords, levelsOf } from "../../../tradeback/web/js/panels.js";
import { indexesOf, spansOf } from "../../../tradeback/web/js/spans.js";
import { DEFAULTS, formatState, LEVELS, next, parseState, resolutionOf } from "../../../tradeback/web/js/view_state.js";
import { Frames } from "../../../tradeback/web/js/frames.js";

test("a view survives the address", () => {
  const state = { symbol: "BTCUSDT", resolution: "4h", levels: "fit", pane: "enigma", list: "watch" };
  assert.deepEqual(parseState(formatState(state)), state);
  assert.equal(formatState({ ...DEFAULTS, symbol: "ETHUSDT" }), "#ETHUSDT/1m");
  const odd = { ...DEFAULTS, symbol: "币安人生USDT" };
  assert.deepEqual(parseState(formatState(odd)), odd);
});

test("an address that means nothing shows the default", () => {
  for (const hash of ["", "#", "#/2m/levels=never/x", "#%E0%A4%A/1m", `#${"A".repeat(60)}`]) {
    assert.deepEqual(parseState(hash), { ...DEFAULTS });
  }
  assert.equal(parseState("#btcusdt").symbol, "BTCUSDT");
});

test("choices go around", () => {
  assert.equal(next(LEVELS, "fit"), "off");
  assert.equal(next(LEVELS, "off", -1), "fit");
  assert.equal(resolutionOf("nonsense").step, 60);
});

test("levels by the retracement convention: 0 is the high", () => {
  const levels = levelsOf({ ath: 200, atl: 100 });
  assert.deepEqual(levels.map((level) => level.price), [200, 176.4, 161.8, 150, 138.2, 121.4, 100]);
});

test("no level lies outside of the extremes, also by a rounding", () => {
  for (let step = 1; step < 2_000; step++) {
    const [ath, atl] = [177_811.86 + step * 0.01, 48_175.58 + step * 0.07], levels = levelsOf({ ath, atl });
    assert.ok(levels.every(({ price }) => price >= atl && price <= ath));
    assert.deepEqual([levels[0].price, levels[6].price], [ath, Math.max(atl, ath - ((ath - atl) * 100) / 100)]);
  }
});

test("a gap shades the candles that it touches", () => {
  const times = [0, 60, 120, 300];
  assert.deepEqual(indexesOf(times, 65, 70), [1, 1]);
  assert.deepEqual(indexesOf(times, 0, 120), [0, 2]);
  assert.deepEqual(indexesOf(times, 200, 250), [2, 2], "between two candles: the one before");
  assert.deepEqual(indexesOf(times, -50, 10), [0, 0]);
  assert.deepEqual(indexesOf(times, 290, 9_999), [2, 3]);
  assert.equal(indexesOf(times, -50, -10), null);
  assert.equal(indexesOf([], 0, 10), null);
});

test("repaired gaps and those of aggregates are not shaded", () => {
  const gap = { stream: "trade", state: "open", missing: 3, from_time: 1_000, to_time: 2_000, opened_at: 2_100 };
  const others = [{ ...gap, state: "repaired", missing: 0 }, { ...gap, stream: "aggTrade" }, { ...gap, state: "unrepairable" }];
  const found = spansOf([gap, ...others], 9_000);
  assert.deepEqual(found.map(({ from, to, state }) => [from, to, state]), [[1, 2, "open"], [1, 2, "unrepairable"]]);
  assert.equal(spansOf([{ ...gap, to_time: null }], 9_000)[0].to, 9, "an open one goes up to now");
  assert.equal(spansOf([{ ...gap, from_time: null, to_time: null, state: "unrepairable" }], 9_000)[0].from, 2.1);
});

test("what is said of a gap", () => {
  assert.deepEqual(gapWords({ symbol: "BTCUSDT", state: "open", missing: 1 }), ["BTCUSDT: gap, 1 trade missing", "bad"]);
  assert.deepEqual(gapWords({ symbol: "BTCUSDT", state: "repaired", ids: 3, tookMs: 420 }), ["BTCUSDT: gap of 3 trades repaired after 420 ms", "good"]);
  assert.deepEqual(gapWords({ symbol: "BTCUSDT", state: "unrepairable", missing: 2 }), ["BTCUSDT: 2 trades cannot be had any more", "bad"]);
});

test("the axis of latencies spans whole powers of ten", () => {
  assert.deepEqual(decades([]), [1, 4]);
  assert.deepEqual(decades([12, 3_500]), [1, 4]);
  assert.deepEqual(decades([12, 13]), [1, 3]);
});

test("however often it is wanted, a part is drawn once a frame, and in order", () => {
  const asked = [], drawn = [];
  const frames = new Frames((draw) => asked.push(draw));
  frames.add("one", () => drawn.push("one"));
  frames.add("two", () => drawn.push("two"));
  for (let count = 0; count < 100; count++) frames.want(count % 2 ? "one" : "two");
  assert.equal(asked.length, 1);
  assert.deepEqual(drawn, []);
  asked.pop()(0);
  assert.deepEqual(drawn, ["one", "two"]);
  frames.add("again", () => frames.want("again"));
  frames.want("again");
  asked.pop()(16);
  assert.equal(asked.length, 1, "what is wanted while drawing comes in the next frame");
  assert.equal(frames.count, 2);
});
