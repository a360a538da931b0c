// Everything is drawn once the page is there; a part that fails says so and leaves the others alone.

const PANELS = {
  results: resultsPanel,
  curves: curvesPanel,
  ranks: ranksPanel,
  densities: densitiesPanel,
  training: trainingPanel,
  queries: queriesPanel,
  published: publishedPanel,
  cost: costPanel,
  audit: auditPanel,
};

for (const [name, build] of Object.entries(PANELS)) {
  try {
    build();
  } catch (error) {
    console.error(error);
    panel(name).append(
      element(
        "p",
        { class: "warning" },
        `This part could not be drawn (${error.message}). The others are not concerned.`,
      ),
    );
  }
}
startProvenance();

let lastWidth = chartWidth(),
  pause = null;
window.addEventListener("resize", () => {
  clearTimeout(pause);
  pause = setTimeout(() => {
    if (chartWidth() === lastWidth) return;
    lastWidth = chartWidth();
    for (const draw of redraws) draw();
  }, 150);
});
