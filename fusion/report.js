"use strict";
// Charts are drawn by Plotly when they come near the screen, so that a long page opens at once.
const figures = JSON.parse(document.getElementById("figures").textContent);
const config = {
  responsive: true,
  displaylogo: false,
  modeBarButtons: [["toImage"]],
};

function draw(place) {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "true";
  const { data, layout } = figures[place.dataset.figure];
  Plotly.newPlot(place, data, layout, config).then(() => {
    place.on("plotly_click", (event) => find(event.points[0].customdata));
  });
}

const plots = document.querySelectorAll(".plot");
const watcher = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
  { rootMargin: "400px" },
);
plots.forEach((place) => watcher.observe(place));
window.addEventListener("beforeprint", () => plots.forEach(draw));

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
table.querySelectorAll("th button").forEach((button) => {
  button.addEventListener("click", () => sort(button));
});
filter();
