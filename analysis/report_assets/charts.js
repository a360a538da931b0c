"use strict";
// Elements, and charts as SVG. Text only ever becomes text nodes and attributes: no name of a method can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; strings become text, nothing is left out where null stands. */
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  return filled(made, attributes, children);
}

/** The same for SVG. */
function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  return filled(made, attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Round values from low to high, about `count` of them. */
function ticks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1);
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++)
    found.push(Number((k * step).toPrecision(12)));
  return found;
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return String(Number(value.toPrecision(4)));
}

/** Outline of a marker of matplotlib's name around 0, 0. */
const OUTLINES = {
  s: "M-4-4h8v8h-8z",
  "^": "M0-5l5 9h-10z",
  v: "M0 5l5-9h-10z",
  D: "M0-5.3l5.3 5.3l-5.3 5.3l-5.3-5.3z",
  d: "M0-5.5l3.4 5.5l-3.4 5.5l-3.4-5.5z",
  "<": "M-5 0l9-5v10z",
  ">": "M5 0l-9-5v10z",
  P: "M-1.7-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
  X: "M-5-2.6l2.4-2.4l2.6 2.6l2.6-2.6l2.4 2.4l-2.6 2.6l2.6 2.6l-2.4 2.4l-2.6-2.6l-2.6 2.6l-2.4-2.4l2.6-2.6z",
  "*": "M0-6.5l1.6 4.4l4.6.1l-3.7 2.8l1.3 4.5l-3.8-2.6l-3.8 2.6l1.3-4.5l-3.7-2.8l4.6-.1z",
  p: "M0-5l4.8 3.5l-1.8 5.6h-6l-1.8-5.6z",
  h: "M0-5l4.3 2.5v5l-4.3 2.5l-4.3-2.5v-5z",
  H: "M-2.5-4.3h5l2.5 4.3l-2.5 4.3h-5l-2.5-4.3z",
  8: "M-2-4.9h4l2.9 2.9v4l-2.9 2.9h-4l-2.9-2.9v-4z",
};

function marker(look, x, y) {
  const place = `translate(${x.toFixed(1)} ${y.toFixed(1)})`;
  if (look.marker in OUTLINES) return shape("path", { d: OUTLINES[look.marker], transform: place, fill: look.colour });
  return shape("circle", { r: 4.2, transform: place, fill: look.colour });
}

/** A small picture of a method's line, for legends. */
function swatch(look) {
  const line = shape("line", {
    x1: 1,
    x2: 33,
    y1: 7,
    y2: 7,
    stroke: look.colour,
    "stroke-width": 2,
    "stroke-dasharray": dashes(look),
  });
  return shape("svg", { class: "swatch", viewBox: "0 0 34 14", "aria-hidden": "true" }, line, marker(look, 17, 7));
}

function dashes(look) {
  return look.dash.length ? look.dash.map((one) => one * 2).join(" ") : null;
}

/** What must be drawn again when the width of the window changes. */
const redraws = [];

/** As wide as there is room, so that text keeps its size on a phone. */
function chartWidth() {
  const room = document.querySelector("main").clientWidth - 34;
  return Math.max(320, Math.min(room > 900 ? room - 300 : room, 900));
}

