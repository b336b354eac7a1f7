// Socket events never draw. They note what has changed, and one animation frame draws it.

export class Frames {
  /** Frames drawn so far, and the longest one's work in ms. */
  count = 0;
  longestMs = 0;
  #draws = new Map();
  #wanted = new Set();
  #asked = false;
  #request;

  constructor(request = (draw) => requestAnimationFrame(draw)) {
    this.#request = request;
  }

  /** `draw(nowMs)` draws the part called `name`, when somebody wants that. Parts draw in this order. */
  add(name, draw) {
    this.#draws.set(name, draw);
  }

  /** Have this part drawn in the next frame. */
  want(name) {
    this.#wanted.add(name);
    if (this.#asked) return;
    this.#asked = true;
    this.#request((nowMs) => this.#draw(nowMs));
  }

  #draw(nowMs) {
    this.#asked = false;
    const wanted = this.#wanted;
    this.#wanted = new Set();
    const begin = performance.now();
    for (const [name, draw] of this.#draws) if (wanted.has(name)) draw(nowMs);
    this.count++;
    this.longestMs = Math.max(this.longestMs, performance.now() - begin);
  }
}
