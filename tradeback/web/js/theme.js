// Before anything is painted: the theme that was chosen here, else the system's.
{
  const chosen = (() => {
    try {
      return localStorage.getItem("tradeback.theme");
    } catch {
      return null; // storage is switched off
    }
  })();
  const dark = !matchMedia("(prefers-color-scheme: light)").matches;
  document.documentElement.dataset.theme = chosen === "light" || chosen === "dark" ? chosen : dark ? "dark" : "light";
}
