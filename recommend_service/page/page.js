"use strict";
// One page without a build step. It calls the API of the server it came from, and inserts every value as text, not HTML.

const POLL_MS = 3000;
const byId = (id) => document.getElementById(id);
const form = byId("ask"), list = byId("list"), statusLine = byId("status"), failure = byId("failure");
const SAID = { apply: "Applied to", save: "Saved", ignore: "Will not show again:" };
const DONE = { save: "You saved this.", click: "You looked at this." };

let shown = null; // applicant and preference of the list on the page
let running; // id of the run that ranked it; undefined until known
let asked = 0; // number of the latest request for a list

async function call(path, options = {}) {
  const headers = { ...options.headers };
  const key = byId("key").value;
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The service does not answer. Is it running?");
  }
  if (response.status === 401) byId("key-field").hidden = false;
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail || `The service answered ${response.status}.`);
  return body;
}

function fail(error) {
  failure.textContent = error.message;
  statusLine.textContent = "";
}

async function loadApplicants() {
  try {
    const { applicants } = await call("v1/applicants?limit=500");
    byId("applicants").replaceChildren(...applicants.map(({ id, headline }) => {
      const option = document.createElement("option");
      option.value = id;
      option.label = headline ? `${id}: ${headline}` : id;
      return option;
    }));
    failure.textContent = "";
    if (!byId("applicant").value && applicants.length) byId("applicant").placeholder = applicants[0].id;
  } catch (error) {
    fail(error);
    if (!byId("key-field").hidden) byId("key").focus();
  }
}

function reasons(why) {
  const said = [];
  if (why.shared_skills.length) said.push(`You both name: ${why.shared_skills.slice(0, 6).join(", ")}`);
  if (why.preference !== null) said.push(`Like what you asked for: ${percent(why.preference)}`);
  said.push(`Like your profile: ${percent(why.cosine)}`);
  if (why.judge) said.push(`Simulated answer: apply ${percent(why.judge.apply)}, save ${percent(why.judge.save)}`);
  if (why.q !== null) {
    said.push(why.q_is_estimated
      ? `Your agent's value, from similar jobs: ${why.q.toFixed(2)}`
      : `Your agent's value: ${why.q.toFixed(2)}`);
  }
  return said;
}

const percent = (x) => `${Math.round(100 * x)} %`;

function item(job) {
  const node = byId("item").content.cloneNode(true);
  const title = node.querySelector("h3");
  title.textContent = job.title;
  title.id = `job-${job.rank}`;
  node.querySelector("article").setAttribute("aria-labelledby", title.id);
  node.querySelector(".summary").textContent = job.summary;
  node.querySelector(".mark").textContent = DONE[job.marked] || "";
  node.querySelector(".reasons").replaceChildren(...reasons(job.explanation).map((text) => {
    const line = document.createElement("li");
    line.textContent = text;
    return line;
  }));
  for (const button of node.querySelectorAll("button")) {
    button.setAttribute("aria-label", `${button.textContent}: ${job.title}`);
    button.addEventListener("click", () => answer(job, button.dataset.event));
  }
  return node;
}

async function show(wanted, said) {
  const number = ++asked;
  failure.textContent = "";
  list.setAttribute("aria-busy", "true");
  const query = new URLSearchParams({ k: "10", explain: "true" });
  if (wanted.preference) query.set("preference", wanted.preference);
  try {
    const body = await call(`v1/applicants/${encodeURIComponent(wanted.applicant)}/recommendations?${query}`);
    if (number !== asked) return; // a later request is in flight
    shown = wanted;
    running = body.run_id ?? running;
    byId("note").textContent = body.note;
    byId("run").textContent = body.run_id ? `ranked by ${body.run_id}` : "";
    list.replaceChildren(...body.recommendations.map((job) => item(job)));
    const count = body.recommendations.length;
    statusLine.textContent = `${said ? `${said} ` : ""}${count ? `${count} jobs for ${wanted.applicant}.` : "No jobs are left."}`;
  } catch (error) {
    if (number === asked) fail(error);
  } finally {
    if (number === asked) list.removeAttribute("aria-busy");
  }
}

async function answer(job, event) {
  const buttons = list.querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  try {
    await call("v1/feedback", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) },
      body: JSON.stringify({ applicant_id: shown.applicant, job_id: job.job_id, event, source: "page" }),
    });
    await show(shown, `${SAID[event]} ${job.title}.`);
    // The focused button went with the old list; without this, focus would return to the top of the page.
    byId("list-heading").focus();
  } catch (error) {
    fail(error);
    buttons.forEach((button) => { button.disabled = false; });
  }
}

async function look() {
  try {
    const { run_id } = await call("readyz");
    const before = running;
    running = run_id;
    if (shown && before !== undefined && run_id !== before) await show(shown, "Your agent has learned; the list is new.");
  } catch {
    // The next poll may succeed; a user's own request reports its failure.
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  show({ applicant: byId("applicant").value.trim(), preference: byId("preference").value.trim() });
});
byId("key").addEventListener("change", loadApplicants);
const linked = new URLSearchParams(location.search).get("applicant"); // as the report links to a person
if (linked) {
  byId("applicant").value = linked;
  show({ applicant: linked, preference: "" });
}
loadApplicants();
look();
setInterval(look, POLL_MS);
