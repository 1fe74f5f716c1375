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
    place.on("plotly_click", (event) => {
      const detail = event.points[0].customdata;
      place.dispatchEvent(new CustomEvent("point", { detail, bubbles: true }));
    });
  });
}

const plots = document.querySelectorAll(".plot");
const watcher = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
  { rootMargin: "400px" },
);
plots.forEach((place) => watcher.observe(place));
window.addEventListener("beforeprint", () => plots.forEach(draw));
