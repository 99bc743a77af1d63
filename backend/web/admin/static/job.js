// The controls of a job's figures: the slider of eta, the axes, and the trials whose metric is shown.
"use strict";

const slider = document.getElementById("eta");
let onFigures = null; // called by figures.js
let shapeFigure = null; // called by figures.js

{
  const byTime = document.getElementById("by-time");
  const logarithmic = document.getElementById("logarithmic");
  const curves = document.getElementById("curve-trials");
  let hasChosen = false; // before that, the server says which axis suits the costs

  // Plotly knows no zones, so it gets times as this browser's clock shows them.
  const local = (text) => {
    if (text === null) return null;
    const at = new Date(text);
    return new Date(at - at.getTimezoneOffset() * 60e3).toISOString().slice(0, -1);
  };

  const withTimes = (figure) => {
    figure.data = figure.data.map((trace) => ({ ...trace, x: trace.meta.times.map(local) }));
    figure.layout.xaxis = { ...figure.layout.xaxis, type: "date", dtick: null, title: { text: "end of the trial" } };
  };

  shapeFigure = (id, original) => {
    const figure = { ...original, layout: { ...original.layout } };
    if (byTime.checked && ["costs", "savings"].includes(id)) withTimes(figure);
    if (["costs", "beliefs"].includes(id)) {
      if (hasChosen) figure.layout.yaxis = { ...figure.layout.yaxis, type: logarithmic.checked ? "log" : "linear" };
      else logarithmic.checked ||= figure.layout.yaxis.type === "log";
    }
    return figure;
  };

  byTime.addEventListener("change", () => drawAll());
  logarithmic.addEventListener("change", () => {
    hasChosen = true;
    drawAll();
  });
  const address = document.getElementById("plots").dataset.figures;
  curves.addEventListener("change", () => showFigures(`${address}&trials=${encodeURIComponent(curves.value)}`));}

{
  let data = null;
  let drawFigure = null;

  // The same formulas as `winner`, `limits` and `eta_line` in plots.py. A browser test compares them.
  const costAt = (eta, size) => eta * size.energy + (1 - eta) * data.max_power * size.time;

  const winner = (eta) =>
    data.sizes.reduce((best, size) => (best === null || costAt(eta, size) < costAt(eta, best) ? size : best), null);

  const limits = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = 0.1 * (high - low || Math.abs(high) || 1);
    return [low - margin, high + margin];
  };

  const etaLine = (eta, best) => {
    let [minTime, maxTime] = limits(data.sizes.map((size) => size.time));
    const [minEnergy, maxEnergy] = limits(data.sizes.map((size) => size.energy));
    if (eta === 0) return { x: [best.time, best.time], y: [minEnergy, maxEnergy] };
    const price = (1 - eta) * data.max_power;
    const cost = costAt(eta, best);
    if (price > 0) {
      minTime = Math.max(minTime, (cost - eta * maxEnergy) / price);
      maxTime = Math.min(maxTime, (cost - eta * minEnergy) / price);
    }
    return { x: [minTime, maxTime], y: [minTime, maxTime].map((time) => (cost - price * time) / eta) };
  };

  const update = () => {
    if (data === null) return;
    const eta = Number(slider.value);
    const best = winner(eta);
    document.getElementById("eta-value").value = eta.toFixed(2);
    const text = best === null
      ? "No run has converged yet."
      : `At eta ${eta.toFixed(2)}, batch size ${best.batch_size} would be the cheapest: ${best.says} per run.`;
    const line = document.getElementById("eta-says");
    if (line.textContent !== text) line.textContent = text;
    if (best === null) return;
    const figure = structuredClone(data.figures.energy);
    const { x, y } = etaLine(eta, best);
    const unit = figure.layout.meta.seconds;
    Object.assign(figure.data.find((trace) => trace.name === "equal cost"), { x: x.map((time) => time / unit), y });
    drawFigure("energy", figure);
  };

  onFigures = (newData, draw) => {
    if (data === null) slider.value = newData.eta;
    [data, drawFigure] = [newData, draw];
    update();
  };
  slider.addEventListener("input", update);
}
