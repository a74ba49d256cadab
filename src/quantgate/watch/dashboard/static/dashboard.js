// What stands in the pages already is kept live: parts are asked for while somebody looks, times are told as "ago",
// a button's confirmation opens as a dialog. Without this file every page and every form works all the same.
(() => {
  "use strict";
  const THEMES = ["auto", "light", "dark"];
  const NAMES = { auto: "Auto", light: "Light", dark: "Dark" };
  const root = document.documentElement;

  const theme = document.getElementById("theme");
  const shown = () => root.dataset.theme || "auto";
  const label = () => {
    theme.querySelector("span").textContent = NAMES[shown()];
    theme.setAttribute("aria-label", `Colours: ${shown() === "auto" ? "as the system has them" : shown()}`);
  };
  theme.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(shown()) + 1) % THEMES.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem("quantgate-theme", next);
    } catch {}
    label();
    document.dispatchEvent(new CustomEvent("themed"));
  });
  label();

  const span = (s) => {
    if (s < 5) return "just now";
    if (s < 60) return `${Math.floor(s)} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min ago`;
    return `${Math.floor(s / 86400)} days ago`;
  };
  const tell = () => {
    for (const one of document.querySelectorAll("time[data-ago]")) {
      const text = span(Math.max(0, (Date.now() - Date.parse(one.dateTime)) / 1000));
      if (one.textContent !== text) one.textContent = text;
    }
  };
  tell();
  setInterval(tell, 1000);

  const dialog = document.getElementById("dialog");
  const lost = document.getElementById("lost");
  let opener = null;
  const polls = (part) => part.hasAttribute("data-mark");

  document.addEventListener("htmx:confirm", (event) => {
    if (polls(event.target) && document.hidden) event.preventDefault();
  });
  document.addEventListener("htmx:configRequest", (event) => {
    if (polls(event.target)) event.detail.headers["X-Seen"] = event.target.dataset.mark;
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) for (const one of document.querySelectorAll("[data-mark]")) htmx.trigger(one, "wake");
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const asked = event.detail.xhr;
    if (asked.status === 401) location.assign("/dashboard/login");
    if (!polls(event.target)) return;
    lost.hidden = asked.status > 0 && asked.status < 500;
    const mark = asked.getResponseHeader("x-mark");
    if (mark) event.target.dataset.mark = mark;
  });
  // What somebody opened stays open through an update.
  const open = new Set();
  document.addEventListener("toggle", (event) => event.target.id && event.isTrusted && (event.target.open ? open.add(event.target.id) : open.delete(event.target.id)), true);
  const reopen = () => open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.target === dialog) opener = event.target.id;
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    tell();
    reopen();
    if (event.detail.target !== dialog || dialog.open) return;
    dialog.showModal();
    (dialog.querySelector("[autofocus]") || dialog.querySelector("input:not([type=hidden]), a, button")).focus();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("[data-close]")) {
      event.preventDefault();
      dialog.close();
    }
  });
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    document.getElementById(opener)?.focus();
  });
  for (const form of document.querySelectorAll("form")) once(form);
  dialog.addEventListener("submit", (event) => guard(event));
  function once(form) {
    form.addEventListener("submit", guard);
  }
  function guard(event) {
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
  }
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });

  // A link from elsewhere does not carry the strict cookie, so a session may be there although we were sent here.
  const login = document.querySelector("form[data-who]");
  if (login) fetch(login.dataset.who).then((told) => told.json()).then((told) => told.in && location.replace("/dashboard"));
})();
