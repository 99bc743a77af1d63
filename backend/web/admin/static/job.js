// The eta slider of a job's page.
"use strict";

const slider = document.getElementById("eta");
let onFigures = null; // called by figures.js

{
  let data = null;
  let drawFigure = null;

  // The same formulas as `winner` and `eta_line` in plots.py. A browser test compares them.
  const costAt = (eta, size) => eta * size.energy + (1 - eta) * data.max_power * size.time;

  const winner = (eta) =>
    data.sizes.reduce((best, size) => (best === null || costAt(eta, size) < costAt(eta, best) ? size : best), null);

  const etaLine = (eta, best) => {
    const times = data.sizes.map((size) => size.time);
    const energies = data.sizes.map((size) => size.energy);
    let [minTime, maxTime] = [Math.min(...times), Math.max(...times)];
    const [minEnergy, maxEnergy] = [Math.min(...energies), Math.max(...energies)];
    if (eta === 0) return { x: [best.time, best.time], y: [minEnergy, maxEnergy] };
    const price = (1 - eta) * data.max_power;
    const cost = costAt(eta, best);
    if (price > 0) {
      minTime = Math.max(minTime, (cost - eta * maxEnergy) / price);
      maxTime = Math.min(maxTime, (cost - eta * minEnergy) / price);
    }
    return { x: [minTime, maxTime], y: [minTime, maxTime].map((time) => (cost - price * time) / eta) };
  };

  const withUnit = (value, units) => {
    const [name, factor] = units.find(([, smallest]) => value >= smallest) ?? units.at(-1);
    return `${Number((value / factor).toPrecision(4))} ${name}`;
  };
  const joules = (value) => withUnit(value, [["GJ", 1e9], ["MJ", 1e6], ["kJ", 1e3], ["J", 1]]);
  const seconds = (value) => withUnit(value, [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]);

  const update = () => {
    if (data === null) return;
    const eta = Number(slider.value);
    const best = winner(eta);
    document.getElementById("eta-value").value = eta.toFixed(2);
    const text = best === null
      ? "No run has converged yet."
      : `At eta ${eta.toFixed(2)}, batch size ${best.batch_size} would be the cheapest: ${joules(best.energy)} in ${seconds(best.time)} per run.`;
    const line = document.getElementById("eta-says");
    if (line.textContent !== text) line.textContent = text;
    if (best === null) return;
    const figure = structuredClone(data.figures.energy);
    Object.assign(figure.data.find((trace) => trace.name === "equal cost"), etaLine(eta, best));
    drawFigure("energy", figure);
  };

  onFigures = (newData, draw) => {
    if (data === null) slider.value = newData.eta;
    [data, drawFigure] = [newData, draw];
    update();
  };
  slider.addEventListener("input", update);
}
