// The page of a counsellor or operator: find an applicant, compare two runs' lists, see how the agent learned, what was
// shown and said, pin and block jobs. Looking records nothing.

import { call, hasKey, person, query, setKey, takeToken } from "./api.js";
import { learning } from "./curve.js";
import { byId, count, el, moment, skeleton } from "./dom.js";

const PAGE = 20;
const SAID = { hire: "was hired", apply: "applied", save: "saved", click: "looked", ignore: "not for me" };
const failure = byId("failure"), statusLine = byId("status");

let who = null;
let after = "";
let writes = true; // whether the key may pin and block
let asked = 0;

function fail(error) {
  failure.textContent = error.message;
  statusLine.textContent = "";
  if (error.status === 401) {
    byId("gate").hidden = false;
    byId("key").focus();
  }
}

async function begin() {
  try {
    const me = await call("v1/me");
    if (me.scope === "applicant") {
      setKey(null);
      byId("gate").hidden = false;
      throw new Error("This page is for counsellors; an applicant's token opens the page “Jobs for you”.");
    }
    writes = me.scope === "service";
    failure.textContent = "";
    byId("gate").hidden = true;
    byId("people").hidden = false;
    byId("deciding").hidden = !writes;
    const { runs } = await call("v1/runs");
    const options = () => runs.map(({ run_id, name, serves, started }) =>
      el("option", { value: run_id }, `${name}${serves ? ", serves now" : ""}${started ? `, ${started.slice(0, 10)}` : ""}`));
    byId("left").replaceChildren(...options());
    byId("right").replaceChildren(...options());
    byId("right").selectedIndex = Math.min(1, runs.length - 1);
    await find();
    const linked = new URLSearchParams(location.search).get("applicant");
    if (linked) await open(linked);
  } catch (error) {
    fail(error);
  }
}

async function find(further = false) {
  if (!further) after = "";
  const body = await call(`v1/applicants?${query({ search: byId("search").value.trim(), after, limit: PAGE })}`);
  const rows = body.applicants.map(({ id, headline, has_agent }) => el("li", {},
    el("button", { type: "button", onclick: () => open(id) }, id, el("span", {}, `${headline}${has_agent ? "" : " (no agent yet)"}`))));
  if (further) byId("found").append(...rows);
  else byId("found").replaceChildren(...(rows.length ? rows : [el("li", { class: "quiet" }, "Nobody has these words.")]));
  after = body.next ?? "";
  byId("more").hidden = body.next === null;
}

async function open(id) {
  who = id;
  failure.textContent = "";
  byId("who").textContent = id;
  byId("about").replaceChildren(...skeleton("div", 1));
  for (const place of ["left-list", "right-list", "decisions", "curve", "said", "seen"]) byId(place).replaceChildren();
  byId("person").hidden = false;
  const number = ++asked;
  const parts = writes ? [about, compare, decisions, curve, said, seen] : [compare];
  for (const name of ["curve-heading", "said-heading", "seen-heading"]) byId(name).parentElement.hidden = !writes;
  await Promise.all(parts.map((part) => part().catch((error) => {
    if (number !== asked) return;
    if (error.status === 404) byId("person").hidden = true;
    fail(error);
  })));
  if (!writes) byId("about").replaceChildren(el("p", { class: "quiet" }, "A key that only reads shows lists, not profiles and answers."));
  if (number === asked && !byId("person").hidden) byId("who").focus();
}

async function about() {
  const found = await call(person(who, "profile"));
  const past = found.experience.map(({ title }) => title).slice(0, 4).join(" · ");
  byId("about").replaceChildren(
    ...[past && el("p", { class: "past" }, past), found.bio && el("p", { class: "bio" }, found.bio)].filter(Boolean),
    el("ul", { class: "chips", "aria-label": "Skills" }, [...found.hard_skills, ...found.soft_skills].map((one) => el("li", {}, one))),
    el("p", { class: "quiet" }, `${count(found.answers, "answer")} of their own, ${found.judged} by a judge in their place; ${found.has_agent ? "an agent ranks" : "no agent yet"}.`),
    // With keys their page takes their own token; and what is opened there counts as shown to them.
    ...(hasKey() ? [] : [el("p", {}, el("a", { href: `./?${query({ applicant: who })}` }, "Open their page as they see it"))]),
  );
}

