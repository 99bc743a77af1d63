// Draws a page's figures and keeps it up to date: what is marked data-live is taken anew from the server, by its id.
// Every number comes from the server. A page may take part by a function `onTold(told, draw)`.
"use strict";

const REFRESH_MS = 5000;
const holder = document.querySelector("[data-figures]");
const notice = document.getElementById("notice");
let told = null;
let stale = false; // whether the rest of the page is older than the figures

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
    margin: { l: 60, r: 15, t: 25, b: 45 },
    legend: { orientation: "h", y: -0.25 },
    showlegend: true,
  };
  Plotly.react(id, figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
}

function say(what) {
  if (notice.textContent !== what) notice.textContent = what;
  notice.hidden = what === "";
}

// An answer of this server, or null, with the reason on the page.
async function ask(address) {
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    say("The server does not answer. What is shown is from before; it is tried again every few seconds.");
    return null;
  }
  if (answer.redirected) say("The session is over: load the page anew to log in. What is shown is from before.");
  else if (!answer.ok) say(`The server answered ${answer.status}. What is shown is from before.`);
  else say("");
  return answer.ok && !answer.redirected ? answer : null;
}

// Someone who is in the midst of a form keeps it; it is taken anew afterwards.
async function renew() {
  const answer = await ask(location.href);
  if (answer === null) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  stale = false;
  for (const part of document.querySelectorAll("[data-live]")) {
    const found = page.getElementById(part.id);
    if (found === null || found.outerHTML === part.outerHTML) continue;
    if (part.contains(document.activeElement) || part.querySelector("details[open]")) stale = true;
    else part.replaceWith(document.adoptNode(found));
  }
}

function drawAll() {
  for (const [id, figure] of Object.entries(told.figures)) draw(id, figure);
  if (typeof onTold === "function") onTold(told, draw);
}

async function refresh() {
  const address = holder.dataset.figures;
  const answer = await ask(told === null ? address : `${address}&since=${told.revision}`);
  if (answer === null) return;
  if (answer.status !== 204) {
    stale = told !== null;
    told = await answer.json();
    drawAll();
  }
  if (stale) await renew();
  holder.dataset.drawn = "yes";
}

if (holder !== null) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => told !== null && drawAll());
  setInterval(() => {
    if (!document.hidden && (told === null || told.revision !== undefined)) refresh();
  }, REFRESH_MS);
  refresh();
}
