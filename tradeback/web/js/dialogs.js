// Log-in, keys, words and notices; dark and light.

import { byId, keep, kept } from "./dom.js";
import * as http from "./http.js";

/** The engine has refused something for want of a log-in. */
let wanted = false;
const USER = "tradeback.user", THEME = "tradeback.theme", NO_KEYS = "tradeback.no-keys";

/** The form, whenever the engine wants a log-in; afterwards the page begins anew. */
export function offerLogIn() {
  const dialog = byId("login"), form = byId("login-form"), button = form.querySelector("button");
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  // A browser lets Esc close a dialog at the second try. There is nothing behind this one.
  dialog.addEventListener("close", () => wanted && dialog.showModal());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { username, password } = Object.fromEntries(new FormData(form));
    byId("login-error").textContent = "";
    button.disabled = true;
    try {
      const user = await http.logIn(username, password);
      keep(USER, user.username);
      location.reload();
    } catch (error) {
      byId("login-error").textContent =
        error.status === 401 ? "This name and password do not fit." : `${error.message}.`;
      form.elements.password.select();
    } finally {
      button.disabled = false;
    }
  });
  http.onUnauthorized(() => {
    wanted = true;
    if (!dialog.open) dialog.showModal();
  });
  byId("log-out").addEventListener("click", async () => {
    await http.attempt(http.logOut);
    keep(USER, null);
    location.reload();
  });
  showAccount();
}

/** Whether the engine waits for a log-in: nothing else has a use then. */
export const mustLogIn = () => wanted;

/** Who is logged in; asked only when somebody did so here. */
async function showAccount() {
  if (!kept(USER)) return;
  const session = await http.attempt(http.session, () => keep(USER, null));
  if (!session) return;
  byId("account-name").textContent = session.username;
  byId("account").hidden = false;
}

export function toggleAbout() {
  const dialog = byId("about");
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

export function offerAbout() {
  byId("help").addEventListener("click", toggleAbout);
  const dialog = byId("about"), keys = byId("single-keys");
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  keys.checked = !kept(NO_KEYS);
  keys.addEventListener("change", () => keep(NO_KEYS, keys.checked ? null : "1"));
}

/** Whether letters and digits act: speech input may speak them by chance. */
export const singleKeys = () => byId("single-keys").checked;

/** Dark or light, remembered in this browser. */
export function toggleTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  keep(THEME, root.dataset.theme);
}

/** As long as nothing was chosen here the page follows the system; `changed` hears of it. */
export function followSystemTheme(changed) {
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", ({ matches }) => {
    if (kept(THEME)) return;
    document.documentElement.dataset.theme = matches ? "light" : "dark";
    changed();
  });
}
