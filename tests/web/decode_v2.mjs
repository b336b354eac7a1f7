// Decodes with tradeback/web/js/wire_v2.js what it reads on stdin: {"grids": {...}, "frames": [hex, ...]}.
// Writes one JSON line per frame: the frame as Python's vectors say it, or {"code", "message"}.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { Decoder, WireError, decimal } = await import(pathToFileURL(process.argv[2]));
const { grids, frames } = JSON.parse(readFileSync(0, "utf8"));
const decoder = new Decoder();
for (const [id, [price, quantity]] of Object.entries(grids)) decoder.learn(Number(id), price, quantity);

const said = (value) => (Number.isFinite(value) ? value : { NaN: "nan", Infinity: "inf", "-Infinity": "-inf" }[value]);
const snake = (name) => name.replace(/[A-Z]/g, (letter) => "_" + letter.toLowerCase());
function plain(row) {
  const made = {};
  for (const [name, value] of Object.entries(row)) {
    made[snake(name)] = said(value);
    const digits = row[`${name}Digits`];
    if (digits !== undefined && digits !== 255) made[`${snake(name)}_decimal`] = decimal(row[`${name}Units`], digits);
  }
  return made;
}

for (const hex of frames) {
  let line;
  try {
    const { header, ...kinds } = decoder.decode(new Uint8Array(Buffer.from(hex, "hex")));
    line = plain(header);
    for (const [kind, rows] of Object.entries(kinds)) line[kind] = rows.map(plain);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    line = { code: error.code, message: error.message };
  }
  process.stdout.write(JSON.stringify(line) + "\n");
}
