// Buttons with data-copy copy its text. A screen reader hears that it was copied.
"use strict";

{
  const SHOWN_MS = 2000;
  const said = document.createElement("p");
  said.className = "skip";
  said.setAttribute("role", "status");
  document.body.append(said);

  // Browsers give the clipboard to pages over TLS and of the own machine. Others must select the text.
  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    if (!done) throw new Error("the browser does not copy");
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (button === null) return;
    let result = "Copied";
    try {
      await copy(button.dataset.copy);
    } catch {
      result = "Not copied";
    }
    button.focus();
    button.textContent = result;
    said.textContent = `${result}: ${button.getAttribute("aria-label").replace("Copy ", "")}`;
    setTimeout(() => {
      button.textContent = "Copy";
      said.textContent = "";
    }, SHOWN_MS);
  });
}
