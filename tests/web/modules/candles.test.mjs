import assert from "node:assert/strict";
import { test } from "node:test";
import { BEGUN, Candles, CHANGED, LATE, NONE } from "../../../tradeback/web/js/candles.js";

const candle = (time, close = 10, volume = 1) => ({ time, open: 10, high: Math.max(10, close), low: Math.min(10, close), close, volume });
const trade = (id, seconds, price, quantity = 0.1) => ({ id, exchangeUs: seconds * 1e6, price, quantity });
const times = (candles) => candles.bars.map((bar) => bar.time);

function live(bars = [candle(0), candle(60)], lastId = 100) {
  const candles = new Candles(60, 5);
  candles.merge(bars);
  candles.base(bars.at(-1), lastId);
  candles.changes();
  return candles;
}

test("a trade moves the running candle, by the engine's own rules", () => {
  const candles = live();
  assert.equal(candles.trade(trade(101, 61, 12, 0.1)), CHANGED);
  assert.equal(candles.trade(trade(102, 119.999999, 9, 0.2)), CHANGED);
  assert.deepEqual(candles.last, { time: 60, open: 10, high: 12, low: 9, close: 9, volume: 1.3 });
});

test("volumes are summed as whole lots: no dust of floating point", () => {
  const candles = live([candle(60, 10, 0)]);
  for (let id = 101; id < 1_101; id++) candles.trade(trade(id, 61, 10, 0.1));
  assert.equal(candles.last.volume, 100);
});

test("a trade of a later slot begins a candle, also across empty slots", () => {
  const candles = live();
  assert.equal(candles.trade(trade(101, 245, 11)), BEGUN);
  assert.deepEqual(candles.last, { time: 240, open: 11, high: 11, low: 11, close: 11, volume: 0.1 });
  assert.deepEqual(times(candles), [0, 60, 240]);
});

test("what is in the engine's answer does not count again, what is not does", () => {
  const candles = new Candles(60, 5);
  candles.merge([candle(0), candle(60, 10, 5)]);
  for (const id of [98, 99, 100, 101, 102]) assert.equal(candles.trade(trade(id, 70, 10 + id, 0.5)), NONE);
  candles.base(candle(60, 110, 7), 100);
  assert.equal(candles.last.volume, 8);
  assert.equal(candles.last.close, 112);
  assert.equal(candles.lastId, 102);
});

test("an answer that is behind what has come takes nothing away", () => {
  const candles = live();
  candles.trade(trade(101, 61, 12, 0.5));
  candles.hold();
  candles.trade(trade(102, 62, 13, 0.5));
  candles.base(candle(60), 100);
  assert.deepEqual([candles.last.volume, candles.last.close, candles.lastId], [2, 13, 102]);
  candles.base(candle(60, 13, 2.5), 103);
  assert.deepEqual([candles.last.volume, candles.lastId], [2.5, 103], "one that is ahead counts");
});

test("nobody answers: trades count on from what was known", () => {
  const candles = live();
  candles.hold();
  candles.trade(trade(101, 70, 20));
  assert.equal(candles.last.close, 10);
  candles.base(null, 0);
  assert.equal(candles.last.close, 20);
});

test("the engine's answer is older than the candle that has begun meanwhile", () => {
  const candles = live();
  candles.trade(trade(101, 121, 11));
  candles.base(candle(60, 10, 3), 100);
  assert.deepEqual(times(candles), [0, 60, 120]);
  assert.equal(candles.last.close, 11);
});

test("late trades are told, not counted", () => {
  const candles = live();
  candles.trade(trade(105, 61, 12));
  assert.equal(candles.trade(trade(103, 61, 50)), LATE);
  assert.equal(candles.trade(trade(105, 61, 50)), NONE, "the same again");
  assert.equal(candles.trade(trade(106, 59, 50)), LATE, "of a slot that is closed");
  assert.equal(candles.last.high, 12);
});

test("older candles go in front, newer ones behind, the same ones are replaced", () => {
  const candles = live([candle(300), candle(360)]);
  candles.merge([candle(180), candle(240)]);
  candles.merge([candle(300, 12), candle(420)]);
  assert.deepEqual(times(candles), [180, 240, 300, 420]);
  candles.merge([]);
  assert.equal(candles.at(300).close, 12);
  assert.equal(candles.at(301), undefined);
});

test("a span that is read as a whole loses what is not in it", () => {
  const candles = live([candle(0), candle(60), candle(120), candle(180)]);
  candles.replace([candle(60, 11)], 60, 180);
  assert.deepEqual(times(candles), [0, 60, 180]);
});

test("the oldest are forgotten, and all is drawn anew then", () => {
  const candles = new Candles(1, 2);
  candles.merge(Array.from({ length: 5 }, (_, time) => ({ time, open: 1, high: 1, low: 1, close: 1, volume: 1 })));
  candles.changes();
  candles.trim(5);
  assert.equal(candles.changes().all, false, "nothing was too much");
  candles.trim(2);
  assert.deepEqual(candles.changes().bars.map((bar) => bar.time), [3, 4]);
});

test("only what has changed is drawn", () => {
  const candles = live();
  assert.deepEqual(candles.changes(), { all: false, bars: [] });
  candles.trade(trade(101, 61, 12));
  candles.trade(trade(102, 121, 12));
  candles.trade(trade(103, 122, 13));
  const { all, bars } = candles.changes();
  assert.equal(all, false);
  assert.deepEqual(bars.map((bar) => bar.time), [60, 120]);
  candles.merge([candle(-60)]);
  assert.equal(candles.changes().all, true);
});

test("random trades in order make the same candles as counting them all at once", () => {
  let seed = 7;
  const random = () => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) / 2_147_483_648;
  const all = [];
  for (let id = 1, seconds = 0; id <= 2_000; id++) {
    seconds += random() < 0.02 ? 200 * random() : random();
    all.push(trade(id, seconds, Math.round(1_000 + 100 * random()) / 10, Math.round(1 + 1e5 * random()) / 1e5));
  }
  const wanted = new Map();
  for (const { exchangeUs, price, quantity } of all) {
    const slot = Math.floor(exchangeUs / 6e7) * 60, bar = wanted.get(slot);
    if (!bar) wanted.set(slot, { time: slot, open: price, high: price, low: price, close: price, lots: Math.round(quantity * 1e5) });
    else Object.assign(bar, { high: Math.max(bar.high, price), low: Math.min(bar.low, price), close: price, lots: bar.lots + Math.round(quantity * 1e5) });
  }
  const candles = new Candles(60, 5);
  candles.base(null, 0);
  for (const each of all) candles.trade(each);
  assert.deepEqual(candles.bars, [...wanted.values()].map(({ lots, ...bar }) => ({ ...bar, volume: lots / 1e5 })));
});
