// Draws a page's figures and keeps it up to date: what is marked data-live is taken anew from the server, by its id.
// Every number comes from the server. A page may take part by a function `onTold(told, draw)`.
"use strict";

const REFRESH_MS = 5000;
const holder = document.querySelector("[data-figures]");
const notice = document.getElementById("notice");
let told = null;
let newer = null; // the page as the server has it by now, as long as not all of it is shown
let asking = false; // whether an answer is under way

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

// Someone who is in the midst of a form keeps it; it is shown anew afterwards.
function renew() {
  let left = false;
  for (const part of document.querySelectorAll("[data-live]")) {
    const found = newer.getElementById(part.id);
    if (found === null || found.outerHTML === part.outerHTML) continue;
    if (part.contains(document.activeElement) || part.querySelector("details[open]")) left = true;
    else part.replaceWith(document.importNode(found, true));
  }
  if (!left) newer = null;
}

function drawAll() {
  for (const [id, figure] of Object.entries(told.figures)) draw(id, figure);
  if (typeof onTold === "function") onTold(told, draw);
}

async function refresh() {
  const address = holder.dataset.figures;
  const answer = await ask(told === null ? address : `${address}&since=${holder.dataset.revision}`);
  if (answer === null) return;
  if (answer.status !== 204) {
    told = await answer.json();
    drawAll();
    if (told.revision !== undefined && String(told.revision) !== holder.dataset.revision) {
      const page = await ask(location.href);
      if (page !== null) newer = new DOMParser().parseFromString(await page.text(), "text/html");
      if (page !== null) holder.dataset.revision = told.revision;
    }
  }
  if (newer !== null) renew();
  holder.dataset.drawn = "yes";
}

async function refreshOnce() {
  if (asking) return;
  asking = true;
  try {
    await refresh();
  } finally {
    asking = false;
  }
}

if (holder !== null) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => told !== null && drawAll());
  setInterval(() => {
    if (!document.hidden && (told === null || told.revision !== undefined)) refreshOnce();
  }, REFRESH_MS);
  refreshOnce();
}
