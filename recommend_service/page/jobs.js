// One job of a list, and the wording of what is known about it.

import { el, percent } from "./dom.js";

export const SAID = { apply: "Applied to", save: "Saved", ignore: "Will not show again:", undo: "Taken back:" };
const ACTIONS = { apply: "Apply", save: "Save", ignore: "Not for me" };
const DONE = { save: "You saved this.", click: "You looked at this." };

function numbers(why) {
  const said = [`Similarity to your profile: ${percent(why.cosine)}`];
  if (why.preference !== null) said.push(`Similarity to what you asked for: ${percent(why.preference)}`);
  if (why.judge) {
    const { apply, save, click, ignore } = why.judge;
    said.push(`Simulated answer: apply ${percent(apply)}, save ${percent(save)}, look ${percent(click)}, ignore ${percent(ignore)}`);
  }
  if (why.q !== null) said.push(`Your agent's value (Q)${why.q_is_estimated ? ", from similar jobs" : ""}: ${why.q.toFixed(2)}`);
  return said;
}

// act: called with the job and "apply", "save" or "ignore".
export function card(job, act) {
  const title = `job-${job.rank}`;
  const marks = [
    job.exploring && el("span", { class: "mark exploring", title: "It ranks lower; your answer helps to learn what suits you." }, "exploring"),
    job.placed_by === "person" && el("span", { class: "mark" }, "A person put this first for you."),
    DONE[job.marked] && el("span", { class: "mark" }, DONE[job.marked]),
  ];
  const facets = Object.entries(job.facets).map(([name, value]) => el("li", { class: name }, value));
  return el("li", {}, el("article", { "aria-labelledby": title },
    el("h3", { id: title }, job.title),
    facets.length > 0 && el("ul", { class: "facets", "aria-label": "Place, contract, language" }, facets),
    marks.some(Boolean) && el("p", { class: "marks" }, marks),
    el("ul", { class: "reasons", "aria-label": "Why it is here" }, job.explanation.reasons.map((text) => el("li", {}, text))),
    el("p", { class: "summary" }, job.summary),
    el("p", { class: "buttons" }, Object.entries(ACTIONS).map(([event, label]) =>
      el("button", { type: "button", "data-event": event, "aria-label": `${label}: ${job.title}`, onclick: () => act(job, event) }, label))),
    el("details", { class: "numbers" }, el("summary", {}, "Details"), el("ul", {}, numbers(job.explanation).map((text) => el("li", {}, text)))),
  ));
}
