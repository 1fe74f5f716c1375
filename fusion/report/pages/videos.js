"use strict";
// A click on a bar or a time goes there in the video; while it plays, chart and table follow.
document.querySelectorAll("section.video").forEach((section) => {
  const video = section.querySelector("video");
  if (!video) return;
  const plot = section.querySelector(".plot");
  const rows = [...section.querySelectorAll("tr[data-start]")];

  function go(start) {
    video.currentTime = start;
    video.play().catch(() => {}); // the browser may want a click on the video first
  }

  function follow() {
    const now = video.currentTime;
    for (const row of rows) {
      const current = row.dataset.start <= now && now < row.dataset.end;
      row.toggleAttribute("aria-current", current);
    }
    if (plot?.dataset.drawn) {
      Plotly.relayout(plot, { "shapes[0].x0": now, "shapes[0].x1": now });
    }
  }

  section.addEventListener("point", (event) => go(event.detail));
  rows.forEach((row) => {
    row.querySelector("button")?.addEventListener("click", () => go(Number(row.dataset.start)));
  });
  video.addEventListener("timeupdate", follow);
  video.addEventListener("seeked", follow);
});
