// What the page holds, and how records, methods and places are put in words.

const data = JSON.parse(document.getElementById("data").textContent);
const { rows, records, settings, methods, measures } = data;
const HEADLINES = { "pair-retrieval": "rsum", "label-hashing": "mean_map" };
const TASKS = { "pair-retrieval": "mismatched pairs", "label-hashing": "wrong labels" };
const TAGS = {
  reconstruction: "reconstruction",
  oracle: "oracle",
  control: "control",
  "own-generalisation": "own generalisation",
  "clean-meta-set": "uses clean data",
};
const allRows = rows.method.map((_, place) => place);
const rowOfCell = new Map();
for (const row of allRows)
  for (let k = 0; k < rows.count[row]; k++) rowOfCell.set(records.cell[rows.first[row] + k], row);

const panel = (name) => document.querySelector(`#${name} .panel`);
const settingOf = (row) => settings[rows.setting[row]];
const methodOf = (row) => methods[rows.method[row]];
const headline = (row) => HEADLINES[settingOf(row).task];
const rateWords = (rate) => (rate === null ? "real noise" : `${Number((100 * rate).toPrecision(6))} %`);
const bitsWords = (row) =>
  settingOf(row).task === "label-hashing" ? (rows.bits[row] === null ? "real-valued" : `${rows.bits[row]} bits`) : "";
const protocolWords = (setting) =>
  `${setting.protocol} v${setting.version}${setting.overrides ? ` (overridden: ${setting.overrides})` : ""}`;
const placeWords = (row) =>
  [settingOf(row).dataset, settingOf(row).noise, rateWords(rows.rate[row]), bitsWords(row)].filter(Boolean).join(", ");
const compare = (a, b) =>
  a === b
    ? 0
    : a === null || a === undefined
      ? 1
      : b === null || b === undefined
        ? -1
        : typeof a === "number" && typeof b === "number"
          ? a - b
          : String(a).localeCompare(String(b), "en", { numeric: true });
const unique = (values) => [...new Set(values)].sort(compare);

function fixed(value, measure) {
  if (value === null || value === undefined) return "–";
  const rounded = Number(value.toFixed(measures[measure].decimals)) + 0; // no negative zero
  return rounded.toLocaleString("en", {
    minimumFractionDigits: measures[measure].decimals,
    maximumFractionDigits: measures[measure].decimals,
  });
}

/** `310.2 ± 1.4` of a row. */
function scoreWords(row, measure) {
  const found = rows.measures[measure];
  if (!found || found.mean[row] === null) return "–";
  return fixed(found.mean[row], measure) + (found.sd[row] === null ? "" : ` ± ${fixed(found.sd[row], measure)}`);
}

/** Where the runs behind a row are shown; null for a row without records. */
const runsLink = (row) => (rows.count[row] ? `#runs-${records.cell[rows.first[row]]}` : null);

/** A method as it must be printed: its label (reconstructions say so in it) and what else one must know. */
function methodWords(method) {
  const tags = method.flags
    .filter((flag) => !method.label.toLowerCase().includes(flag))
    .map((flag) => element("span", { class: "tag" }, TAGS[flag] || flag));
  return [method.label, element("span", { class: "tag" }, method.name), ...tags];
}
