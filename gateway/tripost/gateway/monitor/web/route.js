// Where one is on this page: #/view, #/view/WHAT or #/view?conditions, so that all can be linked and
// gone back to.

export function address(view, what = "", conditions = {}) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(conditions)) {
    if (value !== "" && value !== undefined && value !== null && value !== 0) asked.set(name, value);
  }
  const more = asked.toString();
  return `#/${view}${what ? `/${encodeURIComponent(what)}` : ""}${more ? `?${more}` : ""}`;
}

/** {view, what, conditions} */
export function here() {
  const [path, asked = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/");
  let what = rest.join("/");
  try {
    what = decodeURIComponent(what);
  } catch {
    // as it stands
  }
  return { view: view || "overview", what, conditions: Object.fromEntries(new URLSearchParams(asked)) };
}
