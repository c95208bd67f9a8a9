// Calls to the API of the server that the page came from.

let key = null; // the person's own token, or on the counsellor's page the operator's key; in memory only

export const setKey = (given) => { key = given || null; };
export const hasKey = () => key !== null;

// A link may end in #token=…, which browsers do not send to servers; it is taken out of the address bar at once.
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) history.replaceState(null, "", location.pathname + location.search);
  setKey(given);
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function call(path, { method = "GET", json, body, headers = {} } = {}) {
  const sent = { ...headers };
  if (key) sent.Authorization = `Bearer ${key}`;
  if (json !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers: sent, body: json === undefined ? body : JSON.stringify(json) });
  } catch {
    throw new Refused(0, "The service does not answer. Is it running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, answer.detail || `The service answered ${response.status}.`);
  return answer;
}

export const person = (id, what = "") => `v1/applicants/${encodeURIComponent(id)}${what && `/${what}`}`;

export const query = (values) =>
  new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "" && value !== null)).toString();

// A key of its own per call, so that one that is sent twice is stored once.
export const once = () => ({ "Idempotency-Key": crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` });
