// Wire v2 of tradeback's feed, decoder: one binary message -> what it says. docs/wire.md is the specification.
// A plain ES module without dependencies, for browsers, workers and node.
//
//   const decoder = new Decoder();
//   decoder.learn(1, 2, 5);                     // from `subscribed`: id, price_precision, quantity_precision
//   const { header, trades, quotes, gaps, enigma } = decoder.decode(message.data);
//
// Ids, times and units are numbers, exact below 2^53; a frame with a larger one is refused (WireError).
// Values come as numbers (`price`) and exactly: `decimal(trade.priceUnits, trade.priceDigits)`.

export const VERSION = 2;
export const FRAME_BYTES_MAX = 16384;
export const Frame = Object.freeze({ SNAPSHOT: 1, REPLAY: 2 });
export const Flag = Object.freeze({
  BUYER_MAKER: 1, REPAIRED: 2, STAND_IN: 4, LATE: 8, SNAPSHOT: 16, CONFLATED: 32, OFF_GRID: 64, LAST: 128,
});
export const GapState = Object.freeze({ OPEN: 1, REPAIRED: 2, UNREPAIRABLE: 3 });
/** In place of digits: the value is a float64 that is no short decimal, and units are not given (NaN). */
export const DIGITS_BITS = 255;

const HEADER_FIXED_BYTES = 18;
const UNITS_LIMIT = 2 ** 52;
const DIGITS_MAX = 22;
const POWERS = Array.from({ length: DIGITS_MAX + 1 }, (_, digits) => Number(`1e${digits}`));
const TRADE_EXTRAS = 2 | 4 | 8 | 16 | 64;
const QUOTE_EXTRAS = 2 | 8 | 16 | 32 | 64;

/** The same numbers as in Python (wire/v2_frame.py); 0: header or CRC. */
export const Reason = Object.freeze({
  CUT: 1, VARINT: 2, NO_SYMBOL: 3, UNKNOWN_SYMBOL: 4, RESERVED: 5, NO_TRADE: 6, RANGE: 7, COUNT: 8, DIGITS: 9,
  UNSAFE: 10,
});
const TEXTS = [
  "", "an entry ends behind the frame's end", "a number has more than 64 bits",
  "the first entry names no symbol", "a symbol is not in the table: subscribe again",
  "a reserved bit is set: made by a newer version", "a trade continues an event that the frame does not have",
  "a value is outside the grid", "the header counts other entries than there are",
  "an escape has more digits than there are", "a number is beyond 2^53, which JavaScript cannot hold",
];

export class WireError extends Error {
  constructor(message, code = 0) {
    super(message);
    this.name = "WireError";
    this.code = code;
  }
}

