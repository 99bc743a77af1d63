// Gives the filters by date the browser's time zone. A shared address keeps it, so it shows others the same rows.
"use strict";

{
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone; // such as Europe/Berlin
  for (const link of document.querySelectorAll("a[data-zoned]")) {
    const address = new URL(link.href);
    address.searchParams.set("zone", zone);
    link.href = address.href;
  }
  for (const form of document.querySelectorAll("form")) {
    const field = form.elements.namedItem("zone");
    if (field === null) continue;
    form.addEventListener("submit", () => {
      const isDated = ["when", "from", "to"].some((name) => form.elements.namedItem(name).value !== "");
      if (!isDated) field.value = "";
      else if (field.value === "") field.value = zone;
    });
  }
}
