// Published numbers beside ours.

function publishedPanel() {
  const { columns, texts } = data.published,
    text = (name) => (k) => texts[columns[name][k]];
  const items = columns.method
      .map((_, k) => k)
      .sort((a, b) => (columns.ours[b].length ? 1 : 0) - (columns.ours[a].length ? 1 : 0) || a - b),
    label = (k) => measures[columns.measure[k]].label,
    bad = (k) => columns.doubtful[k].length > 0;
  const kind = text("kind"),
    rate = (k) => (kind(k) === "none" ? "no training" : kind(k) === "real" ? "real noise" : rateWords(columns.rate[k]));
  const value = (k) => [
    columns.value[k] === null ? "–" : fixed(columns.value[k], columns.measure[k]),
    columns.recalls[k].some((one) => one !== null)
      ? element(
          "div",
          { class: "soft" },
          columns.recalls[k].map((one) => (one === null ? "–" : one.toFixed(1))).join(" / "),
        )
      : null,
    bad(k) ? element("span", { class: "tag bad" }, "doubtful") : null,
  ];
  const ours = (k) =>
    columns.ours[k].map((row) =>
      element(
        "div",
        {},
        element("a", { href: runsLink(row) }, scoreWords(row, columns.measure[k])),
        " ",
        element("span", { class: "tag" }, methodOf(row).name),
      ),
    );
  const gap = (k) => {
    const row = columns.ours[k][0],
      found = rows.measures[columns.measure[k]];
    return row === undefined || columns.value[k] === null || !found || found.mean[row] === null || bad(k)
      ? null
      : found.mean[row] - columns.value[k];
  };
  const explained = (mine, theirs) => (k) => [
    theirs(k),
    ...columns.ours[k].slice(0, 1).map((row) => element("div", { class: "soft" }, `ours: ${mine(row)}`)),
  ];
  const explaining = (title, name, mine) => ({
    title,
    wide: true,
    value: text(name),
    cell: explained(mine, text(name)),
  });
  const table = new SortedTable({
    caption: "Published numbers; below rSum the six recalls, image to text R@1 / 5 / 10, then text to image",
    pageSize: 25,
    columns: [
      { title: "Method", value: text("method") },
      { title: "Data set", value: text("dataset") },
      {
        title: "Rate",
        number: true,
        small: true,
        value: (k) => (kind(k) === "rate" ? columns.rate[k] : -1),
        cell: rate,
      },
      { title: "Bits", number: true, small: true, value: (k) => columns.bits[k] },
      { title: "Measure", value: label },
      { title: "Published", number: true, value: (k) => columns.value[k], cell: value },
      {
        title: "Ours",
        number: true,
        value: (k) => columns.ours[k].length || null,
        cell: (k) => (columns.ours[k].length ? ours(k) : "–"),
      },
      {
        title: "Difference",
        number: true,
        value: gap,
        cell: (k) => (gap(k) === null ? "–" : `${gap(k) > 0 ? "+" : ""}${fixed(gap(k), columns.measure[k])}`),
      },
      explaining("Noise file and level", "noise", (row) => `${settingOf(row).noise}, ${settingOf(row).level}`),
      explaining("Networks at test", "networks", (row) => scoreWords(row, "networks_at_test")),
      explaining("Backbone", "backbone", (row) => settingOf(row).backbone),
      explaining("Selection", "selection", (row) => settingOf(row).selection),
      explaining("Database and codes", "database", (row) =>
        settingOf(row).database ? `${settingOf(row).database}, ${settingOf(row).database_codes}` : "",
      ),
      { title: "Source", wide: true, value: text("source") },
      { title: "Remarks", wide: true, value: text("notes") },
    ],
  });
  const state = { dataset: "", source: "", which: "" },
    search = element("input", { type: "search", id: "published-search", oninput: () => update() });
  const update = () =>
    table.show(
      items.filter(
        (k) =>
          (!state.dataset || text("dataset")(k) === state.dataset) &&
          (!state.source || text("source")(k) === state.source) &&
          (state.which !== "ours" || columns.ours[k].length) &&
          (state.which !== "bad" || bad(k)) &&
          text("method")(k).toLowerCase().includes(search.value.trim().toLowerCase()),
      ),
    );
  const both = items.filter((k) => columns.ours[k].length).length;
  const pick = (words, name) =>
    choice(words, [["", "all"], ...unique(items.map(text(name))).map((one) => [one, one])], "", (one) => {
      state[name] = one;
      update();
    });
  panel("published").append(
    element(
      "p",
      {},
      both
        ? `${both} of ${items.length} published results have a number of ours at the same data set, rate and level of noise.`
        : `None of the ${items.length} published results is on a data set, rate and level of noise that these records have: nothing is reproduced here, and what stands below is what papers print.`,
    ),
    element(
      "div",
      { class: "controls" },
      element("div", { class: "field" }, element("label", { for: "published-search" }, "Method contains"), search),
      pick("Data set", "dataset"),
      pick("Source", "source"),
      choice(
        "Show",
        [
          ["", "all"],
          ["ours", "with a number of ours"],
          ["bad", "doubtful numbers"],
        ],
        "",
        (one) => {
          state.which = one;
          update();
        },
      ),
    ),
    table.node,
  );
  update();
}
