// The page of an applicant: their profile, their list, what they saved, what changed. Without keys, on loopback, the
// operator chooses whose page it is.

import { call, hasKey, once, person, query, setKey, takeToken } from "./api.js";
import { byId, count, day, el, skeleton } from "./dom.js";
import { card, SAID } from "./jobs.js";
import * as profile from "./profile.js";

const POLL_MS = 3000;
const SHOWN = 10;
const FACETS = { place: "Place", contract: "Contract", language: "Language" };
const BY = { model: "A model", judge: "A simulated answer", person: "A person" };
const WHY_LEFT = { answered: "you answered", withdrawn: "no longer offered", operator: "taken off by a person", "ranked-lower": "others suit you better" };
const list = byId("list"), statusLine = byId("status"), failure = byId("failure");

let whose = null; // the applicant whose page this is
let running; // id of the run that ranks; undefined until known
let asked = 0; // number of the latest request for a list
let editing = false; // whether the form changes a profile, or makes one

function fail(error) {
  failure.textContent = error.message;
  statusLine.textContent = "";
  if (error.status === 401) gate();
}

function gate() {
  byId("gate").hidden = false;
  byId("token").focus();
}

// Whose page this is: that of the token's owner, or, on a service without keys, of whoever is chosen.
async function begin() {
  try {
    const me = await call("v1/me");
    if (hasKey() && me.scope !== "applicant") {
      setKey(null);
      byId("token").value = "";
      gate();
      throw new Error("This page takes an applicant's own access token, never the service's key.");
    }
    failure.textContent = "";
    byId("gate").hidden = true;
    offerFilters();
    if (me.applicant_id !== null) {
      document.body.classList.toggle("reading", me.read_only);
      byId("erase").hidden = me.read_only;
      byId("edit").hidden = me.read_only;
      await open(me.applicant_id);
      return;
    }
    byId("chooser").hidden = false;
    byId("counsellor").hidden = false;
    const linked = new URLSearchParams(location.search).get("applicant"); // as the report links to a person
    if (linked) {
      byId("applicant").value = linked;
      await open(linked);
    }
    await greet();
  } catch (error) {
    fail(error);
  }
}

async function greet() {
  const [{ jobs }, { applicants }] = await Promise.all([call("readyz"), offerApplicants("")]);
  byId("no-jobs").hidden = jobs > 0;
  byId("chooser").hidden = jobs === 0;
  if (jobs > 0 && !applicants.length && whose === null) {
    byId("no-applicants").hidden = false;
    edit(null);
  }
}

async function offerApplicants(search) {
  const found = await call(`v1/applicants?${query({ limit: "50", search })}`);
  byId("applicants").replaceChildren(...found.applicants.map(({ id, headline }) =>
    el("option", { value: id, label: headline ? `${id}: ${headline}` : id })));
  return found;
}

async function offerFilters() {
  const offered = await call("v1/filters").catch(() => ({}));
  const fields = Object.entries(FACETS).filter(([name]) => offered[name]?.length > 1).map(([name, label]) =>
    el("p", {}, el("label", { for: name }, label), el("select", { id: name },
      el("option", { value: "" }, "any"), offered[name].map(({ value, jobs }) => el("option", { value }, `${value} (${jobs})`)))));
  byId("filters").replaceChildren(...fields);
}

function wanted() {
  const values = { preference: byId("preference").value.trim() };
  for (const name of Object.keys(FACETS)) values[name] = byId(name)?.value ?? "";
  return values;
}

// Nothing of one person stays on the page when another one is asked for.
function forget() {
  whose = null;
  asked += 1;
  for (const id of ["me", "jobs", "since", "saved", "form"]) byId(id).hidden = true;
  for (const id of ["known", "list", "saved-list", "changes", "parts"]) byId(id).replaceChildren();
  byId("note").textContent = "";
  byId("run").textContent = "";
  byId("undo").hidden = true;
  statusLine.textContent = "";
  failure.textContent = "";
}

async function open(applicant) {
  forget();
  whose = applicant;
  byId("jobs").hidden = false;
  if (await show()) {
    await Promise.all([know(), saved(), since()].map((done) => done.catch(fail)));
  }
}

// Resolves to whether there is a list.
async function show(said = "") {
  const number = ++asked;
  failure.textContent = "";
  list.setAttribute("aria-busy", "true");
  if (!list.children.length) list.replaceChildren(...skeleton("li", 3));
  try {
    const values = { k: SHOWN, explain: "true", ...wanted() };
    const body = await call(`${person(whose, "recommendations")}?${query(values)}`);
    if (number !== asked) return false; // a later request is in flight
    running = body.run_id ?? running;
    byId("note").textContent = body.source === "agent" ? "" : body.note;
    byId("parts").replaceChildren(...body.parts.map(({ by, how }) => el("li", {}, `${BY[by]}: ${how}`)));
    byId("run").textContent = body.run_id ? `ranked by ${body.run_id}` : "";
    list.replaceChildren(...body.recommendations.map((job) => card(job, answer)));
    const found = body.recommendations.length;
    byId("whose").hidden = !found;
    byId("none").hidden = found > 0;
    statusLine.textContent = `${said ? `${said} ` : ""}${found ? `${count(found, "job")} for ${whose}.` : "No jobs are left."}`;
    return true;
  } catch (error) {
    if (number === asked) {
      const gone = error.status !== 0 && error.status < 500;
      if (gone) forget();
      else list.replaceChildren(...[...list.children].filter((one) => one.className !== "skeleton"));
      fail(error);
    }
    return false;
  } finally {
    if (number === asked) list.removeAttribute("aria-busy");
  }
}

