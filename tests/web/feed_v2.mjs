// Drives tradeback/web/js/feed.js for tests/web/test_feed.py: node feed_v2.mjs MODULE URL OPTIONS.
// Reads commands as JSON lines on stdin, writes one JSON line per entry and event.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , modulePath, url, optionsText] = process.argv;
const { Feed, feedUrl } = await import(pathToFileURL(modulePath));
const options = JSON.parse(optionsText);
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const feed = new Feed(url, options);
let end = Infinity, askedForPlace = false;

const placed = () => {
  if (askedForPlace && feed.position) say({ event: "placed", position: feed.position });
  askedForPlace &&= !feed.position;
};

const ended = () => {
  if (feed.position && feed.position.sequence >= end) {
    say({ event: "end", position: feed.position, reconnects: feed.reconnects, url: feedUrl(url) });
    process.stdout.write("", () => process.exit(0));
  }
};

function show(batch) {
  const rows = [
    ...batch.trades.map((t) => [t.place, ["trade", t.symbolId, t.id, t.exchangeUs, t.price, t.quantity, t.flags & 15]]),
    ...batch.quotes.map((q) => [q.place, ["quote", q.symbolId, q.bid, q.bidQuantity, q.ask, q.askQuantity]]),
    ...batch.gaps.map((g) => [g.place, ["gap", g.symbolId, g.firstId, g.lastId, g.state, g.missing, g.exchangeUs]]),
  ].sort((a, b) => a[0] - b[0]);
  if (batch.snapshot) say({ event: "snapshot", entries: rows.length, position: batch.position });
  else for (const [, row] of rows) say(row);
  if (options.latency) say({ event: "latency", ...batch.latency, replay: batch.replay });
}

feed.onState = (state, reason) => say({ event: state, reason });
feed.onLost = (lost) => say({ event: "lost", ...lost });
feed.onWatched = (symbol) => say({ event: "watched", ...symbol });
feed.onUnsubscribed = (symbols) => say({ event: "unsubscribed", symbols });
feed.onError = (message) => say({ event: "error", code: message.code });
if (options.throws) {
  process.on("uncaughtException", (error) => say({ event: "thrown", message: error.message }));
  feed.onTrades = () => { throw new Error("a program's own mistake"); };
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const { end: last, placed: asked, subscribe, unsubscribe } = JSON.parse(line);
  if (subscribe) feed.subscribe(...subscribe);
  if (unsubscribe) feed.unsubscribe(...unsubscribe);
  if (last) end = last;
  if (asked) askedForPlace = true;
});
setInterval(placed, 5);
setInterval(ended, 5);

if (options.subscribe) feed.subscribe(...options.subscribe);
if (options.iterate) {
  let left = options.leave ?? Infinity;
  for (;;) {
    for await (const batch of feed) {
      show(batch);
      if (options.slowMs) await new Promise((resolve) => setTimeout(resolve, options.slowMs));
      if (--left === 0) break;
    }
    left = Infinity;
  }
} else {
  feed.onBatch = show;
  feed.connect();
}
