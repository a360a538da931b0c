// Scores against noise rate, and against what they cost.

// Robustness curves

function curvesPanel() {
  const some = allRows.filter(finished);
  if (!some.length) return nothing("curves", "No run is finished.");
  const options = setupOptions(some),
    state = { setup: setupOf(some[0]), bits: "", measure: "headline" };
  const bitsField = element("div"),
    measureField = element("div"),
    drawing = element("div"),
    list = element("div");
  let chosen = new Set();
  const mine = () => some.filter((row) => setupOf(row) === state.setup && String(bitsOf(row)) === String(state.bits));
  const draw = () => {
    const measure = state.measure === "headline" ? headline(mine()[0]) : state.measure,
      found = rows.measures[measure],
      known = measures[measure];
    const lines = byMethod(mine())
      .filter(([method]) => chosen.has(method))
      .map(([method, group]) => ({
        look: methods[method],
        label: methods[method].label,
        points: group
          .filter((row) => found.mean[row] !== null)
          .map((row) => ({
            x: 100 * (rows.rate[row] ?? 0),
            y: found.mean[row],
            sd: found.sd[row],
            href: runsLink(row),
          }))
          .sort((a, b) => a.x - b.x),
      }))
      .filter((line) => line.points.length);
    if (!lines.length) return drawing.replaceChildren(element("p", { class: "soft" }, "Choose a method."));
    const rates = unique(lines.flatMap((line) => line.points.map((p) => p.x))),
      setting = settingOf(mine()[0]);
    const label = known.unit ? `${known.label} (${known.unit})` : known.label;
    const chart = lineChart({
      name: `${known.label} against noise rate on ${setting.dataset}, ${lines.length} methods; the numbers are in a table below`,
      x: { label: `noise rate (%), ${setting.noise}`, ticks: rates },
      y: { label, least: known.better ? 0 : -Infinity },
      lines,
    });
    const seeds = unique(mine().map((row) => rows.n[row]));
    const caption = `${setting.dataset}, ${protocolWords(setting)}, track ${setting.track}; ${setting.level}; selection: ${setting.selection}; n = ${seeds.length > 1 ? `${seeds[0]} to ${seeds.at(-1)}` : seeds[0]} seeds. Points are links to their runs.`;
    const numbers = element(
      "details",
      {},
      element("summary", {}, "The numbers of this figure"),
      plainTable(
        label,
        ["Method", ...rates.map((rate) => `${rate} %`)],
        lines.map((line) => [
          line.label,
          ...rates.map((rate) => {
            const p = line.points.find((one) => one.x === rate);
            return p ? element("a", { href: p.href }, spread(p)) : "–";
          }),
        ]),
      ),
    );
    drawing.replaceChildren(figure(chart, caption), numbers);
  };
  const setUp = () => {
    const here = some.filter((row) => setupOf(row) === state.setup),
      bits = unique(here.map(bitsOf));
    if (!bits.map(String).includes(String(state.bits))) state.bits = bits.includes(64) ? 64 : bits[0];
    refill(
      bitsField,
      ...(bits.length > 1
        ? [
            choice(
              "Bits",
              bits.map((one) => [String(one), String(one)]),
              String(state.bits),
              (one) => {
                state.bits = one;
                setUp();
              },
            ),
          ]
        : []),
    );
    const names = Object.keys(rows.measures).filter((name) =>
      here.some((row) => rows.measures[name].mean[row] !== null),
    );
    if (!names.includes(state.measure)) state.measure = "headline";
    refill(
      measureField,
      choice(
        "Measure",
        [
          ["headline", measures[headline(here[0])].label],
          ...names.filter((name) => name !== headline(here[0])).map((name) => [name, measures[name].label]),
        ],
        state.measure,
        (one) => {
          state.measure = one;
          draw();
        },
      ),
    );
    const groups = byMethod(mine());
    chosen = firstMethods(groups);
    list.replaceChildren(checkboxes("Methods", groups, chosen, draw));
    draw();
  };
  panel("curves").append(
    element(
      "div",
      { class: "controls" },
      choice("Data set and noise", options, state.setup, (one) => {
        state.setup = one;
        setUp();
      }),
      bitsField,
      measureField,
    ),
    element("div", { class: "pair" }, drawing, list),
  );
  redraws.push(draw);
  setUp();
}