async function compare() {
  const values = { left: byId("left").value, right: byId("right").value, k: 10 };
  const body = await call(`${person(who, "comparison")}?${query(values)}`);
  byId("shared").textContent = `${count(body.shared, "job")} on both lists. Looking at them records nothing.`;
  for (const side of ["left", "right"]) {
    const chosen = byId(side).selectedOptions[0];
    byId(`${side}-heading`).textContent = `${chosen.textContent}${body[side].has_agent || chosen.value === "similarity" ? "" : " (no agent here, so by similarity)"}`;
    byId(`${side}-list`).replaceChildren(...body[side].jobs.map(placed));
  }
}

function placed({ rank, title, job_id, other_rank }) {
  const where = other_rank === null ? "only here" : other_rank === rank ? "same place" : `${other_rank} on the other`;
  const act = (action, label) => el("button", { type: "button", class: "small", "aria-label": `${label}: ${title}`, onclick: () => decide(job_id, title, action) }, label);
  return el("li", {},
    el("span", { class: "quiet" }, `${rank}.`),
    el("span", {}, title, el("small", { class: other_rank === null ? "" : "shared" }, where)),
    el("span", { class: "buttons" }, writes && act("pin", "Pin"), writes && act("block", "Block")));
}

async function decide(job_id, title, action) {
  const operator = byId("operator");
  if (!operator.value.trim()) {
    failure.textContent = "Say who decides first; it goes into the log.";
    operator.focus();
    return;
  }
  try {
    failure.textContent = "";
    await call(person(who, "decisions"), { method: "POST", json: { job_id, action, operator: operator.value.trim() } });
    statusLine.textContent = { pin: `Pinned ${title}.`, block: `Blocked ${title}.`, clear: `No longer pinned or blocked: ${title}.` }[action];
    await Promise.all([decisions(), compare()]);
    byId("lists-heading").scrollIntoView({ block: "nearest" });
  } catch (error) {
    fail(error);
  }
}

async function decisions() {
  const log = (await call(person(who, "decisions"))).decisions;
  const latest = new Map(log.map((one) => [one.job_id, one]));
  const standing = [...latest.values()].filter(({ action }) => action !== "clear");
  const rows = await Promise.all(standing.map(async ({ job_id, action, operator, at }) => {
    const title = await call(`v1/jobs/${encodeURIComponent(job_id)}`).then((job) => job.title, () => job_id);
    return el("li", {},
      el("strong", {}, title), el("span", { class: "quiet" }, `${action === "pin" ? "pinned" : "blocked"} by ${operator}, ${moment(at)}`),
      el("span", { class: "buttons" }, el("button", { type: "button", class: "small", "aria-label": `Clear: ${title}`, onclick: () => decide(job_id, title, "clear") }, "Clear")));
  }));
  byId("decisions").replaceChildren(...(rows.length ? rows : [el("li", { class: "quiet" }, "None.")]));
}

async function curve() {
  byId("curve").replaceChildren(...learning((await call(person(who, "learning"))).points));
}

async function said() {
  const { answers } = await call(person(who, "feedback"));
  byId("said").replaceChildren(answers.length
    ? el("table", {},
      el("thead", {}, el("tr", {}, ["when", "what", "job"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, answers.map(({ at, event, title, job_id }) => el("tr", {}, el("td", {}, moment(at)), el("td", {}, SAID[event]), el("td", {}, title ?? job_id)))))
    : el("p", {}, "Nothing yet."));
}

async function seen() {
  const { exposures, total } = await call(`${person(who, "exposures")}?limit=10`);
  byId("seen").replaceChildren(
    el("p", { class: "quiet" }, total ? `${count(total, "list")} in all; the newest ${exposures.length}:` : "No list was shown yet."),
    ...exposures.map(({ at, policy, preference, jobs }) => el("details", {},
      el("summary", {}, `${moment(at)}, ranked by ${policy}${preference ? `, asked for “${preference}”` : ""}`),
      el("ol", { class: "plain" }, jobs.map(({ title, job_id }) => el("li", {}, title ?? `${job_id} (no longer offered)`))))),
  );
}

let typing;
byId("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => find().catch(fail), 200);
});
byId("more").addEventListener("click", () => find(true).catch(fail));
for (const side of ["left", "right"]) byId(side).addEventListener("change", () => compare().catch(fail));
byId("gate").addEventListener("submit", (event) => event.preventDefault());
byId("key").addEventListener("change", () => {
  setKey(byId("key").value.trim());
  begin();
});

takeToken();
begin();
