// A signal over time: both rates, their ratio, the evidence against its threshold. Drawn by uPlot in the page's colours.
(() => {
  "use strict";
  const root = document.getElementById("charts");
  const names = { trial: root.dataset.trial, control: root.dataset.control };
  const EVERY_MS = 2000;
  let plots = [];
  let last = null;

  const colour = (() => {
    const probe = document.createElement("i");
    probe.hidden = true;
    document.body.append(probe);
    return (name) => {
      probe.className = `probe-${name}`;
      return getComputedStyle(probe).color;
    };
  })();
  const faded = (rgb, alpha) => rgb.replace(/^rgb\(([^)]+)\)$/, `rgba($1, ${alpha})`);
  const percent = (v) => (v == null ? "–" : `${+(100 * v).toPrecision(3)} %`);
  const times = (v) => (v == null ? "–" : `${+v.toPrecision(2)}×`);
  const figure = (unit) => (v) => (v == null ? "–" : unit === "share" ? percent(v) : `${+v.toPrecision(3)} ${unit}`);
  const odds = (v) => (v == null ? "–" : v >= 5 ? `10^${v.toFixed(1)}` : `${+(10 ** v).toPrecision(2)}`);

  const clock = (t) => new Date(t * 1000).toISOString();
  const ticks = (_, splits) => splits.map((t, i) => (clock(t).slice(11, 16) === "00:00" || splits.at(-1) - splits[0] > 172800 ? clock(t).slice(5, 10) : clock(t).slice(11, 16)));
  const axes = (values, splits) => {
    const ink = colour("soft");
    const grid = { stroke: colour("line"), width: 1 };
    const font = "12px system-ui, sans-serif";
    return [
      { stroke: ink, grid, ticks: grid, font, space: 70, values: ticks },
      { stroke: ink, grid, ticks: grid, font, size: 62, values: (_, marks) => marks.map(values), ...(splits && { splits, filter: (_, marks) => marks }) },
    ];
  };
  const line = (label, name, value, more = {}) => ({
    label, stroke: colour(name), width: 2, points: { show: false }, ...more,
    value: (plot, v, at, i) => value(i == null ? plot.data[at].at(-1) : v),
  });
  const when = { value: (plot, v) => `${clock(v ?? plot.data[0].at(-1)).slice(0, 16).replace("T", " ")} UTC`, label: "At" };
  const settled = (values) => values.slice(Math.floor(values.length * 0.3)).filter((v) => v != null);
  const edge = (value, name) => ({ label: "", stroke: faded(colour(name), 0.35), width: 1, points: { show: false }, value: (_, v) => value(v), class: "edge" });
  const DASH = [6, 4];

  function rates(data) {
    const value = figure(data.unit);
    return {
      data: [data.at, data.trial_high, data.trial_low, data.control_high, data.control_low, data.trial, data.control],
      axes: axes(value),
      scales: { y: { range: (plot) => [0, Math.max(1e-6, ...[1, 3, 5, 6].flatMap((i) => settled(plot.data[i]))) * 1.08] } },
      series: [when, edge(value, "a"), edge(value, "a"), edge(value, "soft"), edge(value, "soft"),
        line(names.trial, "a", value), line(names.control, "soft", value, { dash: DASH })],
      bands: [{ series: [1, 2], fill: faded(colour("a"), 0.14) }, { series: [3, 4], fill: faded(colour("soft"), 0.16) }],
    };
  }

  function ratio(data) {
    const low = data.low.map((v, i) => v ?? (data.ratio[i] == null ? null : 0.05));
    const high = data.high.map((v, i) => v ?? (data.ratio[i] == null ? null : 20));
    const kept = (v) => (v == null ? null : Math.min(20, Math.max(0.05, v)));
    return {
      data: [data.at, high.map(kept), low.map(kept), data.ratio.map(kept), data.at.map(() => 1)],
      axes: axes(times, (plot) => [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20].filter((v) => v >= plot.scales.y.min && v <= plot.scales.y.max)),
      scales: { y: { distr: 3, log: 10, range: (plot) => [Math.min(0.45, ...settled(plot.data[2])) * 0.9, Math.max(2.2, ...settled(plot.data[1])) * 1.1] } },
      series: [when, edge(times, "a"), edge(times, "a"), line("times as often", "a", times), line("the same", "soft", times, { dash: DASH, width: 1 })],
      bands: [{ series: [1, 2], fill: faded(colour("a"), 0.16) }],
    };
  }

  function evidence(data) {
    const limit = Math.max(0, ...data.threshold.filter((v) => v != null));
    return {
      data: [data.at, data.evidence, data.threshold],
      axes: axes(odds),
      scales: { y: { range: (_, low, high) => [Math.min(-0.5, low ?? 0), Math.max(limit, high ?? 0) * 1.12 + 0.1] } },
      series: [when, line("e-value", "a", odds, { fill: faded(colour("a"), 0.1) }), line("goes back at", "fail", odds, { dash: [10, 5] })],
      bands: [],
    };
  }

  const DRAWN = { rates, ratio, evidence };

  function steps(plot) {
    const { ctx, bbox } = plot;
    const { at, share } = last;
    ctx.save();
    ctx.strokeStyle = colour("line");
    ctx.fillStyle = colour("soft");
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    for (let i = 1; i < at.length; i++) {
      if (share[i] === share[i - 1]) continue;
      const x = Math.round(plot.valToPos(at[i], "x", true));
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.fillText(percent(share[i]), x + 4, bbox.top + 12 * devicePixelRatio);
    }
    ctx.restore();
  }

  function draw() {
    for (const one of plots) one.destroy();
    plots = [];
    for (const place of root.querySelectorAll("[data-chart]")) {
      place.replaceChildren();
      place.classList.toggle("waiting", !last || last.at.length < 2);
      if (!last || last.at.length < 2) {
        place.textContent = "The chart begins with the second minute of the trial.";
        continue;
      }
      const made = DRAWN[place.dataset.chart](last);
      const size = { width: place.clientWidth, height: 230 };
      const scales = { x: { time: true }, ...made.scales };
      const hooks = { drawClear: [steps] };
      const cursor = { drag: { x: false, y: false }, points: { show: false } };
      plots.push(new uPlot({ ...size, ...made, scales, hooks, cursor, legend: { live: true, markers: { width: 2, dash: (u, i) => (u.series[i].dash ? "dashed" : "solid") } }, tzDate: (t) => uPlot.tzDate(new Date(t * 1000), "UTC") }, made.data, place));
    }
  }

  let mark = "";
  async function load() {
    if (document.hidden) return;
    try {
      const told = await fetch(root.dataset.src, { headers: { Accept: "application/json" } });
      if (!told.ok) return;
      const text = await told.text();
      if (text === mark) return;
      mark = text;
      last = JSON.parse(text);
    } catch {
      return;
    }
    root.dataset.points = last.at.length;
    root.dataset.until = last.at.at(-1) ?? "";
    if (plots.length && last.at.length > 1) {
      for (const [i, place] of [...root.querySelectorAll("[data-chart]")].entries()) plots[i].setData(DRAWN[place.dataset.chart](last).data);
    } else draw();
  }

  load();
  setInterval(load, EVERY_MS);
  document.addEventListener("visibilitychange", load);
  document.addEventListener("themed", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (root.clientWidth !== width) {
      width = root.clientWidth;
      draw();
    }
  }).observe(root);
})();
