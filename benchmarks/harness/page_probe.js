// Put into a page by page_probe.py: counts frames, long tasks and trades, between start and stop.
(() => {
  const LOST_TOLD_MAX = 5;
  const probe = globalThis.probe = { tasks: 0, taskMs: 0, gaps: [], trades: 0, lost: [], runs: false };
  const newest = new Map();
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) { probe.tasks++; probe.taskMs += duration; }
  }).observe({ type: "longtask" });
  probe.start = () => {
    Object.assign(probe, { tasks: 0, taskMs: 0, gaps: [], trades: 0, runs: true });
    let before = 0;
    const frame = (now) => {
      if (!probe.runs) return;
      if (before) probe.gaps.push(now - before);
      before = now;
      requestAnimationFrame(frame);
    };
    probe.begin = performance.now();
    requestAnimationFrame(frame);
  };
  /** `lateMs`: a frame that comes later than this after the one before is late. */
  probe.stop = (lateMs) => {
    probe.runs = false;
    const { tasks, taskMs, trades, lost } = probe, gaps = probe.gaps.sort((one, other) => one - other);
    return {
      seconds: (performance.now() - probe.begin) / 1e3, frames: gaps.length, tasks, task_ms: taskMs, trades, lost,
      longest_ms: gaps.at(-1) ?? 0, in_time: gaps.filter((gap) => gap <= lateMs).length,
    };
  };
  const feed = globalThis.tradeback?.feed;
  if (!feed) return;
  const take = feed.onTrades;
  feed.onTrades = (trades, batch) => {
    if (!batch.snapshot) {
      probe.trades += trades.length;
      for (const { id, symbol, flags } of trades) {
        const before = newest.get(symbol);
        if (before !== undefined && id !== before + 1 && probe.lost.length < LOST_TOLD_MAX) {
          probe.lost.push(`${symbol}: ${id} behind ${before}, flags ${flags}`);
        }
        newest.set(symbol, Math.max(before ?? 0, id));
      }
    }
    take(trades, batch);
  };
})()
