// The market watch of this browser's session: the star, and the list "Watched".

import { byId, press } from "./dom.js";
import * as http from "./http.js";

const AGAIN_MS = 300;

export class Watched {
  /** Symbols in their order; null where the engine has no market watch. */
  names = null;
  #told;
  #timer;

  /** `told`: changed(), the names are others; refused(name, words); shown(), the symbol that is shown. */
  constructor(told) {
    this.#told = told;
  }

  has(name) {
    return this.names?.includes(name) ?? false;
  }

  async read() {
    const before = String(this.names);
    const found = await http.attempt(http.watched);
    this.names = found?.symbols ?? null; // without, the page does without
    byId("lists").hidden = byId("star").hidden = this.names === null;
    if (String(this.names) !== before) this.#changed();
  }

  /** It was changed, here or elsewhere. */
  readSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.names && this.read(), AGAIN_MS);
  }

  async toggle(name) {
    if (!name || !this.names) return;
    const on = !this.has(name), before = this.names;
    this.names = on ? [...before, name] : before.filter((other) => other !== name);
    this.#changed();
    await http.attempt(() => http.watch(name, on), (error) => {
      this.names = before;
      this.#told.refused(name, error.message);
      this.#changed();
    });
  }

  #changed() {
    this.draw();
    this.#told.changed();
  }

  draw() {
    press(byId("star"), this.has(this.#told.shown()));
  }
}
