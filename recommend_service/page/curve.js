// A learning curve as SVG, with its numbers in a table for those who cannot see it.

import { el, percent } from "./dom.js";

const WIDTH = 600, HEIGHT = 220, LEFT = 44, RIGHT = 12, TOP = 10, BOTTOM = 30;

function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// name -> [[x, y], …]; at least one point.
function plot(lines, xLabel) {
  const points = Object.values(lines).flat();
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1), y0 = Math.min(0, ...ys), y1 = Math.max(1, ...ys);
  const x = (value) => LEFT + ((value - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "curve", "aria-hidden": "true" });
  for (const tick of [y0, (y0 + y1) / 2, y1]) {
    chart.append(
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick), class: "axis" }),
      svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(1)),
    );
  }
  for (const tick of [x0, x1]) chart.append(svg("text", { x: x(tick), y: HEIGHT - 10, "text-anchor": "middle" }, String(Math.round(tick))));
  chart.append(svg("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 10, "text-anchor": "middle" }, xLabel));
  for (const [name, line] of Object.entries(lines)) {
    chart.append(svg("polyline", { points: line.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" "), class: name }));
  }
  return chart;
}

const number = (value) => (value === null ? "" : value.toFixed(2));

export function learning(points) {
  if (!points.length) return [el("p", {}, "No agent has been trained for this applicant in the run that serves.")];
  const rounds = points.every(({ judgements }) => judgements === 0); // a strategy that needs no judge
  const along = ({ judgements, round }) => (rounds ? round : judgements);
  const line = (value) => points.filter((one) => value(one) !== null).map((one) => [along(one), value(one)]);
  const lines = { reward: line((one) => one.judge_reward ?? one.reward), ndcg: line((one) => one.ndcg) };
  const known = Object.fromEntries(Object.entries(lines).filter(([, drawn]) => drawn.length));
  const last = points.at(-1);
  const rows = points.map((one) => el("tr", {},
    el("td", {}, String(one.round)), el("td", {}, String(one.judgements)), el("td", {}, number(one.judge_reward ?? one.reward)),
    el("td", {}, number(one.ndcg)), el("td", {}, `${one.applied} / ${one.saved} / ${one.clicked} / ${one.ignored}`)));
  return [
    el("p", {}, `${points.length} rounds, ${last.judgements} answers in their place.${last.trust === null ? "" : ` The judge is believed to ${percent(last.trust)}.`}`),
    Object.keys(known).length > 0 && plot(known, rounds ? "rounds" : "answers"),
    el("p", { class: "quiet" }, "Solid: mean reward of the jobs tried in each round.", lines.ndcg.length > 0 && " Dashed: nDCG of the whole ranking against known relevance."),
    el("details", {}, el("summary", {}, "The numbers"), el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Rounds" }, el("table", {},
      el("thead", {}, el("tr", {}, ["round", "answers", "reward", "nDCG", "apply / save / look / ignore"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows)))),
  ].filter(Boolean);
}
