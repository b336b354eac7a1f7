// Log-in, keys and notices.

import * as http from "./http.js";

const byId = (id) => document.getElementById(id);
const NAME = "tradeback.user";

function remembered(name) {
  try {
    if (name === undefined) return localStorage.getItem(NAME);
    if (name === null) localStorage.removeItem(NAME);
    else localStorage.setItem(NAME, name);
  } catch {
    // storage is switched off: the page works without
  }
  return null;
}

/** The form, whenever the engine wants a log-in; afterwards the page begins anew. */
export function offerLogIn() {
  const dialog = byId("login"), form = byId("login-form"), button = form.querySelector("button");
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { username, password } = Object.fromEntries(new FormData(form));
    byId("login-error").textContent = "";
    button.disabled = true;
    try {
      const user = await http.logIn(username, password);
      remembered(user.username);
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
    if (!dialog.open) dialog.showModal();
  });
  byId("log-out").addEventListener("click", async () => {
    await http.logOut().catch(() => {});
    remembered(null);
    location.reload();
  });
  showAccount();
}

/** Who is logged in; asked only when somebody did so here. */
async function showAccount() {
  if (!remembered()) return;
  try {
    byId("account-name").textContent = (await http.session()).username;
    byId("account").hidden = false;
  } catch {
    remembered(null);
  }
}

export function toggleAbout() {
  const dialog = byId("about");
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

export function offerAbout() {
  byId("help").addEventListener("click", toggleAbout);
  const dialog = byId("about");
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
}

/** Dark or light, remembered in this browser. */
export function toggleTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("tradeback.theme", root.dataset.theme);
  } catch {
    // storage is switched off: it lasts as long as the page
  }
}
