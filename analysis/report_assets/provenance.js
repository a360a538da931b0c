// The dialog that shows which runs a number is made of, and where each record comes from.

const dialog = document.getElementById("facts");

function facts(pairs) {
  return element(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== "" && value !== undefined)
      .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );
}

function showRuns(row) {
  const setting = settingOf(row),
    measure = headline(row);
  const seeds = Array.from({ length: rows.count[row] }, (_, k) => rows.first[row] + k);
  const body = seeds.map((one) => [
    `seed ${records.seed[one]}`,
    element(
      "a",
      { href: `#record-${records.cell[one]}` },
      records.status[one] === "done" ? fixed(records.score[one], measure) : records.status[one].replace("_", " "),
    ),
    element("code", {}, records.cell[one]),
    records.started[one],
    records.reasons[records.reason[one]],
  ]);
  const others = Object.keys(rows.measures)
    .filter((name) => rows.measures[name].mean[row] !== null)
    .map((name) => [measures[name].label, scoreWords(row, name)]);
  open(`${methodOf(row).label}: ${placeWords(row)}`, [
    facts([
      [
        measures[measure].label,
        `${rows.n[row] ? scoreWords(row, measure) : rows.hole[row]} (mean${rows.n[row] > 1 ? " ± sample standard deviation" : ""} of ${rows.n[row]} finished of ${rows.expected[row]} seeds)`,
      ],
      ["Method", methodWords(methodOf(row))],
      ["Protocol", protocolWords(setting)],
      ["Noise", `${setting.noise} (${setting.level})`],
      ["Track", setting.track],
      ["Backbone", setting.backbone],
      ["Selection", setting.selection],
      ["Gallery", setting.task === "pair-retrieval" ? setting.gallery : ""],
      ["Database", setting.database && `${setting.database}; codes: ${setting.database_codes}`],
    ]),
    rows.notes[row].length
      ? element(
          "ul",
          {},
          rows.notes[row].map((note) => element("li", {}, rows.noteTexts[note])),
        )
      : null,
    plainTable(
      "Runs; choose a score to see its record",
      ["Seed", measures[measure].label, "Cell", "Started", "Reason"],
      body,
    ),
    element("details", {}, element("summary", {}, "All measures"), facts(others)),
  ]);
}

function showRecord(record, row) {
  const circumstances = records.circumstances[records.made[record]],
    folder = records.folders[records.folder[record]];
  const file = `seed${records.seed[record]}.json`,
    path = `${folder.path}/${file}`;
  const listed = (items) =>
    Object.keys(items).length
      ? element(
          "ul",
          {},
          Object.entries(items).map(([name, value]) => element("li", {}, `${name}: `, element("code", {}, value))),
        )
      : "";
  const where = folder.link
    ? element(
        "a",
        { href: encodeURI(`${folder.link}/${file}`).replaceAll("#", "%23").replaceAll("?", "%3F"), class: "file" },
        path,
      )
    : element("code", {}, path);
  open(`Record ${records.cell[record]}`, [
    element("p", {}, element("a", { href: runsLink(row) }, "All runs of this number")),
    facts([
      ["Method", methodWords(methodOf(row))],
      ["Place", `${placeWords(row)}, seed ${records.seed[record]}`],
      [
        "Status",
        records.status[record].replace("_", " ") +
          (records.reasons[records.reason[record]] ? `: ${records.reasons[records.reason[record]]}` : ""),
      ],
      [
        measures[headline(row)].label,
        records.status[record] === "done" ? fixed(records.score[record], headline(row)) : "",
      ],
      ["Cell id", element("code", {}, records.cell[record])],
      ["File", where],
      ["Outcome digest", records.digest[record] && element("code", {}, `${records.digest[record]}…`)],
      ["Realised noise", records.realised[record] === null ? "" : String(records.realised[record])],
      [
        "Noise digest",
        records.noises[records.noise[record]] && element("code", {}, `${records.noises[records.noise[record]]}…`),
      ],
      [
        "Source code",
        records.stale[record] === null
          ? "not compared with today's"
          : records.stale[record]
            ? "changed since (stale)"
            : "as today",
      ],
      ["Commit", circumstances.commit && element("code", {}, circumstances.commit)],
      [
        "Working tree",
        circumstances.modified === null
          ? ""
          : circumstances.modified
            ? "modified: nobody else has this code"
            : "as committed",
      ],
      ["Command", circumstances.command && element("code", {}, circumstances.command)],
      ["Started", records.started[record]],
      ["Seconds", records.seconds[record] === null ? "" : fixed(records.seconds[record], "seconds")],
      [
        "Device",
        `${circumstances.device}, ${circumstances.threads} thread${circumstances.threads === 1 ? "" : "s"}, ${circumstances.width} run${circumstances.width === 1 ? "" : "s"} side by side`,
      ],
      ["Machine", listed(circumstances.machine)],
      ["Packages", listed(circumstances.packages)],
      ["Sources", listed(circumstances.sources)],
      [
        "Data",
        Object.keys(circumstances.data).length > 6
          ? element(
              "details",
              {},
              element("summary", {}, `${Object.keys(circumstances.data).length} files`),
              listed(circumstances.data),
            )
          : listed(circumstances.data),
      ],
    ]),
  ]);
}

let opener = null;

function open(title, content) {
  const close = element("button", { type: "button", class: "close", onclick: () => dialog.close() }, "Close");
  dialog.replaceChildren(
    element("h2", { id: "facts-title", tabindex: "-1" }, title),
    close,
    ...content.filter(Boolean),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  dialog.firstChild.focus();
}

/** The address says what is open, so that a number can be linked to from elsewhere, and Back goes back. */
function follow() {
  const [, kind, cell] = /^#(runs|record)-([0-9a-f]+)$/.exec(location.hash) || [];
  if (!kind) {
    if (dialog.open) dialog.close();
    return;
  }
  if (!dialog.open) opener = document.activeElement;
  const row = rowOfCell.get(cell);
  if (row === undefined) open("Not here", [element("p", {}, `No record of this page has the cell id ${cell}.`)]);
  else if (kind === "runs") showRuns(row);
  else showRecord(records.cell.indexOf(cell), row);
}

function startProvenance() {
  window.addEventListener("hashchange", follow);
  dialog.addEventListener("close", () => {
    if (/^#(runs|record)-/.test(location.hash)) history.pushState(null, "", location.pathname + location.search);
    if (opener && opener.isConnected) opener.focus();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  follow();
}
