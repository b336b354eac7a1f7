// Numbers as people read them. Pure.

/** "1234567.89" -> "1,234,567.89". `text` is a plain decimal, perhaps with a sign. */
export function grouped(text) {
  const dot = text.indexOf(".");
  const begin = text[0] === "-" ? 1 : 0;
  let at = dot < 0 ? text.length : dot;
  if (at - begin <= 3) return text;
  let made = text.slice(at);
  for (; at - begin > 3; at -= 3) made = `,${text.slice(at - 3, at)}${made}`;
  return text.slice(0, at) + made;
}

/** A price or quantity with a fixed number of decimals; an en dash for what is not known. */
export function fixed(value, digits) {
  return Number.isFinite(value) ? grouped(value.toFixed(digits)) : "–";
}

/** A whole number; an en dash for what is not known. */
export function whole(value) {
  return Number.isFinite(value) ? grouped(String(Math.round(value))) : "–";
}

const STEPS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];

/** Three digits and a letter: 12345 -> "12.3k". */
export function compact(value) {
  if (!Number.isFinite(value)) return "–";
  for (const [unit, letter] of STEPS) {
    if (Math.abs(value) >= unit * 0.9995) return significant(value / unit) + letter;
  }
  return significant(value);
}

function significant(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 4);
}

/** A share with its sign: 0.0123 -> "+1.23 %". */
export function percent(share, digits = 2) {
  if (!Number.isFinite(share)) return "–";
  const text = (100 * share).toFixed(digits);
  const zero = Number(text) === 0;
  return `${zero ? "" : share > 0 ? "+" : "−"}${text.replace("-", "")} %`;
}

/** The class of a share that `percent` writes: up-text, down-text; none for what is shown as zero or not at all. */
export function lookOf(share, digits = 2) {
  const shown = Number((100 * share).toFixed(digits));
  return shown > 0 ? "up-text" : shown < 0 ? "down-text" : "";
}

/** A time span as value and unit: 14 -> ["14", "µs"], 12345 -> ["12.3", "ms"]. */
export function span(us) {
  if (us === null || !Number.isFinite(us)) return ["–", ""];
  const size = Math.abs(us);
  if (size < 999.5) return [us.toFixed(0), "µs"];
  if (size < 9_995) return [(us / 1e3).toFixed(2), "ms"];
  if (size < 99_950) return [(us / 1e3).toFixed(1), "ms"];
  if (size < 999_500) return [(us / 1e3).toFixed(0), "ms"];
  if (size < 99.95e6) return [(us / 1e6).toFixed(1), "s"];
  if (size < 5_970e6) return [(us / 60e6).toFixed(0), "min"];
  if (size < 47 * 3_600e6) return [(us / 3_600e6).toFixed(0), "h"];
  return [(us / 86_400e6).toFixed(0), "d"];
}

/** The same as one text. */
export function duration(us) {
  return span(us).join(" ").trimEnd();
}

const two = (value) => String(value).padStart(2, "0");

/** Unix milliseconds as HH:MM:SS, UTC. */
export function clock(ms) {
  if (!Number.isFinite(ms)) return "–";
  const date = new Date(ms);
  return `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`;
}

/** Unix seconds as the time of a bar of `stepS` seconds, UTC. */
export function barTime(seconds, stepS) {
  const date = new Date(1000 * seconds);
  const day = `${date.getUTCFullYear()}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`;
  if (stepS >= 86_400) return day;
  const minute = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
  return `${day} ${minute}${stepS < 60 ? `:${two(date.getUTCSeconds())}` : ""}`;
}
