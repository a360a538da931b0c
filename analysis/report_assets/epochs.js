// What happens over epochs: densities with a slider, training curves.

// Densities

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** The numbers between 0 and 1 that two digits to base 64 each stand for. */
function unpacked(text) {
  return Array.from(
    { length: text.length / 2 },
    (_, k) => (64 * BASE64.indexOf(text[2 * k]) + BASE64.indexOf(text[2 * k + 1])) / 4095,
  );
}

function densitiesPanel() {
  const { densities } = data;
  if (!densities.length)
    return nothing(
      "densities",
      data.detailsSentence ||
        "No run here logs a weight, a probability or a loss where it is known which pairs are noisy.",
    );
  const slider = element("input", { type: "range", id: "epoch", min: "0", step: "1", oninput: () => draw() }),
    words = element("output", { for: "epoch" }),
    drawing = element("div");
  let now = null,
    epoch = null;
  const draw = () => {
    const place = Number(slider.value);
    epoch = now.epochs[place];
    slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
    words.textContent = `epoch ${epoch} of ${now.epochs.at(-1)}${now.selected.includes(epoch) ? " (selected)" : ""}`;
    drawing.replaceChildren(densityFigure(now, place));
  };
  const set = detailChoices(
    "densities",
    densities,
    { of: (one) => one.signal, label: "Signal", first: "weight", words: (one) => one.replace("_", " ") },
    (entry) => {
      now = entry;
      slider.max = String(entry.epochs.length - 1);
      const near = entry.epochs.findIndex((one) => one >= (epoch ?? Infinity));
      slider.value = String(near >= 0 ? near : entry.epochs.length - 1);
      draw();
    },
  );
  panel("densities").append(
    element(
      "div",
      { class: "controls" },
      element("div", { class: "field" }, element("label", { for: "epoch" }, "Epoch"), slider),
      words,
    ),
    drawing,
  );
  redraws.push(draw);
  set();
}

function densityFigure(entry, place) {
  const things = settingOf(entry.row).task === "pair-retrieval" ? "pairs" : "items",
    sides = ["clean", "noisy"],
    bins = entry.clean[place].length / 2;
  const width = (entry.high - entry.low) / bins,
    heights = sides.map((side) => unpacked(entry[side][place]).map((one) => (one * entry.top) / width));
  const most = Math.max(...heights.flat(), 1e-9),
    auc = entry.auc[place];
  const name = `Density of the ${entry.signal.replace("_", " ")} of clean and of noisy ${things} after epoch ${entry.epochs[place]}${auc === null ? "" : `; AUC ${auc.toFixed(2)}`}`;
  const { svg, toX, toY, box } = frame({
    name,
    height: 320,
    x: {
      label: entry.signal === "loss" ? "loss (the method's own units)" : entry.signal.replace("_", " "),
      low: entry.low,
      high: entry.high,
    },
    y: { label: "density", low: 0, high: most * 1.05 },
  });
  sides.forEach((side, which) => {
    const steps = heights[which]
      .map(
        (height, bin) =>
          `${toX(entry.low + bin * width).toFixed(1)} ${toY(height).toFixed(1)}L${toX(entry.low + (bin + 1) * width).toFixed(1)} ${toY(height).toFixed(1)}`,
      )
      .join("L");
    const closed = `M${toX(entry.low).toFixed(1)} ${toY(0)}L${steps}L${toX(entry.high).toFixed(1)} ${toY(0)}Z`;
    svg.append(
      shape("path", {
        d: closed,
        fill: data.colours[side],
        "fill-opacity": 0.28,
        stroke: data.colours[side],
        "stroke-width": 1.4,
        "stroke-dasharray": side === "noisy" ? "5 3" : null,
      }),
    );
  });
  sides.forEach((side, which) => {
    const y = 26 + 18 * which;
    svg.append(
      shape("rect", {
        x: box.right - 124,
        y: y - 9,
        width: 22,
        height: 11,
        fill: data.colours[side],
        "fill-opacity": 0.28,
        stroke: data.colours[side],
        "stroke-dasharray": side === "noisy" ? "5 3" : null,
      }),
      shape("text", { x: box.right - 96, y }, `${side} ${things}`),
    );
  });
  const left = sides.map((side) => entry.excluded[side][place]),
    out = left.some((one) => one)
      ? ` Left out by the method's partition (weight 0): ${(100 * left[0]).toFixed(0)} % of clean, ${(100 * left[1]).toFixed(0)} % of noisy ${things}; the areas are less than 1 by that.`
      : "";
  const network = entry.network ? ` Network ${entry.network} of several.` : "";
  return figure(
    svg,
    `${methodOf(entry.row).label}, ${placeWords(entry.row)}, ${things} of ${entry.seeds} seed${entry.seeds === 1 ? "" : "s"} pooled.${network} ${auc === null ? "No AUC: there is nothing to tell apart." : `AUC ${auc.toFixed(3)}: recognising noisy ${things} by ${entry.signal === "loss" ? "high" : "low"} ${entry.signal.replace("_", " ")}, 0.5 is chance.`}${out}`,
  );
}

