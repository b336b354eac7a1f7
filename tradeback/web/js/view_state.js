// What is shown, as the part of the address behind '#': a view can be linked. Pure.

/** Name, UDF name, seconds. In the order of the keys 1 to 7. */
export const RESOLUTIONS = [
  { name: "1s", udf: "1S", step: 1 },
  { name: "1m", udf: "1", step: 60 },
  { name: "5m", udf: "5", step: 300 },
  { name: "15m", udf: "15", step: 900 },
  { name: "1h", udf: "60", step: 3_600 },
  { name: "4h", udf: "240", step: 14_400 },
  { name: "1d", udf: "1D", step: 86_400 },
];

/** How the Fibonacci levels are drawn: not, where they are in sight, with the scale made to hold them all. */
export const LEVELS = ["off", "on", "fit"];
export const PANES = ["none", "enigma", "latency"];
export const LISTS = ["all", "watch"];

export const DEFAULTS = Object.freeze({
  symbol: "", resolution: "1m", levels: "on", pane: "none", list: "all",
});

const ALLOWED = {
  resolution: RESOLUTIONS.map((resolution) => resolution.name), levels: LEVELS, pane: PANES, list: LISTS,
};

/** "#BTCUSDT/5m/levels=fit" -> a state; what is not understood is left at its default. */
export function parseState(hash) {
  const state = { ...DEFAULTS };
  const [symbol = "", resolution = "", ...rest] = hash.replace(/^#/, "").split("/").map(decode);
  if (symbol.length <= 50) state.symbol = symbol.toUpperCase();
  if (ALLOWED.resolution.includes(resolution)) state.resolution = resolution;
  for (const word of rest) {
    const [name, value] = word.split("=");
    if (ALLOWED[name]?.includes(value)) state[name] = value;
  }
  return state;
}

function decode(word) {
  try {
    return decodeURIComponent(word);
  } catch {
    return "";
  }
}

/** The reverse; defaults are left out, except symbol and resolution. */
export function formatState(state) {
  const words = [encodeURIComponent(state.symbol), state.resolution];
  for (const name of ["levels", "pane", "list"]) {
    if (state[name] !== DEFAULTS[name]) words.push(`${name}=${state[name]}`);
  }
  return `#${words.join("/")}`;
}

/** The following one of `values`, around the end. */
export function next(values, value, by = 1) {
  const at = values.indexOf(value);
  return values[(at + by + values.length) % values.length];
}

export function resolutionOf(name) {
  return RESOLUTIONS.find((resolution) => resolution.name === name) ?? RESOLUTIONS[1];
}
