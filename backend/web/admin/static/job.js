// Answers the eta slider of a job's page.
"use strict";

const slider = document.getElementById("eta");
let onTold = null;

{
  let known = null;
  let drawFigure = null;

  // The same as `winner` and `eta_line` in plots.py; a test holds them together.
  const costAt = (eta, size) => eta * size.energy + (1 - eta) * known.max_power * size.time;

  const winner = (eta) =>
    known.sizes.reduce((best, size) => (best === null || costAt(eta, size) < costAt(eta, best) ? size : best), null);

  const etaLine = (eta, best) => {
    const times = known.sizes.map((size) => size.time);
    const energies = known.sizes.map((size) => size.energy);
    let [least, most] = [Math.min(...times), Math.max(...times)];
    const [lowest, highest] = [Math.min(...energies), Math.max(...energies)];
    if (eta === 0) return { x: [best.time, best.time], y: [lowest, highest] };
    const price = (1 - eta) * known.max_power;
    const cost = costAt(eta, best);
    if (price > 0) {
      least = Math.max(least, (cost - eta * highest) / price);
      most = Math.min(most, (cost - eta * lowest) / price);
    }
    return { x: [least, most], y: [least, most].map((time) => (cost - price * time) / eta) };
  };

  const scaled = (value, units) => {
    const [name, factor] = units.find(([, least]) => value >= least) ?? units.at(-1);
    return `${Number((value / factor).toPrecision(4))} ${name}`;
  };
  const joules = (value) => scaled(value, [["GJ", 1e9], ["MJ", 1e6], ["kJ", 1e3], ["J", 1]]);
  const seconds = (value) => scaled(value, [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]);

  const answer = () => {
    if (known === null) return;
    const eta = Number(slider.value);
    const best = winner(eta);
    document.getElementById("eta-value").value = eta.toFixed(2);
    const says = best === null
      ? "Nothing has converged yet."
      : `At eta ${eta.toFixed(2)}, batch size ${best.batch_size} would be the cheapest: ${joules(best.energy)} in ${seconds(best.time)} a run.`;
    const line = document.getElementById("eta-says");
    if (line.textContent !== says) line.textContent = says;
    if (best === null) return;
    const figure = structuredClone(known.figures.energy);
    Object.assign(figure.data.find((trace) => trace.name === "equal cost"), etaLine(eta, best));
    drawFigure("energy", figure);
  };

  onTold = (told, draw) => {
    if (known === null) slider.value = told.eta;
    [known, drawFigure] = [told, draw];
    answer();
  };
  slider.addEventListener("input", answer);
}
