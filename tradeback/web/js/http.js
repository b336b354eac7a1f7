// What the page asks of the engine by HTTP, all on its own origin.

export class HttpError extends Error {
  constructor(status, code, message, retryAfterMs = 0) {
    super(message);
    this.name = "HttpError";
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

const TIMEOUT_MS = 20_000;
/** Unix seconds behind everything. */
const FOREVER_S = 4_000_000_000;

/** Called when the engine wants a log-in. */
let refused = () => {};
export function onUnauthorized(callback) {
  refused = callback;
}

/** JSON of a path. HttpError for what the engine refuses, with status 0 when it does not answer. */
export async function ask(path, options) {
  return (await askWhole(path, options)).json;
}

/** The same with the answer's headers: {json, headers}. */
async function askWhole(path, { method = "GET", body, signal } = {}) {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  const options = {
    method, signal: signal ? AbortSignal.any([signal, limit]) : limit, credentials: "same-origin",
    headers: body ? { "Content-Type": "application/json" } : {}, body: body && JSON.stringify(body),
  };
  let answer, text;
  try {
    answer = await fetch(path, options);
    text = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new HttpError(0, "no_answer", "the engine does not answer");
  }
  if (answer.ok) return { json: text ? read(text) : null, headers: answer.headers };
  const told = errorOf(text);
  if (answer.status === 401 && !path.includes("/auth/")) refused();
  const retryAfterMs = 1e3 * Number(answer.headers.get("Retry-After") ?? 0);
  throw new HttpError(answer.status, told.code, told.message, retryAfterMs || 0);
}

function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new HttpError(0, "no_answer", "what answers is not the engine");
  }
}

function errorOf(text) {
  try {
    const told = JSON.parse(text);
    return told.error ?? { code: "error", message: told.errmsg ?? "the engine refuses this" };
  } catch {
    return { code: "error", message: "the engine refuses this" };
  }
}

export const waited = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });

/** Whether the same question may be answered later. */
export function passes(error) {
  return ![400, 401, 403, 404].includes(error.status);
}

/** What `work` gives; undefined when the engine refuses it or does not answer, of which `failed` hears. */
export async function attempt(work, failed = () => {}) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    failed(error);
    return undefined;
  }
}

/** `work` again and again until it works, with growing pauses. `told(error)` hears of each failure. */
export async function persist(work, { signal, told = () => {} }) {
  for (let pause = 250; ; pause = Math.min(2 * pause, 5_000)) {
    try {
      return await work();
    } catch (error) {
      if (signal?.aborted || !(error instanceof HttpError) || !passes(error)) throw error;
      told(error);
      await waited(Math.max(pause, error.retryAfterMs), signal);
    }
  }
}

const symbolPath = (symbol) => `/api/v1/symbols/${encodeURIComponent(symbol)}`;

export const symbols = (options) => ask("/api/v1/symbols", options);
export const stats = (symbol) => ask(`/api/v1/stats?symbol=${encodeURIComponent(symbol)}`);
export const session = () => ask("/api/v1/auth/session");
export const logIn = (username, password) =>
  ask("/api/v1/auth/login", { method: "POST", body: { username, password } });
export const logOut = () => ask("/api/v1/auth/logout", { method: "POST" });
export const watched = () => ask("/api/v1/marketwatch");
export const watch = (symbol, on) =>
  ask(`/api/v1/marketwatch/${encodeURIComponent(symbol)}`, { method: on ? "POST" : "DELETE" });

/** Gaps of a symbol, or of all, that touch the time from `fromS` on. */
export async function gaps(symbol, fromS, options) {
  const of = symbol ? `symbol=${encodeURIComponent(symbol)}&` : "";
  return (await ask(`/api/v1/gaps?${of}from=${Math.floor(fromS)}&limit=1000`, options)).gaps;
}

/** The newest bars from `fromS` on, and the highest trade id in the last of them; 0 where that is not known. */
export async function bars(symbol, resolution, fromS, options) {
  const path = `${symbolPath(symbol)}/bars?resolution=${resolution}&from=${fromS}`;
  const { json, headers } = await askWhole(path, options);
  return { bars: json.bars, lastId: Number(headers.get("Last-Trade-Id") ?? 0) };
}

/** UDF: the newest `countback` candles before `toS`, ascending; [] where history begins. */
export async function history(symbol, udf, toS, countback, options) {
  // `from` would make the answer longer, down to there.
  return candlesOf(await ask(`${historyPath(symbol, udf, toS, toS)}&countback=${countback}`, options));
}

/** UDF: the newest `count` candles, the running one last. No clock is asked: this one may be wrong. */
export async function newest(symbol, udf, count, options) {
  return history(symbol, udf, FOREVER_S, count, options);
}

/** UDF: all candles of [fromS, toS). */
export async function historyOf(symbol, udf, fromS, toS, options) {
  return candlesOf(await ask(historyPath(symbol, udf, fromS, toS), options));
}

function historyPath(symbol, udf, fromS, toS) {
  const name = encodeURIComponent(symbol);
  return `/udf/history?symbol=${name}&resolution=${udf}&from=${Math.floor(fromS)}&to=${Math.ceil(toS)}`;
}

function candlesOf(answer) {
  if (answer.s === "no_data") return [];
  if (answer.s !== "ok") throw new HttpError(400, "error", answer.errmsg ?? "history is refused");
  const { t, o, h, l, c, v } = answer;
  return t.map((time, at) => ({
    time, open: o[at], high: h[at], low: l[at], close: c[at], volume: v?.[at] ?? 0,
  }));
}

/** UDF: what happened today, by symbol: `{lp, ch, chp, ...}`. */
export async function quotes(names, options) {
  const found = new Map();
  for (let start = 0; start < names.length; start += 50) {
    const asked = names.slice(start, start + 50);
    const answer = await ask(`/udf/quotes?symbols=${encodeURIComponent(asked.join(","))}`, options);
    for (const { s, n, v } of answer.d ?? []) if (s === "ok") found.set(n, v);
  }
  return found;
}
