// What the parts below the results share: choices of a place and of methods. Each builds its controls once and redraws what they choose.

const setupOf = (row) =>
  [
    protocolWords(settingOf(row)),
    settingOf(row).dataset,
    settingOf(row).noise,
    settingOf(row).track,
    settingOf(row).backbone,
    settingOf(row).gallery,
  ].join(" | ");
const bitsOf = (row) => (settingOf(row).task === "label-hashing" ? (rows.bits[row] ?? "real-valued") : "");
const finished = (row) => rows.n[row] > 0;

/** Words for the options of a choice of settings: only what tells them apart, beside the data set. */
function setupOptions(some, of = setupOf) {
  return unique(some.map(of)).map((key) => {
    const row = some.find((one) => of(one) === key),
      setting = settingOf(row);
    return [
      key,
      `${setting.dataset}: ${setting.noise}${setting.track === "fixed-budget" ? "" : `, ${setting.track}`}${of === setupOf ? "" : `, ${rateWords(rows.rate[row])}${bitsOf(row) === "" ? "" : `, ${bitsWords(row)}`}`} (${protocolWords(setting)})`,
    ];
  });
}

/** Rows grouped by method: main variants before ablations, then the best mean first. */
function byMethod(some) {
  const groups = new Map();
  for (const row of some) groups.set(rows.method[row], [...(groups.get(rows.method[row]) || []), row]);
  const mean = (group) => group.reduce((sum, row) => sum + rows.mean[row], 0) / group.length;
  return [...groups].sort(([x, a], [y, b]) => isPlain(y) - isPlain(x) || b.length - a.length || mean(b) - mean(a));
}

const PLAIN = new Set(["paper", "default", "released"]);
const isPlain = (method) => PLAIN.has(methods[method].name.split("@")[1]);

/** The methods that a figure shows before anybody chooses: one main variant of each, ten at most. */
function firstMethods(groups, most = 10) {
  const names = groups.map(([method]) => method).filter((method) => isPlain(method)),
    found = new Map();
  for (const method of names.length ? names : groups.map(([one]) => one)) {
    const [base, variant] = methods[method].name.split("@");
    if (!found.has(base) || variant === "paper") found.set(base, method);
  }
  return new Set([...found.values()].slice(0, most));
}

function checkboxes(title, groups, chosen, onchange) {
  const boxes = groups.map(([method]) => {
    const box = element("input", {
      type: "checkbox",
      checked: chosen.has(method),
      onchange: () => {
        if (box.checked) chosen.add(method);
        else chosen.delete(method);
        onchange();
      },
    });
    return element("label", {}, box, swatch(methods[method]), methods[method].label);
  });
  return element("fieldset", {}, element("legend", {}, title), boxes);
}

function nothing(name, words) {
  panel(name).append(element("p", { class: "soft" }, words));
}

/** Where methods can be compared with details: a data set, noise, rate and length of codes. */
const detailPlace = (row) => `${setupOf(row)} | ${rows.rate[row]} | ${bitsOf(row)}`;

/** Controls that lead to one entry with details: place, then method, then what `more` names. */
function detailChoices(name, entries, more, show) {
  const options = setupOptions(
      entries.map((one) => one.row),
      detailPlace,
    ),
    usual = entries.filter((one) => rows.rate[one.row] === 0.4),
    middle = usual.find((one) => more.of(one) === more.first) || usual[0] || entries[0];
  const state = { place: detailPlace(middle.row), method: rows.method[middle.row], more: null },
    fields = element("div", { class: "controls" });
  const set = () => {
    const here = entries.filter((one) => detailPlace(one.row) === state.place),
      names = unique(here.map((one) => rows.method[one.row])).sort((a, b) =>
        compare(methods[a].label, methods[b].label),
      );
    if (!names.includes(state.method)) state.method = names[0];
    const mine = here.filter((one) => rows.method[one.row] === state.method),
      kinds = unique(mine.map(more.of));
    if (!kinds.includes(state.more)) state.more = kinds.includes(more.first) ? more.first : kinds[0];
    refill(
      fields,
      choice("Data set, noise and rate", options, state.place, (one) => {
        state.place = one;
        set();
      }),
      choice(
        "Method",
        names.map((one) => [String(one), methods[one].label]),
        String(state.method),
        (one) => {
          state.method = Number(one);
          set();
        },
      ),
      choice(
        more.label,
        kinds.map((one) => [one, more.words(one)]),
        state.more,
        (one) => {
          state.more = one;
          set();
        },
      ),
    );
    show(mine.find((one) => more.of(one) === state.more));
  };
  panel(name).append(element("p", { class: "soft" }, data.detailsSentence), fields);
  return set;
}
