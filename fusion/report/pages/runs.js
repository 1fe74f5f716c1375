"use strict";
// The table of utterances: search, and sort by the header that is pressed.
const table = document.getElementById("table");
const body = table.tBodies[0];
const rows = [...body.rows];
const search = document.getElementById("search");
const found = document.getElementById("found");
const searched = new Map(
  rows.map((row) => [row, row.querySelector(".what").textContent.toLowerCase()]),
);

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    row.hidden = !words.every((word) => searched.get(row).includes(word));
    shown += !row.hidden;
  }
  found.textContent = shown === rows.length ? `${shown} utterances` : `${shown} of ${rows.length}`;
}

// A point of a chart that stands for an utterance carries its id.
function find(id) {
  if (typeof id !== "string") return;
  search.value = id;
  filter();
  document.getElementById("utterances").scrollIntoView({ behavior: "smooth" });
}

function sort(button) {
  const header = button.closest("th");
  const descending = header.ariaSort !== "descending";
  table.querySelectorAll("th[aria-sort]").forEach((other) => (other.ariaSort = "none"));
  header.ariaSort = descending ? "descending" : "ascending";
  const text = (row) => row.cells[header.cellIndex].dataset.value;
  const size = (row) => ("absolute" in button.dataset ? Math.abs(text(row)) : Number(text(row)));
  const order = header.classList.contains("what")
    ? (a, b) => text(a).localeCompare(text(b), "en", { numeric: true })
    : (a, b) => size(a) - size(b);
  const sorted = rows.toSorted((a, b) => order(a, b) * (descending ? -1 : 1));
  body.append(...sorted);
}

search.addEventListener("input", filter);
document.addEventListener("point", (event) => find(event.detail));
table.querySelectorAll("th button").forEach((button) => {
  button.addEventListener("click", () => sort(button));
});
filter();
