// Draws the figures of a page and refreshes the page. parts.js replaces the parts.
// Every number comes from the server. A page may define `shapeFigure(id, figure)`, which returns the figure to draw, and
// `onFigures(data, draw)`, which runs after each drawing. A point with a trial's number as custom data leads to it.
"use strict";

const REFRESH_MS = 5000;
const holder = document.querySelector("[data-figures]");
const notice = document.getElementById("notice");
let data = null; // the last answer of the server
let newPage = null; // the newer page, until all of it is shown
let isRefreshing = false;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function draw(id, figure) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
  Object.assign(axis, { ticks: "outside", ticklen: 4, tickcolor: "rgba(0,0,0,0)" }); // labels a little off the axis
  const layout = {
    ...figure.layout,
    xaxis: { ...axis, ...figure.layout.xaxis },
    yaxis: { ...axis, ...figure.layout.yaxis },
    font: { color: colour("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 60, r: 15, t: 25, b: 45 },
    legend: { orientation: "h", y: -0.32 },
    showlegend: true,
  };
  const isNew = document.getElementById(id).data === undefined;
  const plot = Plotly.react(id, figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  if (isNew && holder.dataset.trial !== undefined) plot.then(leadToTrials);
}

function leadToTrials(plot) {
  const trialOf = (event) => event.points[0].customdata;
  const cursor = (event) => (event !== undefined && trialOf(event) !== undefined ? "pointer" : "");
  const layer = () => plot.querySelector(".nsewdrag");
  plot.on("plotly_hover", (event) => (layer().style.cursor = cursor(event)));
  plot.on("plotly_unhover", () => (layer().style.cursor = ""));
  plot.on("plotly_click", (event) => {
    if (trialOf(event) !== undefined) location.assign(`${holder.dataset.trial}&number=${trialOf(event)}`);
  });
}

function drawAll() {
  for (const [id, figure] of Object.entries(data.figures)) {
    draw(id, typeof shapeFigure === "function" ? shapeFigure(id, figure) : figure);
  }
  if (typeof onFigures === "function") onFigures(data, draw);
}

async function refresh() {
  const address = holder.dataset.figures;
  const answer = await getOrSay(data === null ? address : `${address}&since=${holder.dataset.revision}`, notice);
  if (address !== holder.dataset.figures) return refresh(); // others were asked for meanwhile
  if (answer === null) return;
  if (answer.status !== 204) {
    data = await answer.json();
    drawAll();
    if (data.revision !== undefined && String(data.revision) !== holder.dataset.revision) {
      const page = await getNewerPage(notice);
      if (page !== null) {
        newPage = page;
        holder.dataset.revision = data.revision;
      }
    }
  }
  if (newPage !== null && replaceParts(newPage)) newPage = null;
  holder.dataset.drawn = "yes";
}

// Asks for other figures from now on, for example for those of other trials.
function showFigures(address) {
  holder.dataset.figures = address;
  data = null;
  refreshOnce();
}

async function refreshOnce() {
  if (isRefreshing) return;
  isRefreshing = true;
  try {
    await refresh();
  } finally {
    isRefreshing = false;
  }
}

if (holder !== null) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => data !== null && drawAll());
  setInterval(() => {
    if (!document.hidden && (data === null || data.revision !== undefined)) refreshOnce();
  }, REFRESH_MS);
  refreshOnce();
}
