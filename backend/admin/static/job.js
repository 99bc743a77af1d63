// Draws a job's figures, answers the eta slider, and keeps what is running up to date. Every number comes from the server.
"use strict";

const REFRESH_MS = 5000;
const holder = document.getElementById("plots");
const slider = document.getElementById("eta");
let told = null;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function draw(id, figure) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
  const layout = {
    ...figure.layout,
    xaxis: { ...axis, ...figure.layout.xaxis },
    yaxis: { ...axis, ...figure.layout.yaxis },
    font: { color: colour("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 60, r: 10, t: 20, b: 45 },
    legend: { orientation: "h", y: -0.25 },
  };
  Plotly.react(id, figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
}

// The same as `winner` in plots.py; a test holds the two together.
function winner(eta) {
  const cost = (size) => eta * size.energy + (1 - eta) * told.max_power * size.time;
  return told.sizes.reduce((best, size) => (best === null || cost(size) < cost(best) ? size : best), null);
}

function answerSlider() {
  const eta = Number(slider.value);
  const best = winner(eta);
  document.getElementById("eta-value").value = eta.toFixed(2);
  const says = best === null
    ? "Nothing has converged yet."
    : `At eta ${eta.toFixed(2)}, batch size ${best.batch_size} would be the cheapest: ${best.energy.toPrecision(4)} J in ${best.time.toPrecision(4)} s a run.`;
  document.getElementById("eta-says").textContent = says;
  if (best === null) return;
  const figure = structuredClone(told.figures.energy);
  const cost = eta * best.energy + (1 - eta) * told.max_power * best.time;
  const line = figure.data.find((trace) => trace.name === "equal cost");
  const times = told.sizes.map((size) => size.time);
  const energies = told.sizes.map((size) => size.energy);
  line.x = eta === 0 ? [best.time, best.time] : [Math.min(...times), Math.max(...times)];
  line.y = eta === 0
    ? [Math.min(...energies), Math.max(...energies)]
    : line.x.map((time) => (cost - (1 - eta) * told.max_power * time) / eta);
  draw("energy", figure);
}

async function refresh() {
  const answer = await fetch(holder.dataset.url, { headers: { Accept: "application/json" } });
  if (!answer.ok || answer.redirected) return;
  const before = told;
  told = await answer.json();
  for (const [id, figure] of Object.entries(told.figures)) if (id !== "energy") draw(id, figure);
  if (before === null) slider.value = told.eta;
  draw("energy", told.figures.energy);
  answerSlider();
  for (const trial of told.running) {
    const row = document.querySelector(`#trials tr[data-trial="${trial.number}"]`);
    if (row) for (const cell of row.querySelectorAll("[data-field]")) cell.textContent = trial[cell.dataset.field];
  }
  const ended = before && (before.total !== told.total || before.running.length !== told.running.length);
  if (ended && !document.activeElement.closest("form")) location.reload(); // the table has other rows now
  holder.dataset.drawn = "yes";
}

slider.addEventListener("input", answerSlider);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
setInterval(() => { if (!document.hidden && told !== null) refresh(); }, REFRESH_MS);
refresh();
