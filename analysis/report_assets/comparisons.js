// Which methods can be told apart: ranks and pairs, query by query, paper against released code.

// Ranks, ties, pairs

function ranksPanel() {
  const { groups } = data;
  if (!groups.length)
    return nothing(
      "ranks",
      "Nothing can be compared: that needs two methods with finished runs under the same protocol.",
    );
  const body = element("div");
  const show = (place) => {
    const group = groups[place];
    body.replaceChildren(
      ...[
        group.ranks
          ? rankPart(group.ranks)
          : element("p", { class: "soft" }, "No ranks: they need three methods with runs in the same two blocks."),
        pairPart(group),
        ...group.sections.map((section) =>
          element(
            "details",
            {},
            element("summary", {}, section.title),
            element(
              "ul",
              {},
              section.sentences.map((one) => element("li", {}, one)),
            ),
            section.rows.length ? plainTable(section.title, section.heads, section.rows) : null,
          ),
        ),
      ],
    );
  };
  panel("ranks").append(
    element(
      "div",
      { class: "controls" },
      choice(
        "Compared on",
        groups.map((group, place) => [String(place), `${group.title} (${TASKS[group.task] || group.task})`]),
        "0",
        show,
      ),
    ),
    body,
  );
  show(0);
}

function rankPart(ranks) {
  const names = (clique) => clique.map((one) => methods[one].label).join(", ");
  const ties = ranks.cliques.length
    ? element(
        "ol",
        {},
        ranks.cliques.map((clique) => element("li", {}, names(clique))),
      )
    : element("p", {}, "None: the critical difference separates all neighbours.");
  return element(
    "div",
    {},
    figure(rankDiagram(ranks, methods), ranks.caption),
    element("h3", {}, "Tie groups: methods whose ranks the critical difference cannot separate"),
    ties,
  );
}

function pairPart(group) {
  const { pairs } = group,
    present = unique([...pairs.first, ...pairs.second]),
    words = element("p", { class: "verdict", role: "status", "aria-live": "polite" });
  const state = { first: pairs.first[0], second: pairs.second[0] };
  const options = present.map((one) => [String(one), methods[one].label]);
  const say = () => {
    const place = pairs.first.findIndex(
      (one, k) =>
        (one === state.first && pairs.second[k] === state.second) ||
        (one === state.second && pairs.second[k] === state.first),
    );
    words.textContent =
      place >= 0
        ? pairs.sentences[place]
        : state.first === state.second
          ? "Choose two different methods."
          : "These two have no run in common.";
  };
  const column = (title, place) => ({
    title,
    value: (k) =>
      Number.isNaN(parseFloat(pairs.facts[k][place])) ? pairs.facts[k][place] : parseFloat(pairs.facts[k][place]),
    cell: (k) => pairs.facts[k][place],
  });
  const table = new SortedTable({
    caption: `All ${pairs.first.length} pairs: the difference is first minus second, in ${group.measure}`,
    pageSize: 15,
    columns: [
      { title: "First", value: (k) => methods[pairs.first[k]].label },
      { title: "Second", value: (k) => methods[pairs.second[k]].label },
      ...pairs.heads.map(column),
    ],
  });
  table.show(pairs.first.map((_, k) => k));
  say();
  return element(
    "div",
    {},
    element("h3", {}, "Can these two be told apart?"),
    element(
      "div",
      { class: "controls" },
      choice("First method", options, String(state.first), (one) => {
        state.first = Number(one);
        say();
      }),
      choice("Second method", options, String(state.second), (one) => {
        state.second = Number(one);
        say();
      }),
    ),
    words,
    element("details", {}, element("summary", {}, "All pairs"), table.node),
  );
}

// Queries

const probability = (p) => (p < 0.001 ? "< 0.001" : `= ${p.toFixed(3)}`);

function queriesPanel() {
  const { queries } = data;
  if (!queries.length)
    return nothing("queries", data.detailsSentence || "No two methods have per-query results at the same place.");
  const places = setupOptions(
      queries.map((one) => one.rows[0]),
      detailPlace,
    ),
    middle = queries.find((one) => rows.rate[one.rows[0]] === 0.4) || queries[0];
  const state = { place: detailPlace(middle.rows[0]), first: null, second: null },
    fields = element("div", { class: "controls" }),
    body = element("div");
  const set = () => {
    const here = queries.filter((one) => detailPlace(one.rows[0]) === state.place),
      names = here[0].rows.map((row) => rows.method[row]);
    if (!names.includes(state.first)) state.first = names[0];
    if (!names.includes(state.second) || state.second === state.first)
      state.second = names.find((one) => one !== state.first);
    const options = names.map((one) => [String(one), methods[one].label]);
    refill(
      fields,
      choice("Data set, noise and rate", places, state.place, (one) => {
        state.place = one;
        set();
      }),
      choice("First method", options, String(state.first), (one) => {
        state.first = Number(one);
        set();
      }),
      choice("Second method", options, String(state.second), (one) => {
        state.second = Number(one);
        set();
      }),
    );
    body.replaceChildren(...here.map((one) => directionPart(one, state)));
  };
  panel("queries").append(element("p", { class: "soft" }, data.detailsSentence), fields, body);
  set();
}

