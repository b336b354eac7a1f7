import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { linkState } from "../../../tradeback/web/js/head.js";
import { attempt, HttpError, passes, persist } from "../../../tradeback/web/js/http.js";
import { actionsOf } from "../../../tradeback/web/js/keys.js";

const well = { status: "ok", history: "ok", troubles: [], waiting_for: [], gaps: { open: 0 } };
const facts = { feed: "open", downMs: 0, stats: well, silentMs: 300 };

test("the state of the connection is said in words, the worst first", () => {
  const words = (more) => linkState({ ...facts, ...more });
  assert.deepEqual(words({}), ["live", "live", ""]);
  assert.deepEqual(words({ feed: "connecting", downMs: 4_400 }), ["down", "no connection, trying again", "4 s"]);
  assert.deepEqual(words({ feed: "connecting" }), ["connecting", "connecting", ""]);
  const early = { feed: "closed", stats: { ...well, waiting_for: ["symbols"] } };
  assert.deepEqual(words(early), ["degraded", "waiting: symbols", ""], "it says why nothing comes");
  assert.equal(words({ silentMs: 9_000 })[2], "9 s", "an engine that says nothing of itself is no healthy one");
  assert.equal(words({ silentMs: 9_000 })[0], "degraded");
  assert.equal(words({ stats: { ...well, gaps: { open: 2 } } })[1], "live, repairing 2 gaps");
  assert.equal(words({ stats: { ...well, waiting_for: ["kernels"], gaps: { open: 2 } } })[1], "waiting: kernels");
  const ill = { ...well, status: "degraded", troubles: [{ name: "line:a:trade:0", state: "down" }] };
  assert.equal(words({ stats: ill })[1], "live, line:a:trade:0 down");
  assert.equal(words({ stats: null, silentMs: null })[0], "live", "before the first answer");
});

test("what the engine refuses is asked no more, what passes is", async () => {
  assert.deepEqual([0, 429, 503, 500].map((status) => passes({ status })), [true, true, true, true]);
  assert.deepEqual([400, 401, 403, 404].map((status) => passes({ status })), [false, false, false, false]);
  let asked = 0;
  const found = await persist(async () => {
    if (++asked < 2) throw new HttpError(503, "not_ready", "wait");
    return "there";
  }, {});
  assert.deepEqual([found, asked], ["there", 2]);
  await assert.rejects(persist(async () => { throw new HttpError(404, "unknown_symbol", "no"); }, {}));
});

test("an answer that does not come is undefined, a mistake is not hidden", async () => {
  const heard = [];
  const refused = async () => { throw new HttpError(403, "forbidden", "no"); };
  assert.equal(await attempt(refused, (error) => heard.push(error.status)), undefined);
  assert.deepEqual(heard, [403]);
  await assert.rejects(attempt(async () => { throw new TypeError("ours"); }), TypeError);
});

test("every key does something, and every one is in the list of keys", () => {
  const page = {}, chart = {}, done = [];
  for (const name of ["step", "nextLevels", "togglePane", "nextTheme", "toggleWatch", "change"]) {
    page[name] = (what) => done.push(`${name} ${JSON.stringify(what) ?? ""}`.trim());
  }
  for (const name of ["pan", "zoom", "toNow"]) chart[name] = (by) => done.push(`${name} ${by ?? ""}`.trim());
  const actions = actionsOf({ ...page, chart });
  const html = readFileSync(new URL("../../../tradeback/web/index.html", import.meta.url), "utf8");
  const listed = html.slice(html.indexOf('<dl class="keys">')).split("</dl>")[0];
  const signs = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", "-": "−" };
  const unsaid = ["k", "j", "=", "2", "3", "4", "5", "6"]; // as in editors; beside "+"; "1 to 7"
  for (const key of Object.keys(actions)) {
    assert.ok(unsaid.includes(key) || listed.includes(`<kbd>${signs[key] ?? key}</kbd>`), key);
    if (!["?", "/"].includes(key)) actions[key]();
  }
  assert.equal(new Set(done).size, Object.keys(actions).length - 2 - 3, "k, j and = are doubles");
  assert.ok(done.includes('change {"resolution":"1d"}'));
});
