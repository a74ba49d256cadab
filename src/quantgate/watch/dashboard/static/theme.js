// Before the first paint: the colours that this browser was told, else the system's.
(() => {
  try {
    const told = localStorage.getItem("quantgate-theme");
    if (told === "light" || told === "dark") document.documentElement.dataset.theme = told;
  } catch {}
})();
