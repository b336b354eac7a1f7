import assert from "node:assert/strict";
import { test } from "node:test";
import { barTime, clock, compact, duration, fixed, grouped, lookOf, percent, whole } from "../../../tradeback/web/js/numbers.js";

test("digits are grouped, whatever the sign and the decimals", () => {
  const pairs = { 1: "1", 999: "999", 1000: "1,000", "-1234.5": "-1,234.5", "1234567.89": "1,234,567.89", "0.123456": "0.123456" };
  for (const [text, wanted] of Object.entries(pairs)) assert.equal(grouped(text), wanted);
});

test("prices have their decimals, what is not known has a dash", () => {
  assert.equal(fixed(64250.1, 2), "64,250.10");
  assert.equal(fixed(0.00001234, 8), "0.00001234");
  for (const value of [NaN, undefined, Infinity, null]) assert.equal(fixed(value, 2), "–");
  assert.equal(whole(1841.6), "1,842");
  assert.equal(whole(null), "–");
});

test("three digits and a letter", () => {
  const pairs = [[0, "0"], [0.5, "0.5000"], [7, "7.00"], [999, "999"], [999.7, "1.00k"], [12345, "12.3k"], [2.5e6, "2.50M"], [-1.5e9, "-1.50B"], [3e12, "3.00T"]];
  for (const [value, wanted] of pairs) assert.equal(compact(value), wanted);
});

test("shares have a sign unless they are zero", () => {
  assert.equal(percent(0.0123), "+1.23 %");
  assert.equal(percent(-0.5, 1), "−50.0 %");
  assert.equal(percent(-0.00001), "0.00 %");
  assert.equal(percent(NaN), "–");
  assert.deepEqual([0.0123, -0.0123, -0.00001, NaN].map((share) => lookOf(share)), ["up-text", "down-text", "", ""]);
});

test("times have the unit that fits, at the edges too", () => {
  const pairs = [
    [0, "0 µs"], [14.4, "14 µs"], [999.4, "999 µs"], [999.6, "1.00 ms"], [12345, "12.3 ms"], [250_000, "250 ms"], [999_600, "1.0 s"],
    [30e6, "30.0 s"], [300e6, "5 min"], [7_200e6, "2 h"], [3 * 86_400e6, "3 d"], [NaN, "–"], [null, "–"],
  ];
  for (const [us, wanted] of pairs) assert.equal(duration(us), wanted);
});

test("clocks are UTC", () => {
  assert.equal(clock(1_700_000_000_000), "22:13:20");
  assert.equal(clock(NaN), "–");
  assert.equal(barTime(1_700_000_000, 1), "2023-11-14 22:13:20");
  assert.equal(barTime(1_700_000_000, 60), "2023-11-14 22:13");
  assert.equal(barTime(1_700_000_000, 86_400), "2023-11-14");
});
