// Keys and buttons: what each does to the page.

import { mustLogIn, singleKeys, toggleAbout } from "./dialogs.js";
import { byId } from "./dom.js";
import { RESOLUTIONS } from "./view_state.js";

/** Key -> what it does. Digits choose the resolution. */
export function actionsOf(page) {
  const actions = {
    ArrowUp: () => page.step(-1), ArrowDown: () => page.step(1), k: () => page.step(-1), j: () => page.step(1),
    ArrowLeft: () => page.chart.pan(-10), ArrowRight: () => page.chart.pan(10),
    "+": () => page.chart.zoom(1.25), "=": () => page.chart.zoom(1.25), "-": () => page.chart.zoom(0.8),
    End: () => page.chart.toNow(), f: () => page.nextLevels(), e: () => page.togglePane("enigma"),
    l: () => page.togglePane("latency"), t: () => page.nextTheme(), w: () => page.toggleWatch(),
    "?": toggleAbout, "/": () => byId("find").focus(),
  };
  RESOLUTIONS.forEach(({ name }, at) => (actions[at + 1] = () => page.change({ resolution: name })));
  return actions;
}

/** Have keys and buttons act. */
export function listen(page) {
  for (const { name } of RESOLUTIONS) {
    const button = byId("resolutions").appendChild(document.createElement("button"));
    button.type = "button";
    button.dataset.name = button.textContent = name;
    button.addEventListener("click", () => page.change({ resolution: name }));
  }
  for (const button of byId("lists").children) {
    button.addEventListener("click", () => page.change({ list: button.dataset.list }));
  }
  const clicks = {
    levels: () => page.nextLevels(), "enigma-pane": () => page.togglePane("enigma"),
    "latency-pane": () => page.togglePane("latency"), theme: () => page.nextTheme(),
    star: () => page.toggleWatch(), now: () => page.chart.toNow(), newer: () => location.reload(),
  };
  for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", act);
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address holds the view
    byId("chart").focus();
  });
  const find = byId("find");
  find.addEventListener("input", () => page.showList());
  find.addEventListener("keydown", (event) => findKey(page, event));
  const actions = actionsOf(page);
  document.addEventListener("keydown", (event) => pageKey(page, actions, event));
}

function findKey(page, event) {
  const { key, target } = event;
  if (key === "ArrowDown" || key === "ArrowUp") page.step(key === "ArrowDown" ? 1 : -1);
  else if (key === "Enter" || key === "Escape") {
    const [first] = page.list.names;
    target.value = "";
    target.blur();
    page.showList();
    if (key === "Enter" && first) page.select(first);
  } else return;
  event.preventDefault();
}

function pageKey(page, actions, event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || mustLogIn() || byId("about").open) return;
  if (target.matches("input") || (key.length === 1 && !singleKeys())) return;
  if (!Object.hasOwn(actions, key)) return;
  event.preventDefault();
  actions[key]();
}
