// The feed of tradeback, version 2: connects, subscribes, decodes, connects again and resumes where it was.
// A plain ES module for browsers, workers and node from 22 on. Needs wire_v2.js beside it and nothing else.
//
//   const feed = new Feed("http://127.0.0.1:8080");
//   feed.onTrades = (trades, batch) => { for (const trade of trades) console.log(trade.symbol, trade.price); };
//   feed.subscribe(["BTCUSDT"], ["trades", "quotes", "gaps"]);
//   feed.connect();
//
// or, one after the other: for await (const batch of feed) console.log(batch.trades, batch.quotes);

import { Decoder, Frame, GapState, Reason } from "./wire_v2.js";

const PROTOCOL = "tradeback.v2";
const PATH = "/api/v1/ws";
const EVERY = "*";
const SYMBOLS_PER_REQUEST_MAX = 1024;
const CHANNELS = ["trades", "quotes", "gaps", "enigma"];
const STATES = {
  [GapState.OPEN]: "open", [GapState.REPAIRED]: "repaired", [GapState.UNREPAIRABLE]: "unrepairable",
};

/**
 * @typedef {{epoch: number, sequence: number}} Position
 * @typedef {{id: number, symbol: string, pricePrecision: number, quantityPrecision: number}} FeedSymbol
 * @typedef {object} Batch one frame
 * @property {object[]} trades each with `symbol`; the other fields as wire_v2.js has them
 * @property {object[]} quotes
 * @property {object[]} gaps `state` is the word: open, repaired, unrepairable
 * @property {object[]} enigma
 * @property {Position} position store it once the batch is used, and give it back as `resume`
 * @property {boolean} snapshot what was known when the subscription began; nothing in it happened now
 * @property {boolean} replay made from the tape for this client alone
 * @property {number} receivedMs wall clock here when the message came
 * @property {{exchangeToEngineUs: ?number, insideEngineUs: ?number, engineToClientUs: ?number}} latency
 *   us; null where it cannot be told. The first and the last compare clocks of two machines.
 */

/** The feed's address for an engine given as http(s):// or ws(s)://, with or without a path. */
export function feedUrl(url, token) {
  const parsed = new URL(url.includes("//") ? url : `ws://${url}`);
  const scheme = { "http:": "ws:", "https:": "wss:", "ws:": "ws:", "wss:": "wss:" }[parsed.protocol];
  if (!scheme) throw new TypeError(`${url} is no address of an engine; write http://HOST:PORT`);
  const path = parsed.pathname === "/" ? PATH : parsed.pathname;
  const query = token ? `?token=${encodeURIComponent(token)}` : parsed.search;
  return `${scheme}//${parsed.host}${path}${query}`;
}

/** What is wanted, by channel. One request must bring it all, because a resume belongs to one. */
class Wants {
  #names = new Map();

  get any() {
    return this.#names.size > 0;
  }