function directionPart(entry, state) {
  const way = entry.way === "i2t" ? "image to text" : "text to image";
  const pair = entry.pairs.find((one) =>
    [rows.method[one.first], rows.method[one.second]].every(
      (method) => method === state.first || method === state.second,
    ),
  );
  if (!pair)
    return element(
      "div",
      {},
      element("h3", {}, way),
      element("p", {}, "These two have no common seed with per-query results."),
    );
  const turned = rows.method[pair.first] !== state.first,
    sign = turned ? -1 : 1;
  const [a, b] = [methods[state.first].label, methods[state.second].label],
    [better, worse] = turned ? [pair.worse, pair.better] : [pair.better, pair.worse];
  const verdict =
    pair.holm < 0.05
      ? `These trained models differ: ${sign * pair.difference > 0 ? a : b} is better`
      : "These trained models cannot be told apart on these queries";
  const rejected = pair.mcnemar.filter((one) => one[2] < 0.05).length;
  const list = pair.queries.map(([query, one, two]) => {
    const [x, y] = turned ? [two, one] : [one, two];
    return [`query ${query + 1}`, x.toFixed(3), y.toFixed(3), (x - y > 0 ? "+" : "") + (x - y).toFixed(3)];
  });
  return element(
    "div",
    {},
    element("h3", {}, way),
    element(
      "p",
      { class: "verdict", role: "status" },
      `${verdict} (mean difference of the ${entry.measure} ${sign * pair.difference > 0 ? "+" : ""}${(sign * pair.difference).toFixed(4)} over ${entry.queries.toLocaleString("en")} queries and ${pair.seeds.length} common seed${pair.seeds.length === 1 ? "" : "s"}; randomisation test p ${probability(pair.p)}; p ${probability(pair.holm)} after Holm's adjustment for the ${entry.pairs.length} pairs at this place). ${a} does better on ${better}, ${b} on ${worse}.`,
    ),
    pair.mcnemar.length
      ? element(
          "p",
          {},
          `McNemar's exact test on hits at 1 says p < 0.05 for ${rejected} of ${pair.mcnemar.length} seeds.`,
        )
      : null,
    element(
      "details",
      {},
      element("summary", {}, "McNemar by seed, and the queries that differ most"),
      pair.mcnemar.length
        ? plainTable(
            "Hits at 1: queries that only one of the two finds",
            ["Seed", `only ${a}`, `only ${b}`, "p"],
            pair.mcnemar.map((one, k) => [
              String(pair.seeds[k]),
              String(one[turned ? 1 : 0]),
              String(one[turned ? 0 : 1]),
              probability(one[2]),
            ]),
          )
        : null,
      plainTable(
        `Queries that differ most (${entry.measure}, mean over seeds; queries of the test split, counted from 1)`,
        ["Query", a, b, "Difference"],
        list,
      ),
    ),
  );
}

// Paper against released code

function auditPanel() {
  if (!data.audit.length)
    return nothing("audit", "No method here has finished runs of both variants at the same place.");
  data.audit.forEach((entry, place) => {
    const table = () =>
      plainTable(
        `${methods[entry.paper].label}: ${measures[headline(entry.rows[0][0])].label} of both variants`,
        ["Place", "paper", "released", "difference"],
        entry.rows.map(([paper, released]) => {
          const difference = rows.mean[released] - rows.mean[paper];
          return [
            placeWords(paper),
            element("a", { href: runsLink(paper) }, scoreWords(paper, headline(paper))),
            element("a", { href: runsLink(released) }, scoreWords(released, headline(released))),
            `${difference > 0 ? "+" : ""}${fixed(difference, headline(paper))}`,
          ];
        }),
      );
    // Tables are made when they are asked for: there may be many methods.
    const places = element(
      "details",
      {
        ontoggle: () => {
          if (places.children.length === 1) places.append(table());
        },
      },
      element("summary", {}, `${entry.rows.length} ${entry.rows.length === 1 ? "place" : "places"} with both variants`),
    );
    places.open = place === 0;
    panel("audit").append(
      element("h3", {}, methodWords(methods[entry.paper])),
      element(
        "ul",
        {},
        entry.sentences.map((one) => element("li", {}, one)),
      ),
      places,
    );
  });
}
