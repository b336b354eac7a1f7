import assert from "node:assert/strict";
import { test } from "node:test";
import { between, ClockBound, lineState, passed, quantile, Recent } from "../../../tradeback/web/js/measure.js";

const near = (found, wanted) => assert.ok(Math.abs(found - wanted) < 1e-6, `${found} is not ${wanted}`);

test("quantiles lie inside their bucket", () => {
  const bounds = [10, 20, 40];
  near(quantile(bounds, [10, 0, 0, 0], 0.5), 5);
  near(quantile(bounds, [0, 4, 0, 0], 0.25), 12.5);
  near(quantile(bounds, [1, 1, 2, 0], 1), 40);
  near(quantile(bounds, [0, 0, 0, 7], 0.5), 40, "beyond all bounds: the last one");
  assert.equal(quantile(bounds, [0, 0, 0, 0], 0.5), null);
});

test("a histogram that began anew counts whole", () => {
  assert.deepEqual(passed({ counts: [1, 2] }, { counts: [3, 5] }), [2, 3]);
  assert.deepEqual(passed({ counts: [9, 9] }, { counts: [3, 5] }), [3, 5]);
  assert.deepEqual(passed(null, { counts: [3, 5] }), [3, 5]);
  assert.deepEqual(passed({ counts: [1] }, { counts: [3, 5] }), [3, 5], "other bounds");
});

function reading(timestamp, messages, wire, engine, more = {}) {
  const bounds_us = [100, 200];
  return {
    timestamp, started_at: 1, messages: { trade: messages, quote: messages }, accepted: { trade: messages }, duplicates: { quote: messages },
    exchange_to_engine: { bounds_us, counts: wire, ahead: 0 }, inside_engine: { bounds_us, counts: engine }, clock: null, ...more,
  };
}

test("rates and latencies are those of the time between two readings", () => {
  const before = reading(1_000, 100, [5, 0, 0], [5, 0, 0]), now = reading(3_000, 300, [5, 10, 0], [15, 0, 0]);
  const told = between(before, now);
  assert.equal(told.seconds, 2);
  assert.equal(told.messages, 200);
  assert.equal(told.accepted, 100);
  near(told.wire.p50Us, 150);
  near(told.engine.p50Us, 50);
  assert.equal(told.wire.errorUs, null);
});

test("an engine that was started anew has no rate yet", () => {
  const told = between(reading(1_000, 9_000, [5, 0, 0], [5, 0, 0]), reading(2_000, 3, [1, 0, 0], [1, 0, 0], { started_at: 2 }));
  assert.equal(told.messages, null);
  near(told.engine.p50Us, 50);
});

test("exchange to engine is corrected by the clocks and says how wrong that can be", () => {
  const clock = { offset_ms: 0.25, error_ms: 0.1 };
  const told = between(null, reading(1_000, 1, [10, 0, 0], [1, 0, 0], { clock }));
  near(told.wire.p50Us, 300);
  near(told.wire.errorUs, 100);
});

test("messages that came before they were sent hide the latency", () => {
  const now = reading(1_000, 1, [10, 0, 0], [1, 0, 0]);
  now.exchange_to_engine.ahead = 8;
  assert.equal(between(null, now).wire.hidden, true);
});

test("round trips bound the clock from both sides, and a clock that is set begins anew", () => {
  const bound = new ClockBound();
  assert.equal(bound.now, null);
  bound.add(1_000, 1_053, 1_053, 1_010);
  assert.deepEqual(bound.now, { offsetMs: 48, errorMs: 5 });
  bound.add(2_000, 2_051, 2_151, 2_102); // it took 100 ms to answer, which do not count
  assert.deepEqual(bound.now, { offsetMs: 50, errorMs: 1 });
  bound.add(3_000, 3_600, 3_600, 3_004);
  assert.deepEqual(bound.now, { offsetMs: 598, errorMs: 2 });
});

test("only what is recent counts", () => {
  const recent = new Recent(4);
  assert.deepEqual(recent.quantiles([0.5], 0), [null]);
  [1, 2, 3, 4, 5, 6].forEach((value) => recent.add(value, value * 1_000));
  assert.deepEqual(recent.quantiles([0, 0.5, 0.99], 6_000), [3, 5, 6]);
  assert.deepEqual(recent.quantiles([0], 10_500, 5_000), [6]);
});

test("a line is as good as its streams", () => {
  const of = (...states) => lineState(states.map((state) => ({ state })));
  assert.deepEqual([of(), of("ok", "ok"), of("ok", "down"), of("down", "starting")], ["none", "ok", "degraded", "down"]);
});
