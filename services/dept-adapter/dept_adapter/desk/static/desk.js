// Everything works without this script; with it, the keyboard and a preview that follows what is typed.
"use strict";
document.documentElement.classList.add("js");
const OFF = "xinfu-desk-keys-off";
const keysOff = () => localStorage.getItem(OFF) === "yes";
const rows = () => [...document.querySelectorAll("[data-row] a.open")];
const isTyping = (element) => element.matches("input:not([type=checkbox]), textarea, select, [contenteditable]");

function moveRow(step) {
  const links = rows();
  if (!links.length) return false;
  const at = links.findIndex((link) => link.closest("[data-row]").contains(document.activeElement));
  links[at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + step, 0), links.length - 1)].focus();
  return true;
}

function pressed(key) {
  if ((key === "j" || key === "k") && moveRow(key === "j" ? 1 : -1)) return true;
  if (key === " ") {
    const row = document.activeElement.closest("[data-row]");
    const box = row && row.querySelector("input[type=checkbox]");
    if (!box || document.activeElement === box) return false;
    box.checked = !box.checked;
    return true;
  }
  const target = [...document.querySelectorAll("[data-key]")].find((element) => element.dataset.key === key);
  if (!target) return false;
  // a link only leads to a form; nothing is decided by a letter
  if (target.tagName === "A") target.click();
  else target.focus();
  return true;
}

document.addEventListener("keydown", (event) => {
  const typing = isTyping(event.target);
  if (event.key === "Enter" && event.ctrlKey && event.target.tagName === "TEXTAREA" && event.target.form) {
    event.preventDefault();
    event.target.form.requestSubmit();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat || event.defaultPrevented) return;
  if (event.key === "Escape" && typing) {
    event.target.blur();
    return;
  }
  if (typing || keysOff()) return;
  if (pressed(event.key)) event.preventDefault();
});

for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", () => {
    // after the browser has read which button it was
    setTimeout(() => form.querySelectorAll("button").forEach((button) => { button.disabled = true; }), 0);
  });
}
// a page shown again from the browser's memory can be used again
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

const all = document.querySelector("[data-all]");
if (all) {
  all.addEventListener("change", () => {
    document.querySelectorAll("input[name=item]").forEach((box) => { box.checked = all.checked; });
  });
}

const written = document.querySelector("form[data-preview]");
const shown = document.getElementById("preview");
if (written && shown) {
  let waiting, asked = 0;
  const show = async () => {
    const mine = ++asked;
    const body = new FormData(written);
    body.append("fragment", "yes");
    const answer = await fetch(written.dataset.preview, { method: "POST", body: new URLSearchParams(body) }).catch(() => null);
    // what is here now is ours: the server has escaped what people wrote
    if (answer && answer.ok && mine === asked) shown.innerHTML = await answer.text();
  };
  written.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(show, 350); });
}

const toggle = document.querySelector("[data-toggle-keys]");
if (toggle) {
  const say = () => {
    toggle.setAttribute("aria-pressed", String(!keysOff()));
    toggle.textContent = `字母快捷键：${keysOff() ? "关" : "开"}`;
  };
  toggle.addEventListener("click", () => { localStorage.setItem(OFF, keysOff() ? "no" : "yes"); say(); });
  say();
}
