// What several parts do with the document.

export const byId = (id) => document.getElementById(id);

/** Text into an element, or into the one with this id. The document is touched only when it changes. */
export function put(element, text) {
  const found = typeof element === "string" ? byId(element) : element;
  if (found.textContent !== text) found.textContent = text;
}

/** A button that stays down. */
export function press(button, on) {
  button.setAttribute("aria-pressed", String(on));
}

/** A new element with a class and a text. */
export function made(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** What this browser keeps under a name; null when it keeps nothing, or may not. */
export function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // storage is switched off
  }
}

/** Have this browser keep a text, or forget it (null). Where storage is off it lasts as long as the page. */
export function keep(name, text) {
  try {
    if (text === null) localStorage.removeItem(name);
    else localStorage.setItem(name, text);
  } catch {
    // storage is switched off: the page works without
  }
}
