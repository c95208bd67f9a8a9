"use strict";
// One page without a build step. It calls the API of the server it came from, and inserts every value as text, not HTML.

const POLL_MS = 3000;
const byId = (id) => document.getElementById(id);
const form = byId("ask"), list = byId("list"), statusLine = byId("status"), failure = byId("failure");
const SAID = { apply: "Applied to", save: "Saved", ignore: "Will not show again:" };
const BY = { model: "A model", judge: "A simulated answer", person: "A person" };
const PINNED = "A person put this first for you.";
const DONE = { save: "You saved this.", click: "You looked at this." };

let shown = null; // applicant and preference of the list on the page
let running; // id of the run that ranked it; undefined until known
let asked = 0; // number of the latest request for a list
let token = takeToken(); // the person's own; the page never has the service key

// A link may end in #token=…, which browsers do not send to servers; it is taken out of the address bar at once.
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) history.replaceState(null, "", location.pathname + location.search);
  return given;
}

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The service does not answer. Is it running?");
  }
  if (response.status === 401) byId("token-field").hidden = false;
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail || `The service answered ${response.status}.`);
  return body;
}

function fail(error) {
  failure.textContent = error.message;
  statusLine.textContent = "";
}

// Whose page this is: that of the token's owner, or, on a service without keys, of whoever is chosen.
async function begin() {
  try {
    const me = await call("v1/me");
    if (token && me.scope !== "applicant") {
      token = null;
      byId("token").value = "";
      byId("token-field").hidden = false;
      throw new Error("This page takes an applicant's own access token, never the service's key.");
    }
    failure.textContent = "";
    if (me.applicant_id === null) {
      await listApplicants();
      return;
    }
    byId("token-field").hidden = true;
    byId("applicant-field").hidden = true;
    byId("applicant").value = me.applicant_id;
    await show({ applicant: me.applicant_id, preference: "" });
  } catch (error) {
    fail(error);
    if (!byId("token-field").hidden) byId("token").focus();
  }
}

async function listApplicants() {
  const { applicants } = await call("v1/applicants?limit=500");
  byId("applicants").replaceChildren(...applicants.map(({ id, headline }) => {
    const option = document.createElement("option");
    option.value = id;
    option.label = headline ? `${id}: ${headline}` : id;
    return option;
  }));
  if (!byId("applicant").value && applicants.length) byId("applicant").placeholder = applicants[0].id;
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
  node.querySelector(".mark").textContent = job.placed_by === "person" ? PINNED : DONE[job.marked] || "";
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
    byId("parts").replaceChildren(...body.parts.map(({ by, how }) => {
      const line = document.createElement("li");
      line.textContent = `${BY[by]}: ${how}`;
      return line;
    }));
    byId("whose").hidden = false;
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
byId("token").addEventListener("change", () => {
  token = byId("token").value.trim() || null;
  begin();
});
const linked = new URLSearchParams(location.search).get("applicant"); // as the report links to a person
if (linked && !token) {
  byId("applicant").value = linked;
  show({ applicant: linked, preference: "" });
}
begin();
look();
setInterval(look, POLL_MS);
