// The few things that a page cannot do by itself: the theme, the key "/", lists that submit, and saying that nobody answers.
"use strict";

const root = document.documentElement;

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

document.addEventListener("click", (event) => {
  if (!event.target.closest("#theme")) return;
  root.dataset.theme = isDark() ? "light" : "dark";
  document.cookie = `theme=${root.dataset.theme}; Path=/; Max-Age=31536000; SameSite=Lax`;
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const search = document.getElementById("search");
  if (search) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submits]")) event.target.form.requestSubmit();
});

function say(failed) {
  const outage = document.getElementById("outage");
  if (!outage) return;
  if (failed && outage.hidden) outage.querySelector("span").textContent = new Date().toISOString().slice(11, 19) + "Z";
  outage.hidden = !failed;
}

for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, () => say(true));
}
document.addEventListener("htmx:afterOnLoad", (event) => {
  if (event.detail.xhr.status < 400) say(false);
});