// Cost

const COSTS = ["seconds", "parameters", "networks_at_test", "gradient_steps", "peak_memory_bytes"];

function costPanel() {
  const some = allRows.filter(finished),
    costs = COSTS.filter((name) => rows.measures[name]);
  if (!some.length || !costs.length) return nothing("cost", "No run is finished.");
  const options = setupOptions(some, detailPlace),
    middle = some.find((row) => rows.rate[row] === 0.4) || some[0],
    state = { place: detailPlace(middle), cost: costs[0] },
    drawing = element("div");
  const draw = () => {
    const cost = measures[state.cost],
      found = rows.measures[state.cost],
      mine = some
        .filter((row) => detailPlace(row) === state.place && found.mean[row] !== null)
        .sort((a, b) => found.mean[a] - found.mean[b]);
    if (!mine.length) return drawing.replaceChildren(element("p", { class: "soft" }, "Not recorded here."));
    const xs = mine.map((row) => found.mean[row]),
      log = Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) > 8,
      known = measures[headline(mine[0])];
    const across = log ? { low: Math.min(...xs) / 1.2, high: Math.max(...xs) * 1.2 } : range(xs, 0),
      label = `${cost.label}${cost.unit ? ` (${cost.unit})` : ""}${log ? ", logarithmic" : ""}`;
    const { svg, toX, toY } = frame({
      name: `${known.label} against ${cost.label} of ${mine.length} methods; the numbers are in a table below`,
      x: { label, log, ...across },
      y: { label: known.label, ...range(mine.map((row) => rows.mean[row])) },
    });
    for (const row of mine)
      svg.append(
        linked(
          marker(methodOf(row), toX(found.mean[row]), toY(rows.mean[row])),
          runsLink(row),
          `${methodOf(row).label}: ${known.label} ${scoreWords(row, headline(row))}, ${cost.label} ${fixed(found.mean[row], state.cost)}`,
        ),
      );
    const competes = mine.filter((row) => !methodOf(row).flags.includes("oracle"));
    const better = competes.filter(
      (row) => !competes.some((other) => found.mean[other] <= found.mean[row] && rows.mean[other] > rows.mean[row]),
    );
    const caption = `${placeWords(mine[0])}. At no higher cost, no method (oracles aside) has a higher mean than: ${better.map((row) => methodOf(row).label).join(", ")}. Points are links to their runs. Seconds depend on the machine and on what ran beside.`;
    const legend = element(
      "ul",
      { class: "chips" },
      mine.map((row) => element("li", {}, swatch(methodOf(row)), methodOf(row).label)),
    );
    const table = plainTable(
      "Cost and score, means over seeds",
      ["Method", known.label, ...costs.map((name) => measures[name].label)],
      mine.map((row) => [
        methodOf(row).label,
        element("a", { href: runsLink(row) }, scoreWords(row, headline(row))),
        ...costs.map((name) => fixed(rows.measures[name].mean[row], name)),
      ]),
    );
    drawing.replaceChildren(
      figure(svg, caption),
      element("details", { open: mine.length < 17 }, element("summary", {}, "Which marker is which"), legend),
      element("details", {}, element("summary", {}, "The numbers of this figure"), table),
    );
  };
  panel("cost").append(
    element(
      "div",
      { class: "controls" },
      choice("Data set, noise and rate", options, state.place, (one) => {
        state.place = one;
        draw();
      }),
      choice(
        "Cost",
        costs.map((name) => [name, measures[name].label]),
        state.cost,
        (one) => {
          state.cost = one;
          draw();
        },
      ),
    ),
    drawing,
  );
  redraws.push(draw);
  draw();
}
