// Gives the filters by date the browser's time zone. A shared address keeps it, so it shows others the same rows.
"use strict";

{
  const offset = -new Date().getTimezoneOffset(); // minutes by which the clock leads UTC
  for (const link of document.querySelectorAll("a[data-zoned]")) {
    const address = new URL(link.href);
    address.searchParams.set("utc_offset", offset);
    link.href = address.href;
  }
  for (const form of document.querySelectorAll("form")) {
    const field = form.elements.namedItem("utc_offset");
    if (field === null) continue;
    form.addEventListener("submit", () => {
      const isDated = ["when", "from", "to"].some((name) => form.elements.namedItem(name).value !== "");
      if (!isDated) field.value = "";
      else if (field.value === "") field.value = offset;
    });
  }
}
