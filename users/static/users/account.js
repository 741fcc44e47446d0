// Sends the form of an account page as JSON. The token from the mail stands behind the `#` of the address: browsers
// send that part to nobody, so that it is in no server's log.
"use strict";

const form = document.querySelector("form");
const said = document.getElementById("said");
const token = new URLSearchParams(location.hash.slice(1)).get("token");

function say(text, kind) {
  said.textContent = text;
  said.className = kind;
}

async function send() {
  const body = Object.fromEntries(new FormData(form));
  if (form.dataset.token === "yes") body.token = token;
  const answer = await fetch(form.action, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (answer.ok) {
    document.getElementById("text").remove();
    form.remove();
    return say(form.dataset.done, "good");
  }
  const problem = await answer.json();
  say(Object.values(problem.errors || {}).flat().join(" ") || problem.detail, "bad");
}

if (form.dataset.token === "yes" && !token) {
  form.remove();
  say("Please open this page by the link in the mail.", "bad");
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  send()
    .catch(() => say("The service cannot be reached. Please try again.", "bad"))
    .finally(() => (button.disabled = false));
});
