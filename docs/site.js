// Material puts each wide table into a box that scrolls. The keyboard reaches the box only if it can have the focus.
function letTablesHaveTheFocus() {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) box.tabIndex = 0;
}

new MutationObserver(letTablesHaveTheFocus).observe(document.body, { childList: true, subtree: true });
letTablesHaveTheFocus();
