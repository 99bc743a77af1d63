// Refreshes the overview and the lists when a small request says that any job has changed. parts.js replaces the parts.
// The user can switch this off, and the browser remembers it.
"use strict";

const LIVE_MS = 10000;
const bar = document.getElementById("live");

if (bar !== null) {
  const toggle = document.getElementById("live-switch");
  const notice = document.getElementById("live-notice");
  let newPage = null; // the newer page, until all of it is shown
  let isRefreshing = false;

  const showTime = () => {
    document.getElementById("as-of").textContent = `As of ${new Date().toLocaleTimeString()}.`;
  };

  const partsOf = (page) => [...page.querySelectorAll("[data-live]")].map((part) => part.id).join();

  const refresh = async () => {
    const answer = await getOrSay(`${bar.dataset.address}?since=${bar.dataset.revision ?? ""}`, notice);
    if (answer === null) return;
    if (answer.status !== 204) {
      const { revision } = await answer.json();
      const page = await getNewerPage(notice);
      if (page === null) return;
      newPage = page;
      bar.dataset.revision = revision;
      if (partsOf(newPage) !== partsOf(document)) location.reload(); // for example because there is a first job
    }
    if (newPage !== null && replaceParts(newPage)) newPage = null;
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
