// Asking and telling the gateway: the operations of the queue commands, as JSON. Who may act is the server's to say;
// this page only shows it.

class Refused extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

export const session = { may: "look", login: true, known: false, listeners: new Set() };

async function answer(path, options) {
  let found;
  try {
    found = await fetch(path, { credentials: "same-origin", cache: "no-store", redirect: "error", ...options });
  } catch {
    throw new Refused("the gateway does not answer", 0);
  }
  const text = await found.text();
  let said = {};
  try {
    said = text ? JSON.parse(text) : {};
  } catch {
    said = { error: text.slice(0, 300) };
  }
  if (!found.ok) {
    if (found.status === 401) await know();
    throw new Refused(said.error || `the gateway says ${found.status}`, found.status);
  }
  return said;
}

/** Conditions that are empty are left out; lists are joined by commas. */
export function query(conditions) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(conditions)) {
    if (value === "" || value === undefined || value === null || value === 0 || value?.length === 0) continue;
    found.set(name, Array.isArray(value) ? value.join(",") : value);
  }
  return found.toString();
}

/** {rows, sum} */
export function get(path, conditions = {}) {
  const asked = query(conditions);
  return answer(`api/v1/${path}${asked ? `?${asked}` : ""}`, { method: "GET" });
}

/** {rows, sum} */
export function post(path, body) {
  return answer(`api/v1/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** Who are we to the gateway? */
export async function know() {
  try {
    const found = await fetch("api/v1/session", { credentials: "same-origin", cache: "no-store" });
    if (found.ok) Object.assign(session, await found.json(), { known: true });
    else if (found.status === 401) Object.assign(session, { may: "nothing", known: true });
  } catch {
    return; // what we may is unknown while nobody answers
  }
  for (const each of session.listeners) each(session);
}

export async function login(token) {
  await answer("login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  await know();
}

export async function logout() {
  await answer("logout", { method: "POST" });
  await know();
}
