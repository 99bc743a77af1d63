// Refreshes the overview and the lists. Elements with data-live are replaced by the server's newer version when a small
// request says that any job has changed. The user can switch this off, and the browser remembers it.
"use strict";

const LIVE_MS = 10000;
const bar = document.getElementById("live");

if (bar !== null) {
  const toggle = document.getElementById("live-switch");
  const notice = document.getElementById("live-notice");
  let newPage = null; // the newer page, until all of it is shown
  let isRefreshing = false;

  const say = (text) => {
    if (notice.textContent !== text) notice.textContent = text;
  };

  const showTime = () => {
    document.getElementById("as-of").textContent = `As of ${new Date().toLocaleTimeString()}.`;
  };

  const get = async (address) => {
    let answer;
    try {
      answer = await fetch(address);
    } catch {
      say("The server does not answer. This page shows old data.");
      return null;
    }
    if (answer.redirected) say("The session has ended. Reload the page to log in. This page shows old data.");
    else if (!answer.ok) say(`The server answered ${answer.status}. This page shows old data.`);
    else say("");
    return answer.ok && !answer.redirected ? answer : null;
  };

  const parts = (page) => [...page.querySelectorAll("[data-live]")];

  // A part with the focus, a ticked box or an open form stays. A later refresh replaces it.
  const replaceParts = () => {
    if (parts(newPage).map((part) => part.id).join() !== parts(document).map((part) => part.id).join()) {
      location.reload(); // the page has other parts now, for example because there is a first job
      return;
    }
    let isComplete = true;
    for (const part of parts(document)) {
      const newPart = newPage.getElementById(part.id);
      if (newPart.outerHTML === part.outerHTML) continue;
      if (part.contains(document.activeElement) || part.querySelector("details[open], input:checked")) isComplete = false;
      else part.replaceWith(document.importNode(newPart, true));
    }
    if (isComplete) newPage = null;
  };

  const refresh = async () => {
    const answer = await get(`${bar.dataset.address}?since=${bar.dataset.revision ?? ""}`);
    if (answer === null) return;
    if (answer.status !== 204) {
      const { revision } = await answer.json();
      const page = await get(location.href);
      if (page === null) return;
      newPage = new DOMParser().parseFromString(await page.text(), "text/html");
      showTimes(newPage); // as on this page, so that only parts with other news are replaced
      bar.dataset.revision = revision;
    }
    if (newPage !== null) replaceParts();
    if (newPage === null) showTime(); // else a part is still of before
  };

  const refreshOnce = async () => {
    if (isRefreshing || document.hidden || !toggle.checked) return;
    isRefreshing = true;
    try {
      await refresh();
    } finally {
      isRefreshing = false;
    }
  };

  toggle.checked = localStorage.getItem("live") !== "off";
  toggle.addEventListener("change", () => {
    localStorage.setItem("live", toggle.checked ? "on" : "off");
    refreshOnce();
  });
  bar.hidden = false;
  showTime();
  setInterval(refreshOnce, LIVE_MS);
}