  get everything() {
    return [...this.#names.values()].some((names) => names.has(EVERY));
  }

  /** Whether all channels want the same symbols, so that one request says it exactly. */
  get even() {
    const cover = this.#cover();
    return [...this.#names.values()].every(
      (names) => names.size === cover.size && [...names].every((name) => cover.has(name)),
    );
  }

  get channels() {
    return [...this.#names.keys()];
  }

  add(symbols, channels) {
    for (const channel of channels) {
      const more = symbols.map((name) => name.toUpperCase());
      const joined = new Set([...(this.#names.get(channel) ?? []), ...more]);
      this.#names.set(channel, joined.has(EVERY) ? new Set([EVERY]) : joined);
    }
  }

  remove(symbols, channels, known) {
    const gone = new Set(symbols.map((name) => name.toUpperCase()));
    for (const channel of channels) {
      const held = this.#names.get(channel) ?? new Set();
      const from = gone.has(EVERY) ? [] : held.has(EVERY) ? known : [...held];
      const left = new Set(from.filter((name) => !gone.has(name)));
      if (left.size) this.#names.set(channel, left);
      else this.#names.delete(channel);
    }
  }

  #cover() {
    const joined = new Set([...this.#names.values()].flatMap((names) => [...names]));
    return joined.has(EVERY) || joined.size > SYMBOLS_PER_REQUEST_MAX ? new Set([EVERY]) : joined;
  }

  request() {
    return { type: "subscribe", symbols: [...this.#cover()], channels: this.channels };
  }

  /** What gives back the rest, once the names of the covered symbols are known. */
  excess(known) {
    const found = [];
    for (const [channel, names] of this.#names) {
      const spare = names.has(EVERY) ? [] : known.filter((name) => !names.has(name));
      for (let start = 0; start < spare.length; start += SYMBOLS_PER_REQUEST_MAX) {
        const symbols = spare.slice(start, start + SYMBOLS_PER_REQUEST_MAX);
        found.push({ type: "unsubscribe", symbols, channels: [channel] });
      }
    }
    return found;
  }

  wants(channel, name) {
    const names = this.#names.get(channel);
    return names !== undefined && (names.has(EVERY) || names.has(name));
  }
}

export class Feed {
  /** @type {?function(object[], Batch): void} */ onTrades = null;
  /** @type {?function(object[], Batch): void} */ onQuotes = null;
  /** @type {?function(object[], Batch): void} */ onEnigma = null;
  /** @type {?function(object, Batch): void} one gap whose state has changed */ onGap = null;
  /** @type {?function(Batch): void} every batch, before the others */ onBatch = null;
  /** @type {?function(string, string): void} connecting, open, waiting, closed; and why */ onState = null;
  /** @type {?function({reason: string, held: Position, now: ?Position}): void} a resume was refused */
  onLost = null;
  /** @type {?function(object): void} errors that the engine answers; `damaged`: a message cannot be read */
  onError = null;
  /** @type {?function(FeedSymbol): void} a symbol of the session's market watch is delivered from now on */
  onWatched = null;
  /** @type {?function(string[]): void} these are delivered no more: asked for, or they left the watch */
  onUnsubscribed = null;

  /** @type {Map<number, FeedSymbol>} by wire id */ symbols = new Map();
  /** @type {?Position} everything before it has been handed out or waits for the loop */ position = null;
  /** connecting, open, waiting (to connect again), closed */ state = "closed";
  reconnects = 0;
  /** messages that could not be read: each cost a connection, and nothing of the data */ damaged = 0;

  #url; #options; #WebSocket;
  #wants = new Wants();
  #decoder = new Decoder();
  #socket = null;
  #backoffMs;
  #retry = null;
  #watch = null;
  #heardMs = 0;
  #pinged = false;
  #askedFor = null;
  #answered = null;
  #covering = false;
  #watchedIds = new Set();
  #held = [];
  #queue = null;

  /**
   * @param {string} url http://HOST:PORT of the engine
   * @param {object} [options]
   * @param {Position} [options.resume] a `position` from before, to get everything since then
   * @param {string} [options.token]
   * @param {number} [options.silenceMaxMs] silence after which a connection counts as broken
   * @param {number} [options.backoffFirstMs]
   * @param {number} [options.backoffMaxMs]
   * @param {number} [options.waitingMax] batches that may wait for `for await` before the connection is given
   *   up, to be resumed when the program has caught up: browsers cannot stop reading a socket
   */
  constructor(url, options = {}) {
    this.#url = feedUrl(url, options.token);
    this.#options = {
      silenceMaxMs: 10000, backoffFirstMs: 100, backoffMaxMs: 10000, waitingMax: 10000, ...options,
    };
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this.#WebSocket) throw new Error("there is no WebSocket here: use node 22 or a browser");
    this.position = options.resume ?? null;
    if (this.position && !isPosition(this.position)) throw new TypeError("resume is no position of a feed");
    this.#backoffMs = this.#options.backoffFirstMs;
  }

  /** Connect, and again after every break, until `close`. */
  connect() {
    if (this.#socket || this.#retry) return;
    this.#open();
  }

  /** Close; a running iteration ends when it has read what came. */
  close() {
    clearTimeout(this.#retry);
    this.#retry = null;
    this.#drop();
    this.#tell("closed", "closed by the program");
    this.#queue?.wake();
  }

  /** Want these, too: first a snapshot of them, then live data. Also after every reconnect. */
  subscribe(symbols, channels = ["trades"]) {
    const names = typeof symbols === "string" ? [symbols] : [...symbols];
    check(channels);
    this.#wants.add(names, channels);
    this.#send({ type: "subscribe", symbols: names, channels });
  }

  /** Want these no more. */
  unsubscribe(symbols, channels = CHANNELS) {
    const names = typeof symbols === "string" ? [symbols] : [...symbols];
    check(channels);
    this.#wants.remove(names, channels, this.#known());
    this.#send({ type: "unsubscribe", symbols: names, channels });
  }

  /** The symbol with this wire id. */
  symbol(id) {
    return this.symbols.get(id) ?? { id, symbol: `#${id}`, pricePrecision: 8, quantityPrecision: 8 };
  }

  /**
   * Batches, one after the other. Connects when nobody has. Leaving the loop closes the feed; `position` is
   * that of the last batch then, so a further loop goes on behind it.
   */
  async *[Symbol.asyncIterator]() {
    const queue = (this.#queue = new Queue());
    let { position } = this;
    this.connect();
    try {
      for (;;) {
        const batch = await queue.next(() => this.state === "closed");
        if (batch === null) return;
        ({ position } = batch);
        yield batch;
        if (queue.full && queue.size < this.#options.waitingMax / 2) {
          queue.full = false;
          this.#open();
        }
      }
    } finally {
      this.#queue = null;
      if (this.state !== "closed") this.close();
      if (position) this.position = position;
    }
  }

  #known() {
    return [...this.symbols.values()].map((symbol) => symbol.symbol);
  }

  #tell(state, reason) {
    this.state = state;
    this.#call(this.onState, state, reason);
  }

  /** A callback that throws fails by itself, and costs the feed nothing. */
  #call(callback, ...told) {
    if (!callback) return;
    try {
      callback(...told);
    } catch (error) {
      setTimeout(() => {
        throw error;
      });
    }
  }

  #send(message) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
  }

  #open() {
    this.#retry = null;
    this.#tell("connecting", this.#url);
    const socket = (this.#socket = new this.#WebSocket(this.#url, [PROTOCOL]));
    socket.binaryType = "arraybuffer";
    this.#heardMs = performance.now();
    this.#pinged = false;
    socket.onopen = () => socket === this.#socket && this.#begin();
    socket.onmessage = ({ data }) => socket === this.#socket && this.#take(data);
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => {
      if (socket === this.#socket) this.#broken(`closed: ${code} ${reason}`.trimEnd());
    };
    clearInterval(this.#watch);
    this.#watch = setInterval(() => this.#look(), this.#options.silenceMaxMs / 4);
  }

  #begin() {
    this.#askedFor = this.#answered = null;
    this.#held = [];
    const taped = this.#watchedIds.size > 0 || this.#wants.channels.some((channel) => channel !== "enigma");
    if (this.position && taped) {
      this.#askedFor = this.position;
      this.#send({ type: "resume", ...this.position });
    }
    this.#covering = !this.#wants.even;
    if (this.#wants.any) this.#send(this.#wants.request());
    this.#tell("open", this.#url);
  }

  /** Forget the connection, whatever it is still about to say. */
  #drop() {
    clearInterval(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #broken(reason) {
    this.#drop();
    const delay = this.#backoffMs * (0.5 + Math.random() / 2);
    this.#backoffMs = Math.min(2 * this.#backoffMs, this.#options.backoffMaxMs);
    this.#retry = setTimeout(() => {
      this.reconnects++;
      this.#open();
    }, delay);
    this.#tell("waiting", reason);
  }

  /** Ask an engine that is silent, give up one that stays so. */
  #look() {
    const silentMs = performance.now() - this.#heardMs;
    if (silentMs >= this.#options.silenceMaxMs) this.#broken(`nothing came for ${Math.round(silentMs)} ms`);
    else if (silentMs >= this.#options.silenceMaxMs / 2 && !this.#pinged) {
      this.#pinged = true;
      this.#send({ type: "ping" });
    }
  }

  #take(data) {
    this.#heardMs = performance.now();
    this.#pinged = false;
    const receivedMs = Date.now();
    try {
      if (typeof data === "string") this.#text(JSON.parse(data));
      else if (this.#held.length) this.#held.push([data, receivedMs]);
      else this.#binary(data, receivedMs);
    } catch (error) {
      // Callbacks fail by themselves: this is a message that cannot be read. The next connection resumes
      // before it.
      this.damaged++;
      this.#call(this.onError, { type: "error", code: "damaged", message: error.message });
      if (this.#socket) this.#broken(`what came cannot be read: ${error.message}`);
    }
  }

  #text(message) {
    if (message.type === "subscribed") this.#subscribed(message);
    else if (message.type === "auto_subscribe") this.#watched(message.data);
    else if (message.type === "unsubscribed") this.#call(this.onUnsubscribed, message.symbols);
    else if (message.type === "resumed") this.#askedFor = null;
    else if (message.type === "error") this.#call(this.onError, message);
    else if (message.type === "resume_refused" && this.#askedFor) {
      const held = this.#askedFor;
      this.#askedFor = null;
      this.position = this.#answered;
      this.#call(this.onLost, { reason: message.reason, held, now: this.position });
    }
  }

  #learn(name, told) {
    this.#decoder.learn(told.id, told.price_precision, told.quantity_precision);
    const symbol = {
      id: told.id, symbol: name,
      pricePrecision: told.price_precision, quantityPrecision: told.quantity_precision,
    };
    this.symbols.set(told.id, symbol);
    return symbol;
  }

  /** A symbol of the session's market watch, which the engine delivers without being asked. */
  #watched(told) {
    const symbol = this.#learn(told.symbol, told);
    this.#watchedIds.add(symbol.id);
    this.position ??= { epoch: told.epoch, sequence: told.sequence };
    this.#call(this.onWatched, symbol);
  }

  #subscribed(message) {
    for (const [name, told] of Object.entries(message.symbols)) this.#learn(name, told);
    const held = this.#held;
    this.#held = [];
    for (const [data, receivedMs] of held) this.#frame(this.#decoder.decode(data), receivedMs);
    if (message.sequence !== undefined) {
      this.#answered = { epoch: message.epoch, sequence: message.sequence };
      if (!this.#askedFor) this.position = this.#answered;
    }
    if (this.#covering && message.sequence !== undefined) {  // else it tells of a symbol that came
      this.#covering = false;
      for (const request of this.#wants.excess(Object.keys(message.symbols))) this.#send(request);
    }
  }

  #binary(data, receivedMs) {
    if (this.#askedFor) return; // of the market watch, before the answer to the resume: it comes again
    let found;
    try {
      found = this.#decoder.decode(data);
    } catch (error) {
      if (error.code !== Reason.UNKNOWN_SYMBOL || !this.#wants.everything) throw error;
      // A symbol that was listed after the subscription: ask what it is, and wait for the answer.
      this.#held.push([data, receivedMs]);
      this.#covering = !this.#wants.even;
      this.#send({ type: "subscribe", symbols: [EVERY], channels: this.#wants.channels });
      return;
    }
    this.#frame(found, receivedMs);
  }

  #frame({ header, ...found }, receivedMs) {
    const position = { epoch: header.epoch, sequence: header.sequence };
    const snapshot = (header.flags & Frame.SNAPSHOT) !== 0, replay = (header.flags & Frame.REPLAY) !== 0;
    this.#backoffMs = this.#options.backoffFirstMs;
    const even = this.#wants.even;
    for (const channel of CHANNELS) {
      for (const entry of found[channel]) entry.symbol = this.symbol(entry.symbolId).symbol;
      if (!even) found[channel] = found[channel].filter((entry) => this.#takes(channel, entry));
    }
    for (const gap of found.gaps) gap.state = STATES[gap.state] ?? `#${gap.state}`;
    const told = snapshot || replay ? null : header;
    const latency = latencyOf(told, found, receivedMs);
    if (!snapshot) this.position = position;
    const batch = { ...found, position: this.position, snapshot, replay, receivedMs, latency };
    if (CHANNELS.some((channel) => found[channel].length)) this.#deliver(batch);
  }

  #takes(channel, entry) {
    if (channel === "trades" && this.#watchedIds.has(entry.symbolId)) return true;
    return this.#wants.wants(channel, entry.symbol);
  }

  #deliver(batch) {
    this.#call(this.onBatch, batch);
    if (batch.trades.length) this.#call(this.onTrades, batch.trades, batch);
    if (batch.quotes.length) this.#call(this.onQuotes, batch.quotes, batch);
    if (batch.enigma.length) this.#call(this.onEnigma, batch.enigma, batch);
    for (const gap of batch.gaps) this.#call(this.onGap, gap, batch);
    const queue = this.#queue;
    if (!queue) return;
    queue.push(batch);
    if (queue.size >= this.#options.waitingMax) {
      // A socket of a browser cannot be left alone: give it up, and resume when the program has caught up.
      queue.full = true;
      this.#drop();
      this.#tell("waiting", `${queue.size} batches wait for the program`);
    }
  }
}

function isPosition({ epoch, sequence }) {
  const within = (value, most) => Number.isInteger(value) && value >= 1 && value <= most;
  return within(epoch, 2 ** 32 - 1) && within(sequence, Number.MAX_SAFE_INTEGER);
}

function check(channels) {
  const unknown = channels.filter((channel) => !CHANNELS.includes(channel));
  if (unknown.length) throw new TypeError(`no channel ${unknown.join(", ")}; there are ${CHANNELS.join(", ")}`);
}

/** Where the time went; `header` null: it cannot be told. */
function latencyOf(header, { trades, quotes }, receivedMs) {
  if (!header || !(trades.length || quotes.length)) {
    return { exchangeToEngineUs: null, insideEngineUs: null, engineToClientUs: null };
  }
  let newest = 0;
  for (const trade of trades) if (!(trade.flags & 10) && trade.exchangeUs > newest) newest = trade.exchangeUs;
  return {
    exchangeToEngineUs: newest ? header.recvUs - newest : null,
    insideEngineUs: header.delayUs,
    engineToClientUs: receivedMs * 1000 - header.recvUs - header.delayUs,
  };
}

/** What came and was not read yet. */
class Queue {
  full = false;
  #waiting = [];
  #first = 0;
  #wake = null;

  get size() {
    return this.#waiting.length - this.#first;
  }

  push(batch) {
    this.#waiting.push(batch);
    this.wake();
  }

  wake() {
    this.#wake?.();
    this.#wake = null;
  }

  /** The next one; null when there is none and `over` says so. */
  async next(over) {
    while (!this.size) {
      if (over()) return null;
      await new Promise((resolve) => (this.#wake = resolve));
    }
    const batch = this.#waiting[this.#first];
    this.#waiting[this.#first++] = undefined;
    if (this.#first > 1000 && 2 * this.#first > this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#first);
      this.#first = 0;
    }
    return batch;
  }
}