// Training curves

function trainingPanel() {
  const curved = data.training.filter((one) => one.epochs.length > 1);
  if (!curved.length) return nothing("training", data.detailsSentence || "No finished run has more than one epoch.");
  const drawing = element("div"),
    some = curved.flatMap((one) => Object.keys(one.curves).map((kind) => ({ ...one, kind })));
  const set = detailChoices(
    "training",
    some,
    {
      of: (one) => one.kind,
      label: "Curve",
      first: "validation",
      words: (one) => (one === "validation" ? "validation and test score" : one),
    },
    (entry) => {
      const known = measures[headline(entry.row)],
        isScore = entry.kind === "validation" || entry.kind === "test",
        kinds = isScore ? ["validation", "test"] : [entry.kind];
      const middle = [...entry.selected].sort((a, b) => a - b)[Math.floor((entry.selected.length - 1) / 2)];
      const lines = kinds.map((kind, place) => ({
        look: { ...methodOf(entry.row), dash: place ? [3, 2] : [] },
        label: kind,
        points: entry.epochs
          .map((epoch, k) => ({
            x: epoch,
            y: entry.curves[kind].mean[k],
            sd: entry.curves[kind].sd[k],
            chosen: epoch === middle,
          }))
          .filter((p) => p.y !== null),
      }));
      const title = isScore ? known.label : entry.kind;
      const chart = lineChart({
        name: `${title} over epochs of ${methodOf(entry.row).label}; the numbers are in a table below`,
        x: { label: "epoch" },
        y: { label: isScore ? `${known.label} (${known.unit})` : title },
        lines,
        marks: false,
      });
      const body = entry.epochs.map((epoch, k) => [
        String(epoch),
        ...kinds.map((kind) =>
          entry.curves[kind].mean[k] === null
            ? "–"
            : spread({ y: entry.curves[kind].mean[k], sd: entry.curves[kind].sd[k] }),
        ),
      ]);
      const legend = isScore ? " Full line: validation split, dashed: test split (never used for selection)." : "";
      drawing.replaceChildren(
        figure(
          chart,
          `${methodOf(entry.row).label}, ${placeWords(entry.row)}: mean ± standard deviation over ${entry.seeds} seed${entry.seeds === 1 ? "" : "s"}.${legend} Marker: selected epoch, median over seeds (${settingOf(entry.row).selection}). A fall after it, under noise, is a sign of memorised noise.`,
        ),
        element(
          "details",
          {},
          element("summary", {}, "The numbers of this figure"),
          plainTable(title, ["Epoch", ...kinds], body),
        ),
      );
    },
  );
  panel("training").append(drawing);
  redraws.push(set);
  set();
}
