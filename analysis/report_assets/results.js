// The table of results with its filters.

function resultsPanel() {
  const state = { measure: "headline", text: "" };
  const shown = (row) => (state.measure === "headline" ? headline(row) : state.measure);
  const value = (row) =>
    state.measure === "headline" ? rows.mean[row] : (rows.measures[state.measure]?.mean[row] ?? null);
  const table = new SortedTable({
    caption: "Results: means over seeds ± sample standard deviation",
    columns: [
      { title: "Method", value: (row) => methodOf(row).name, cell: (row) => methodWords(methodOf(row)) },
      { title: "Data set", line: true, value: (row) => settingOf(row).dataset },
      {
        title: "Rate",
        number: true,
        small: true,
        value: (row) => rows.rate[row],
        cell: (row) => rateWords(rows.rate[row]),
      },
      { title: "Bits", number: true, small: true, value: (row) => rows.bits[row], cell: (row) => bitsWords(row) },
      { title: "Score", number: true, value, cell: (row) => scoreCell(row, shown(row)) },
      { title: "Measure", line: true, value: (row) => measures[shown(row)].label },
      {
        title: "Seeds",
        number: true,
        value: (row) => rows.n[row],
        cell: (row) =>
          rows.n[row] === rows.expected[row] ? String(rows.n[row]) : `${rows.n[row]} of ${rows.expected[row]}`,
      },
      { title: "Noise model", line: true, value: (row) => settingOf(row).noise },
      { title: "Noise level", wide: true, value: (row) => settingOf(row).level },
      { title: "Track", line: true, value: (row) => settingOf(row).track },
      { title: "Protocol", value: (row) => protocolWords(settingOf(row)) },
      { title: "Task", line: true, value: (row) => TASKS[settingOf(row).task] || settingOf(row).task },
    ],
  });
  const filters = {
    Task: (row) => TASKS[settingOf(row).task] || settingOf(row).task,
    "Data set": (row) => settingOf(row).dataset,
    "Noise model": (row) => settingOf(row).noise,
    "Noise level": (row) => settingOf(row).level,
    Rate: (row) => rateWords(rows.rate[row]),
    Bits: bitsWords,
    Track: (row) => settingOf(row).track,
    Variant: (row) => methodOf(row).name.split("@").slice(1).join("@"),
    Protocol: (row) => protocolWords(settingOf(row)),
    State: stateWords,
  };
  const wanted = {};
  const update = () =>
    table.show(
      allRows.filter(
        (row) =>
          Object.entries(wanted).every(([name, one]) => one === "" || filters[name](row) === one) &&
          (!state.text || `${methodOf(row).name} ${methodOf(row).label}`.toLowerCase().includes(state.text)),
      ),
    );
  const search = element("input", {
    type: "search",
    id: "method-search",
    oninput: () => {
      state.text = search.value.trim().toLowerCase();
      update();
    },
  });
  const controls = [
    element("div", { class: "field" }, element("label", { for: "method-search" }, "Method contains"), search),
  ];
  for (const [name, of] of Object.entries(filters)) {
    const values = unique(allRows.map(of));
    if (values.length > 1)
      controls.push(
        choice(name, [["", "all"], ...values.filter((one) => one !== "").map((one) => [one, one])], "", (one) => {
          wanted[name] = one;
          update();
        }),
      );
  }
  const scores = Object.keys(rows.measures).map((name) => [
    name,
    measures[name].unit ? `${measures[name].label} (${measures[name].unit})` : measures[name].label,
  ]);
  controls.push(
    choice("Score shown", [["headline", "headline of the task (rSum or MAP)"], ...scores], "headline", (one) => {
      state.measure = one;
      update();
    }),
  );
  const narrow = window.innerWidth < 740;
  panel("results").append(
    element(
      "details",
      { open: !narrow },
      element("summary", {}, "Filters and score"),
      element("div", { class: "controls", role: "group", "aria-label": "Filters of the results" }, controls),
    ),
    table.node,
  );
  update();
}

function stateWords(row) {
  if (rows.n[row] && rows.n[row] === rows.expected[row]) return "complete";
  return rows.n[row] ? "some seeds" : rows.hole[row] || "nothing";
}

function scoreCell(row, measure) {
  const isHeadline = measure === headline(row),
    words = rows.n[row] ? scoreWords(row, measure) : rows.hole[row] || "–";
  const rank = isHeadline ? ["", "best", "second"][rows.rank[row]] : "";
  const dagger =
    isHeadline && rows.tied[row]
      ? element(
          "abbr",
          { title: "cannot be told apart from the best of its place (on the best: from the second)" },
          "†",
        )
      : null;
  const link = runsLink(row);
  return [link ? element("a", { href: link, class: rank || null }, words) : words, dagger];
}