async function know() {
  const found = await call(person(whose, "profile"));
  byId("known").replaceChildren(...profile.shown(found).filter(Boolean));
  byId("me").hidden = false;
  return found;
}

async function saved() {
  const { answers } = await call(person(whose, "feedback"));
  const kept = answers.filter(({ event }) => event === "save");
  const done = answers.filter(({ event }) => event === "apply" || event === "hire");
  byId("saved").hidden = !(kept.length || done.length);
  byId("saved-list").replaceChildren(
    ...kept.map((job) => row(job, `saved ${day(job.at)}`, true)),
    ...done.map((job) => row(job, `applied ${day(job.at)}`, false)),
  );
}

function row(job, when, open) {
  const title = job.title ?? job.job_id;
  const button = (event, label) =>
    el("button", { type: "button", class: "small", "aria-label": `${label}: ${title}`, onclick: () => answer({ ...job, title }, event) }, label);
  return el("li", {},
    el("strong", {}, title), el("span", { class: "quiet" }, job.title === null ? "no longer offered" : when),
    el("span", { class: "buttons" }, open && job.title !== null && button("apply", "Apply"), button("undo", "Take back")));
}

async function since() {
  const body = await call(person(whose, "changes"));
  const rows = [
    ...body.entered.map(({ title }) => el("li", { class: "new" }, title)),
    ...body.left.map(({ title, job_id, why }) => el("li", { class: "gone" }, el("s", {}, title ?? job_id), ` ${WHY_LEFT[why]}`)),
  ];
  if (body.new_run) rows.unshift(el("li", { class: "learned" }, "Your agent has learned."));
  byId("since").hidden = !rows.length;
  byId("since-when").textContent = body.since ? day(body.since) : "";
  byId("changes").replaceChildren(...rows);
}

async function send(job, event) {
  await call("v1/feedback", {
    method: "POST",
    headers: once(),
    json: { applicant_id: whose, job_id: job.job_id, event, source: "page" },
  });
}

async function answer(job, event) {
  const buttons = document.querySelectorAll("#list button, #saved button, #undo");
  buttons.forEach((button) => { button.disabled = true; });
  try {
    await send(job, event);
    await show(`${SAID[event]} ${job.title}.`);
    const undo = byId("undo");
    undo.hidden = event === "undo";
    undo.setAttribute("aria-label", `Undo: ${job.title}`);
    undo.onclick = () => answer(job, "undo");
    // The focused button went with the old list; without this, focus would return to the top of the page.
    byId("list-heading").focus();
    await Promise.all([know(), saved()].map((done) => done.catch(fail)));
  } catch (error) {
    fail(error);
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}

function edit(known) {
  editing = known !== null;
  byId("form-heading").textContent = editing ? "Change what is known about you" : "A new applicant";
  byId("store").textContent = editing ? "Keep" : "Create and show jobs";
  if (known) profile.fill(known);
  else profile.clear();
  byId("read-note").textContent = "";
  byId("form-failure").textContent = "";
  byId("form").hidden = false;
  byId("form-heading").focus();
}

byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = byId("store");
  button.disabled = true;
  byId("form-failure").textContent = "";
  try {
    if (editing) {
      await call(person(whose, "profile"), { method: "PUT", json: profile.filled() });
      byId("form").hidden = true;
      await show("Your profile is changed.");
      await know();
    } else {
      const { id } = await call("v1/applicants", { method: "POST", headers: once(), json: profile.filled() });
      byId("no-applicants").hidden = true;
      byId("applicant").value = id;
      await open(id);
    }
    byId("list-heading").focus();
  } catch (error) {
    byId("form-failure").textContent = error.message;
  } finally {
    button.disabled = false;
  }
});
byId("cancel").addEventListener("click", () => { byId("form").hidden = true; });
byId("edit").addEventListener("click", () => know().then(edit).catch(fail));
byId("new").addEventListener("click", () => { forget(); edit(null); });
byId("export").addEventListener("click", async () => {
  try {
    const held = await call(person(whose, "export"));
    const link = el("a", { download: "what-is-held.json", href: URL.createObjectURL(new Blob([JSON.stringify(held, null, 2)], { type: "application/json" })) });
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    fail(error);
  }
});
byId("erase").addEventListener("click", async () => {
  if (!confirm("Erase everything that is held about you? This cannot be undone.")) return;
  try {
    await call(person(whose), { method: "DELETE" });
    forget();
    statusLine.textContent = "Everything that was held about you is erased.";
  } catch (error) {
    fail(error);
  }
});
byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
byId("chooser").addEventListener("submit", (event) => {
  event.preventDefault();
  open(byId("applicant").value.trim());
});
let typing;
byId("applicant").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => offerApplicants(byId("applicant").value.trim()).catch(fail), 250);
});
byId("clear").addEventListener("click", () => {
  byId("ask").reset();
  show();
});
byId("gate").addEventListener("submit", (event) => event.preventDefault());
byId("token").addEventListener("change", () => {
  setKey(byId("token").value.trim());
  begin();
});

async function look() {
  try {
    const { run_id } = await call("readyz");
    const before = running;
    running = run_id;
    if (whose && before !== undefined && run_id !== before) await show("Your agent has learned; the list is new.");
  } catch {
    // The next poll may succeed; a user's own request reports its failure.
  }
}

takeToken();
profile.begin();
begin();
setInterval(look, POLL_MS);
look();
