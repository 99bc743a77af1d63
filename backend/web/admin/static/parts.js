// Brings the parts of an open page, the elements with data-live, up to date. figures.js and live.js say when.
"use strict";

// Returns the server's answer, or null after a failure. The notice then has the reason.
async function getOrSay(address, notice) {
  const say = (text) => {
    if (notice.textContent !== text) notice.textContent = text;
  };
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    say("The server does not answer. This page shows old data and retries every few seconds.");
    return null;
  }
  if (answer.redirected) say("The session has ended. Reload the page to log in. This page shows old data.");
  else if (!answer.ok) say(`The server answered ${answer.status}. This page shows old data.`);
  else say("");
  return answer.ok && !answer.redirected ? answer : null;
}

// Returns this page as the server has it now, or null after a failure.
async function getNewerPage(notice) {
  const own = document.querySelector("link[rel=canonical]"); // the address of a refused form is not that of its page
  const answer = await getOrSay(own?.href ?? location.href, notice);
  if (answer === null) return null;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  showTimes(page); // as on this page, so that only parts with other news are replaced
  return page;
}

// Replaces the parts that are new. Returns whether all of them are shown now: a part with the focus, a ticked box or an
// open form stays, and a later call replaces it.
function replaceParts(newPage) {
  let isComplete = true;
  for (const part of document.querySelectorAll("[data-live]")) {
    const newPart = newPage.getElementById(part.id);
    if (newPart === null || newPart.outerHTML === part.outerHTML) continue;
    const isInUse = part.contains(document.activeElement) || part.querySelector("details[open], input:checked");
    if (isInUse) isComplete = false;
    else part.replaceWith(document.importNode(newPart, true));
  }
  return isComplete;
}
