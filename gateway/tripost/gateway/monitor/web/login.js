// Who may act logs in with the token of [monitor] token_file. It is sent once; what is kept is a cookie that no script
// can read.

import { announce, button, el, put } from "./dom.js";
import { login, logout, session } from "./api.js";

/** Asks for the token; `then` is done once it was right. */
export function askToken(then) {
  const wrong = el("p", { class: "wrong", role: "alert" });
  const input = el("input", { type: "password", name: "token", required: true, autocomplete: "current-password" });
  const go = el("button", { type: "submit", class: "main" }, "Log in");
  const form = el(
    "form",
    { method: "dialog" },
    el("h2", { id: "login" }, "Log in to act"),
    el("p", {}, "Without it this page only looks. The token stands in the file that [monitor] token_file names."),
    el("label", {}, "Token", input),
    wrong,
    el(
      "div",
      { class: "row" },
      go,
      button("Cancel", () => dialog.close()),
    ),
  );
  const dialog = el("dialog", { "aria-labelledby": "login", onclose: () => dialog.remove() }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await login(input.value);
      dialog.close();
      announce("Logged in");
      if (session.may === "act") then?.();
    } catch (fault) {
      put(wrong, fault.message);
      input.select();
    }
    go.disabled = false;
  });
  document.body.append(dialog);
  dialog.showModal();
  input.focus();
}

async function leave() {
  await logout();
  if (session.may === "nothing") location.reload(); // who may not look shall not see what is shown
}

/** The header's part: what one may, and the way to more. */
export function loginPart() {
  const may = el("span", { class: "may" });
  const go = button("Log in", () => (session.may === "act" ? leave() : askToken()), { class: "small" });
  const shown = () => {
    document.body.dataset.may = session.may;
    put(may, session.may === "act" ? "" : session.may === "look" ? "read-only" : "logged out");
    put(go, session.may === "act" ? "Log out" : "Log in");
    go.hidden = session.may === "look" && session.login === false;
  };
  session.listeners.add(shown);
  shown();
  return el("span", { class: "login" }, may, go);
}
