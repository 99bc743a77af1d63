// Shows each <time> of the page in the browser's zone and language, and in words if it is recent. UTC stays on hover.
"use strict";

const RELATIVE_MS = 86400e3; // older times are shown with their date
const KEEP_FRESH_MS = 15e3;

function inWords(at, now) {
  const minutes = Math.floor((now - at) / 60e3);
  if (minutes < 1) return "just now"; // also if this computer's clock is a little behind
  return minutes < 60 ? `${minutes} min ago` : `${Math.floor(minutes / 60)} h ago`;
}

// parts.js calls this for a newer page before it compares that page's parts with this page's.
function showTimes(root) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    const local = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    const isRecent = now - at < RELATIVE_MS && at - now < 60e3;
    const text = isRecent ? inWords(at, now) : local;
    const utc = element.dateTime.replace("T", " ").replace("Z", " UTC");
    if (element.textContent !== text) element.textContent = text;
    element.title = isRecent ? `${local}; ${utc}` : utc;
  }
}

showTimes(document);
setInterval(() => showTimes(document), KEEP_FRESH_MS);
// Parts of a page that are replaced bring new times.
new MutationObserver((changes) => {
  const added = changes.flatMap((change) => [...change.addedNodes]);
  if (added.some((node) => node.nodeType === Node.ELEMENT_NODE)) showTimes(document);
}).observe(document.body, { childList: true, subtree: true });
