// A profile: what is known, and the form in which it is made or changed, from typed or pasted text or a document.

import { call, query } from "./api.js";
import { byId, count, el, lines } from "./dom.js";

export function shown(profile) {
  const past = profile.experience.map(({ title, company }) => (company ? `${title}, ${company}` : title));
  const skills = [...profile.hard_skills, ...profile.soft_skills];
  const said = profile.answers
    ? `You have answered on ${count(profile.answers, "job")}.`
    : "You have not answered on any job yet.";
  const judged = profile.judged
    ? ` A computer has guessed your answer on ${count(profile.judged, "job")}, so that you need not give all of them.`
    : "";
  const agent = profile.has_agent
    ? " An agent of your own has learned which jobs suit you."
    : " Jobs are ordered by how close they are to this profile, until an agent of your own has learned.";
  return [
    past.length > 0 && el("p", { class: "past" }, past.slice(0, 4).join(" · ")),
    profile.bio && el("p", { class: "bio" }, profile.bio),
    skills.length > 0 && el("ul", { class: "chips", "aria-label": "Skills" }, skills.slice(0, 24).map((one) => el("li", {}, one))),
    el("p", { class: "quiet" }, said + judged + agent),
  ];
}

const position = ({ title, company }) => (company ? `${title} at ${company}` : title);

function asPosition(line) {
  const at = line.lastIndexOf(" at ");
  return at > 0 ? { title: line.slice(0, at).trim(), company: line.slice(at + 4).trim() } : { title: line, company: "" };
}

const fields = { bio: "bio", hard_skills: "hard-skills", soft_skills: "soft-skills", experience: "experience" };

export function fill(profile) {
  byId("bio").value = profile.bio;
  byId("hard-skills").value = profile.hard_skills.join("\n");
  byId("soft-skills").value = profile.soft_skills.join("\n");
  byId("experience").value = profile.experience.map(position).join("\n");
}

export function filled() {
  return {
    bio: byId("bio").value.trim(),
    hard_skills: lines(byId("hard-skills").value),
    soft_skills: lines(byId("soft-skills").value),
    experience: lines(byId("experience").value).map(asPosition),
  };
}

export const clear = () => Object.values(fields).forEach((id) => { byId(id).value = ""; });

// Read a document, or pasted text as one, into the form.
async function read(name, body) {
  const note = byId("read-note");
  note.textContent = "Reading …";
  try {
    const found = await call(`v1/documents?${query({ name })}`, { method: "POST", body });
    fill(found);
    const removed = found.removed.length ? ` Left out as personal: ${found.removed.join(", ")}.` : "";
    note.textContent = `Read. Check the fields below; nothing is stored yet.${removed} ${found.notes.join(" ")}`.trim();
    byId("bio").focus();
  } catch (error) {
    note.textContent = error.message;
  }
}

export function begin() {
  const drop = byId("drop"), file = byId("file"), pasted = byId("pasted");
  file.addEventListener("change", () => { if (file.files[0]) read(file.files[0].name, file.files[0]); });
  for (const name of ["dragover", "dragenter"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const [dropped] = event.dataTransfer.files;
    if (dropped) read(dropped.name, dropped);
  });
  byId("read").addEventListener("click", () => {
    if (pasted.value.trim()) read("pasted.txt", pasted.value);
    else byId("read-note").textContent = "Paste some text first.";
  });
}