function refuse(code) {
  throw new WireError(`a v2 frame that cannot be read: ${TEXTS[code]}`, code);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** CRC-32 (IEEE, as zlib) of bytes from `start` on. */
export function crc32(bytes, start = 0) {
  let crc = 0xffffffff;
  for (let at = start; at < bytes.length; at++) crc = CRC_TABLE[(crc ^ bytes[at]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** The decimal that was sent, as text: decimal(6183763, 2) is "61837.63". */
export function decimal(units, digits) {
  if (digits === DIGITS_BITS) throw new RangeError("the value is a float64, no decimal");
  if (digits === 0) return String(units);
  const text = String(units).padStart(digits + 1, "0");
  return `${text.slice(0, -digits)}.${text.slice(-digits)}`;
}

/** A cursor over bytes that never reads behind their end. */
class Reader {
  constructor(bytes, view, place, end) {
    this.bytes = bytes;
    this.view = view;
    this.place = place;
    this.end = end;
  }

  byte() {
    if (this.place >= this.end) refuse(Reason.CUT);
    return this.bytes[this.place++];
  }

  float64() {
    if (this.place + 8 > this.end) refuse(Reason.CUT);
    this.place += 8;
    return this.view.getFloat64(this.place - 8, true);
  }

  /** An unsigned number: a Number up to 2^53 - 1, else a BigInt. */
  varint() {
    let value = 0, scale = 1;
    const start = this.place;
    for (;;) {
      const byte = this.byte();
      if (scale > 2 ** 42) return this.#large(start);
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
  }

  #large(start) {
    this.place = start;
    for (let value = 0n, shift = 0n; ; shift += 7n) {
      const byte = this.byte();
      if (shift === 63n && byte > 1) refuse(Reason.VARINT);
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
    }
  }

  /** An unsigned number that a Number holds. */
  count() {
    return safe(this.varint());
  }

  /** The same as an int64: what is above 2^63 is below zero, and no Number holds either. */
  signed() {
    const value = this.varint();
    if (typeof value === "bigint") return safe(value & 1n ? -(value >> 1n) - 1n : value >> 1n);
    return value % 2 ? -(value + 1) / 2 : value / 2;
  }

  /** A time in us, given as distance from another. */
  time(baseUs) {
    const value = this.varint();
    let back, fine;
    if (typeof value === "bigint") {
      fine = value & 1n;
      back = value & 2n ? -(value >> 2n) - 1n : value >> 2n;
      if (back > 2n ** 54n || back < -(2n ** 54n)) refuse(Reason.RANGE);
      const timeUs = fine ? BigInt(baseUs) - back : (BigInt(Math.floor(baseUs / 1000)) - back) * 1000n;
      if (timeUs < 0n || timeUs > BigInt(Number.MAX_SAFE_INTEGER)) refuse(Reason.RANGE);
      return Number(timeUs);
    }
    fine = value % 2;
    const folded = (value - fine) / 2;
    back = folded % 2 ? -(folded + 1) / 2 : folded / 2;
    const timeUs = fine ? baseUs - back : (Math.floor(baseUs / 1000) - back) * 1000;
    if (timeUs < 0 || timeUs > Number.MAX_SAFE_INTEGER) refuse(Reason.RANGE);
    return timeUs;
  }

  /** A value beside the grid: [number, units, digits]. */
  escape() {
    const digits = this.byte();
    if (digits === DIGITS_BITS) return [this.float64(), NaN, digits];
    if (digits > DIGITS_MAX) refuse(Reason.DIGITS);
    const units = this.varint();
    if (typeof units === "bigint") refuse(Reason.RANGE);
    return [units / POWERS[digits], units, digits];
  }
}

function safe(value) {
  if (typeof value === "bigint") {
    if (value > Number.MAX_SAFE_INTEGER || value < Number.MIN_SAFE_INTEGER) refuse(Reason.UNSAFE);
    return Number(value);
  }
  if (!Number.isSafeInteger(value)) refuse(Reason.UNSAFE);
  return value;
}

function units(value) {
  if (!(value >= 0 && value < UNITS_LIMIT)) refuse(Reason.RANGE);
  return value;
}

/** Entries of one frame. What it said of a symbol is forgotten with it. */
class Body {
  constructor(reader, count, recvUs, grids) {
    this.trades = [];
    this.quotes = [];
    this.gaps = [];
    this.enigma = [];
    this.unknown = 0;
    this.place = 0;
    this.reader = reader;
    this.count = count;
    this.recvUs = this.timeUs = recvUs;
    this.grids = grids;
    this.said = new Map();
    this.symbolId = 0;
  }

  entry() {
    const tag = this.reader.byte();
    if (tag & 2) this.long(tag);
    else if (tag & 1) this.quote(tag);
    else this.trade(tag);
  }

  next() {
    if (this.place >= this.count) refuse(Reason.COUNT);
    return this.place++;
  }

  saidOf(tag) {
    if (!(tag & 4)) this.symbolId = this.reader.varint();
    else if (!this.symbolId) refuse(Reason.NO_SYMBOL);
    let said = this.said.get(this.symbolId);
    if (said === undefined) {
      const grid = this.grids.get(this.symbolId);
      if (grid === undefined) refuse(Reason.UNKNOWN_SYMBOL);
      said = { grid, bid: 0, bidQuantity: 0, ask: 0, askQuantity: 0, id: 0, timeUs: -1, trade: null };
      this.said.set(this.symbolId, said);
    }
    return said;
  }

  extra(wanted, known) {
    const extra = wanted ? this.reader.byte() : 0;
    if (extra & ~known) refuse(Reason.RESERVED);
    return extra;
  }

  trade(tag) {
    if (tag & 192) refuse(Reason.RESERVED);
    const { reader } = this, said = this.saidOf(tag);
    const flags = this.extra(tag & 32, TRADE_EXTRAS) | (tag & 8 ? Flag.BUYER_MAKER : 0);
    if (tag & 16) {
      if (said.timeUs < 0) refuse(Reason.NO_TRADE);
      said.id = safe(said.id + 1);
      said.trade.flags &= ~Flag.LAST;
    } else {
      said.id = safe(said.id + 1 + reader.signed());
      said.timeUs = this.timeUs = reader.time(this.timeUs);
    }
    let firstId = said.id, standsFor = 1;
    if (flags & Flag.STAND_IN) {
      standsFor = reader.count();
      firstId = safe(said.id - reader.signed());
    }
    if (flags & Flag.OFF_GRID) {
      this.add(said, flags | Flag.LAST, reader.escape(), reader.escape(), firstId, standsFor);
      return;
    }
    for (;;) {
      const price = this.price(said, flags & Flag.BUYER_MAKER);
      const packed = reader.varint();
      if (typeof packed === "bigint") refuse(Reason.RANGE);
      const more = packed % 2, quantity = units((packed - more) / 2);
      const [priceDigits, quantityDigits] = said.grid;
      this.add(
        said, more ? flags : flags | Flag.LAST,
        [price / POWERS[priceDigits], price, priceDigits],
        [quantity / POWERS[quantityDigits], quantity, quantityDigits], firstId, standsFor,
      );
      if (!more) return;
      firstId = said.id = safe(said.id + 1);
      standsFor = 1;
    }
  }

  /** A trade's price against the side it was traded at; it moves what is expected of both sides. */
  price(said, maker) {
    const price = units((maker ? said.bid : said.ask) + this.reader.signed());
    if (maker) {
      said.bid = price;
      if (said.ask <= price) said.ask = price + 1;
    } else {
      said.ask = price;
      if (said.bid >= price || said.bid === 0) said.bid = price - 1;
    }
    return price;
  }

  add(said, flags, price, quantity, firstId, standsFor) {
    said.trade = {
      id: said.id, exchangeUs: said.timeUs, price: price[0], quantity: quantity[0],
      priceUnits: price[1], quantityUnits: quantity[1], firstId, standsFor,
      symbolId: this.symbolId, place: this.next(), flags, priceDigits: price[2], quantityDigits: quantity[2],
    };
    this.trades.push(said.trade);
  }

  quote(tag) {
    const { reader } = this, said = this.saidOf(tag);
    const flags = this.extra(tag & 128, QUOTE_EXTRAS);
    const skipped = flags & Flag.CONFLATED ? reader.count() : 0;
    const place = this.next();
    let bid, bidQuantity, ask, askQuantity;
    if (flags & Flag.OFF_GRID) {
      if ((tag & 120) !== 120) refuse(Reason.RESERVED);
      [bid, bidQuantity, ask, askQuantity] =
        [reader.escape(), reader.escape(), reader.escape(), reader.escape()];
    } else {
      const [prices, quantities] = said.grid;
      said.bid = units(tag & 8 ? said.bid + reader.signed() : said.bid);
      said.bidQuantity = units(tag & 16 ? said.bidQuantity + reader.signed() : said.bidQuantity);
      if (said.ask <= said.bid) said.ask = said.bid + 1;
      said.ask = units(tag & 32 ? said.ask + reader.signed() : said.ask);
      said.askQuantity = units(tag & 64 ? said.askQuantity + reader.signed() : said.askQuantity);
      bid = [said.bid / POWERS[prices], said.bid, prices];
      bidQuantity = [said.bidQuantity / POWERS[quantities], said.bidQuantity, quantities];
      ask = [said.ask / POWERS[prices], said.ask, prices];
      askQuantity = [said.askQuantity / POWERS[quantities], said.askQuantity, quantities];
    }
    this.quotes.push({
      bid: bid[0], bidQuantity: bidQuantity[0], ask: ask[0], askQuantity: askQuantity[0],
      bidUnits: bid[1], bidQuantityUnits: bidQuantity[1], askUnits: ask[1], askQuantityUnits: askQuantity[1],
      skipped, symbolId: this.symbolId, place, flags, bidDigits: bid[2],
      bidQuantityDigits: bidQuantity[2], askDigits: ask[2], askQuantityDigits: askQuantity[2],
    });
  }

  long(tag) {
    const { reader } = this, size = reader.varint(), end = reader.place + Number(size);
    if (end > reader.end) refuse(Reason.CUT);
    const place = this.next();
    const body = new Reader(reader.bytes, reader.view, reader.place, end);
    if (tag === 0x02) this.gaps.push(this.gap(body, place));
    else if (tag === 0x06) this.enigma.push(this.level(body, place));
    else this.unknown++;
    reader.place = end;
  }

  gap(body, place) {
    const symbolId = body.varint(), flags = body.byte(), stream = body.byte(), state = body.byte();
    const firstId = body.count(), lastId = safe(firstId + body.signed()), missing = body.count();
    const exchangeUs = body.time(this.recvUs), notedUs = body.time(this.recvUs);
    if (!(symbolId > 0 && symbolId < 65536)) refuse(Reason.UNKNOWN_SYMBOL);
    return { firstId, lastId, missing, exchangeUs, notedUs, symbolId, place, stream, state, flags };
  }

  level(body, place) {
    const symbolId = body.varint(), flags = body.byte();
    const level = body.float64(), ath = body.float64(), atl = body.float64(), price = body.float64();
    const tradeId = body.count(), exchangeUs = body.time(this.recvUs);
    if (!(symbolId > 0 && symbolId < 65536)) refuse(Reason.UNKNOWN_SYMBOL);
    return { level, ath, atl, price, tradeId, exchangeUs, symbolId, place, flags };
  }
}

/** Frames of one connection. Holds the symbols' grids and nothing of earlier frames. */
export class Decoder {
  #grids = new Map();
  #checkCrc;

  /** `checkCrc: false` saves most of the time; TCP and TLS have checks of their own. */
  constructor({ checkCrc = true } = {}) {
    this.#checkCrc = checkCrc;
  }

  /** Note a grid, as the `subscribed` answer tells it. */
  learn(symbolId, priceDigits, quantityDigits) {
    if (!(Number.isInteger(symbolId) && symbolId > 0 && symbolId < 65536)) {
      throw new RangeError(`symbol id ${symbolId} is outside 1..65535`);
    }
    for (const digits of [priceDigits, quantityDigits]) {
      if (!(Number.isInteger(digits) && digits >= 0 && digits <= DIGITS_MAX)) {
        throw new RangeError(`a grid has 0 to ${DIGITS_MAX} decimals, not ${digits}`);
      }
    }
    this.#grids.set(symbolId, [priceDigits, quantityDigits]);
  }

  /** One binary message (ArrayBuffer or typed array). WireError when it cannot be read. */
  decode(message) {
    const bytes = message instanceof ArrayBuffer
      ? new Uint8Array(message)
      : new Uint8Array(message.buffer, message.byteOffset, message.byteLength);
    const size = bytes.length;
    if (size < HEADER_FIXED_BYTES + 3 || size > FRAME_BYTES_MAX) {
      throw new WireError(`a v2 frame has ${HEADER_FIXED_BYTES + 3} to ${FRAME_BYTES_MAX} bytes, not ${size}`);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, size);
    if (bytes[4] !== VERSION) throw new WireError(`a frame of version ${bytes[4]}, not ${VERSION}`);
    if (this.#checkCrc && crc32(bytes, 4) !== view.getUint32(0, true)) {
      throw new WireError("the CRC of a v2 frame differs: damaged on the way");
    }
    const recvUs = view.getUint32(14, true) * 2 ** 32 + view.getUint32(10, true);
    if (recvUs > Number.MAX_SAFE_INTEGER) refuse(Reason.RANGE);
    const reader = new Reader(bytes, view, HEADER_FIXED_BYTES, size);
    const sequence = reader.count(), count = reader.count(), delayUs = reader.count();
    if (count > size - reader.place) refuse(Reason.COUNT);
    const body = new Body(reader, count, recvUs, this.#grids);
    while (reader.place < size) body.entry();
    if (body.place !== count) refuse(Reason.COUNT);
    const { trades, quotes, gaps, enigma, unknown } = body;
    const epoch = view.getUint32(6, true);
    return {
      header: { epoch, sequence, flags: bytes[5], count, recvUs, delayUs, unknown },
      trades, quotes, gaps, enigma,
    };
  }
}
