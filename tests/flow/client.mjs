// A subscriber for node, by hand over TCP: no library, no code of tradeback. Prints [symbol, price, volume]
// per entry as JSON lines and ends after COUNT.  usage: node client.mjs HOST PORT SYMBOL COUNT
import net from "node:net";
import { createHash, randomBytes } from "node:crypto";

const [host, port, symbol, wanted] = process.argv.slice(2);
const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n >>> 0;
});
const crc32 = (bytes) =>
  ~bytes.reduce((crc, byte) => (crc >>> 8) ^ crcTable[(crc ^ byte) & 255], 0xffffffff) >>> 0;
const fail = (reason) => { console.error(reason); process.exit(1); };

function send(socket, opcode, payload) {
  const mask = randomBytes(4);
  const head = payload.length < 126 ? Buffer.from([0x80 | opcode, 0x80 | payload.length])
    : Buffer.from([0x80 | opcode, 0xfe, payload.length >> 8, payload.length & 255]);
  socket.write(Buffer.concat([head, mask, payload.map((byte, place) => byte ^ mask[place & 3])]));
}

let left = Number(wanted), names = {};
function onMessage(socket, opcode, payload) {
  if (opcode === 9) return send(socket, 10, payload);
  if (opcode === 8) fail("closed: " + payload.subarray(2));
  if (opcode === 1) {
    const message = JSON.parse(payload.toString());
    if (message.type !== "subscribed") fail(payload.toString());
    for (const [name, held] of Object.entries(message.symbols)) names[held.id] = name;
    return;
  }
  if (payload.readUInt32LE(0) !== crc32(payload.subarray(4))) fail("wrong crc");
  const count = payload.readUInt16LE(4);
  if (payload.length !== 6 + 18 * count) fail("wrong length");
  for (let at = 6; at < payload.length && left > 0; at += 18, left--) {
    const entry = [names[payload.readUInt16LE(at)], payload.readDoubleLE(at + 2), payload.readDoubleLE(at + 10)];
    process.stdout.write(JSON.stringify(entry) + "\n");
  }
  if (left === 0) socket.end();
}

const key = randomBytes(16).toString("base64");
const accept = createHash("sha1").update(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest("base64");
let buffer = Buffer.alloc(0), open = false;
const socket = net.connect(Number(port), host, () => socket.write(
  `GET /api/v1/ws HTTP/1.1\r\nHost: ${host}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
  `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\nSec-WebSocket-Protocol: tradeback.v1\r\n\r\n`));
socket.on("error", (error) => fail(String(error)));
socket.on("data", (data) => {
  buffer = Buffer.concat([buffer, data]);
  if (!open) {
    const end = buffer.indexOf("\r\n\r\n");
    if (end < 0) return;
    const answer = buffer.subarray(0, end).toString();
    if (!answer.startsWith("HTTP/1.1 101") || !answer.includes(accept)) fail(answer);
    open = true;
    buffer = buffer.subarray(end + 4);
    send(socket, 1, Buffer.from(JSON.stringify({ type: "subscribe", symbols: [symbol] })));
  }
  while (left > 0 && buffer.length >= 2) {
    let size = buffer[1], at = 2;
    if (size === 126) { if (buffer.length < 4) return; size = buffer.readUInt16BE(2); at = 4; }
    else if (size > 126) fail("a masked or giant frame");
    if (buffer.length < at + size) return;
    const payload = buffer.subarray(at, at + size);
    const opcode = buffer[0] & 15;
    buffer = buffer.subarray(at + size);
    onMessage(socket, opcode, payload);
  }
});
