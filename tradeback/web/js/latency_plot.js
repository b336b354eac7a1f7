// p50 and p99 of each hop over the last five minutes, on a logarithmic axis.

import { duration } from "./numbers.js";
import { KEPT } from "./strip.js";

const RIGHT = 76, TOP = 26, BOTTOM = 8;

/** Powers of ten that hold all values: [low, high] exponents. */
export function decades(values) {
  if (!values.length) return [1, 4];
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.ceil(Math.log10(Math.max(...values)));
  return [low, Math.max(high, low + 2)];
}

export function drawLatency(canvas, points, colour) {
  const { clientWidth: width, clientHeight: height } = canvas, ratio = devicePixelRatio;
  if (!width) return;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = `11px ${colour.font}`;
  const hops = ["wire", "engine", "page"];
  const [low, high] = decades(points.flatMap((point) => hops.flatMap((hop) => point[hop] ?? [])));
  const y = (us) => TOP + (height - TOP - BOTTOM) * (1 - (Math.log10(us) - low) / (high - low));
  const x = (at) => ((width - RIGHT) * (at + KEPT - points.length)) / (KEPT - 1);
  for (let power = low; power <= high; power++) {
    context.fillStyle = colour.grid;
    context.fillRect(0, Math.round(y(10 ** power)), width - RIGHT, 1);
    context.fillStyle = colour.text;
    context.fillText(duration(10 ** power).replace(".00", "").replace(".0", ""), width - RIGHT + 8, y(10 ** power) + 4);
  }
  for (const hop of hops) {
    [0, 1].forEach((which) => {
      context.strokeStyle = colour[hop];
      context.globalAlpha = which ? 0.5 : 1;
      context.lineWidth = which ? 1 : 1.6;
      context.beginPath();
      let pen = false;
      points.forEach((point, at) => {
        if (!point[hop]) return void (pen = false);
        context[pen ? "lineTo" : "moveTo"](x(at), y(point[hop][which]));
        pen = true;
      });
      context.stroke();
    });
  }
  context.globalAlpha = 1;
}