/** A frame with axes. `x` and `y` are {label, low, high, log, ticks}; gives the SVG, the places of values, and the inner box. */
function frame({ name, width = chartWidth(), height = 360, x, y, wide = false }) {
  const box = { left: 58, right: width - 14, top: 14, bottom: height - 46 };
  const scale = (axis, from, to) => {
    const value = axis.log ? Math.log10 : (one) => one;
    const low = value(axis.low),
      span = value(axis.high) - low || 1;
    return (one) => from + ((value(one) - low) / span) * (to - from);
  };
  const toX = scale(x, box.left, box.right),
    toY = scale(y, box.bottom, box.top);
  const svg = shape("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": name,
    class: wide ? "wide" : null,
  });
  for (const tick of y.ticks || ticks(y.low, y.high, 6)) {
    svg.append(shape("line", { x1: box.left, x2: box.right, y1: toY(tick), y2: toY(tick), class: "grid" }));
    svg.append(shape("text", { x: box.left - 7, y: toY(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  for (const tick of x.ticks || (x.log ? decades(x.low, x.high) : ticks(x.low, x.high, Math.min(8, width / 70)))) {
    svg.append(shape("line", { x1: toX(tick), x2: toX(tick), y1: box.bottom, y2: box.bottom + 4, class: "axis" }));
    svg.append(shape("text", { x: toX(tick), y: box.bottom + 18, "text-anchor": "middle" }, short(tick)));
  }
  svg.append(shape("path", { d: `M${box.left} ${box.top}V${box.bottom}H${box.right}`, class: "axis" }));
  svg.append(shape("text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, x.label));
  svg.append(
    shape(
      "text",
      {
        x: 14,
        y: (box.top + box.bottom) / 2,
        transform: `rotate(-90 14 ${(box.top + box.bottom) / 2})`,
        "text-anchor": "middle",
      },
      y.label,
    ),
  );
  return { svg, toX, toY, box };
}

function decades(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high * 1.0001; power++) {
    for (const digit of [1, 2, 5])
      if (digit * 10 ** power >= low * 0.9999 && digit * 10 ** power <= high * 1.0001) found.push(digit * 10 ** power);
  }
  return found.length ? found : [low, high];
}

/** From the smallest to the largest value, with some air. */
function range(values, least = -Infinity, most = Infinity) {
  const known = values.filter((one) => Number.isFinite(one));
  if (!known.length) return { low: 0, high: 1 };
  const low = Math.min(...known),
    high = Math.max(...known),
    air = 0.05 * (high - low) || Math.abs(high) * 0.05 || 1;
  return { low: Math.max(low - air, least), high: Math.min(high + air, most) };
}

/**
 * Lines with bands. `lines` are {look, label, points: [{x, y, sd, href}]}; a point with `href` is a link to where the number comes from.
 * `marks` = whether every point has its marker.
 */
function lineChart({ name, x, y, lines, marks = true, height }) {
  const points = lines.flatMap((line) => line.points);
  const across = x.ticks
    ? { low: Math.min(...x.ticks), high: Math.max(...x.ticks) }
    : { low: Math.min(...points.map((p) => p.x)), high: Math.max(...points.map((p) => p.x)) };
  if (across.low === across.high) {
    across.low -= 0.5;
    across.high += 0.5;
  }
  const up = range(
    points.flatMap((p) => [p.y - (p.sd || 0), p.y + (p.sd || 0)]),
    y.least,
    y.most,
  );
  const { svg, toX, toY } = frame({ name, height, x: { ...x, ...across }, y: { ...y, ...up } });
  for (const line of lines) {
    const banded = line.points.filter((p) => Number.isFinite(p.sd) && p.sd !== null);
    if (banded.length > 1) {
      const above = banded.map((p) => `${toX(p.x).toFixed(1)} ${toY(p.y + p.sd).toFixed(1)}`);
      const below = banded.map((p) => `${toX(p.x).toFixed(1)} ${toY(p.y - p.sd).toFixed(1)}`).reverse();
      svg.append(shape("path", { d: `M${[...above, ...below].join("L")}Z`, fill: line.look.colour, opacity: 0.12 }));
    }
  }
  for (const line of lines) {
    const path = line.points.map((p) => `${toX(p.x).toFixed(1)} ${toY(p.y).toFixed(1)}`).join("L");
    svg.append(
      shape("path", {
        d: `M${path}`,
        fill: "none",
        stroke: line.look.colour,
        "stroke-width": 1.8,
        "stroke-dasharray": dashes(line.look),
      }),
    );
    if (marks || line.points.length === 1)
      for (const p of line.points)
        svg.append(
          linked(
            marker(line.look, toX(p.x), toY(p.y)),
            p.href,
            `${line.label}, ${x.label} ${short(p.x)}: ${spread(p)}`,
          ),
        );
    for (const p of line.points.filter((one) => one.chosen))
      svg.append(linked(marker(line.look, toX(p.x), toY(p.y)), null, `${line.label}: selected epoch`));
  }
  return svg;
}

function spread(point) {
  const digits = Math.abs(point.y) < 2 ? 3 : 1;
  return (
    point.y.toFixed(digits) + (Number.isFinite(point.sd) && point.sd !== null ? ` ± ${point.sd.toFixed(digits)}` : "")
  );
}

/** A shape with its words, as a link where there is somewhere to go. */
function linked(inside, href, words) {
  inside.append(shape("title", {}, words));
  return href ? shape("a", { href, "aria-label": words }, inside) : inside;
}

/** A figure with its chart and what it shows in words. */
function figure(svg, caption) {
  return element(
    "figure",
    {},
    element("div", { class: "chart", tabindex: svg.classList.contains("wide") ? "0" : null }, svg),
    element("figcaption", {}, caption),
  );
}

/** The critical-difference diagram: ranks on a line, bars over methods that cannot be separated. */
function rankDiagram(ranks, methods) {
  const count = ranks.methods.length,
    half = Math.ceil(count / 2),
    width = 980,
    left = 345,
    right = 635;
  const bars = ranks.cliques.map((clique) => clique.map((one) => ranks.ranks[ranks.methods.indexOf(one)]));
  const top = 64,
    first = top + 26 + 9 * bars.length,
    line = 19,
    height = first + half * line + 16;
  const toX = (rank) => left + ((rank - 1) / Math.max(count - 1, 1)) * (right - left);
  const svg = shape("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    class: "wide",
    "aria-label": `Average ranks of ${count} methods; the list of tie groups below says the same in words`,
  });
  svg.append(shape("path", { d: `M${left} ${top}H${right}`, class: "axis" }));
  const step = Math.ceil(count / 14);
  for (let rank = 1; rank <= count; rank++) {
    svg.append(shape("path", { d: `M${toX(rank)} ${top}v-6`, class: "axis" }));
    if ((rank - 1) % step === 0)
      svg.append(shape("text", { x: toX(rank), y: top - 11, "text-anchor": "middle" }, String(rank)));
  }
  const end = toX(1) + (ranks.difference / Math.max(count - 1, 1)) * (right - left);
  svg.append(shape("path", { d: `M${toX(1)} 18v8M${toX(1)} 22H${end}M${end} 18v8`, class: "axis" }));
  svg.append(
    shape(
      "text",
      { x: toX(1) - 10, y: 26, "text-anchor": "end" },
      `critical difference ${ranks.difference.toFixed(2)}`,
    ),
  );
  svg.append(
    shape("text", { x: left - 10, y: top + 4, "text-anchor": "end", class: "small" }, "best"),
    shape("text", { x: right + 10, y: top + 4, class: "small" }, "worst"),
  );
  bars.forEach((bar, place) =>
    svg.append(
      shape("path", {
        d: `M${toX(Math.min(...bar)) - 4} ${top + 13 + 9 * place}H${toX(Math.max(...bar)) + 4}`,
        stroke: "#1b1b1b",
        "stroke-width": 4,
        "stroke-linecap": "round",
      }),
    ),
  );
  ranks.methods.forEach((method, place) => {
    const onLeft = place < half,
      y = first + (onLeft ? place : count - 1 - place) * line,
      rank = ranks.ranks[place],
      look = methods[method];
    const x = toX(rank),
      edge = onLeft ? left - 26 : right + 26;
    svg.append(
      shape("path", { d: `M${x} ${top}V${y}H${edge}`, fill: "none", stroke: look.colour, "stroke-width": 1.2 }),
    );
    svg.append(marker(look, x, top));
    const text = `${look.label} (${rank.toFixed(2)})`,
      most = 42;
    svg.append(
      shape(
        "text",
        { x: edge + (onLeft ? -5 : 5), y: y + 4, "text-anchor": onLeft ? "end" : "start" },
        text.length > most ? `${look.label.slice(0, most - 10)}… (${rank.toFixed(2)})` : text,
        shape("title", {}, text),
      ),
    );
  });
  return svg;
}
