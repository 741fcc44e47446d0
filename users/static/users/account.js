// Sends the form of an account page as JSON. The token from the mail is in the fragment of the address, which browsers
// do not send, so that no server logs it.
"use strict";

const form = document.querySelector("form");
const message = document.getElementById("message");
const token = new URLSearchParams(location.hash.slice(1)).get("token");

function report(text, kind) {
  message.textContent = text;
  message.className = kind;
}

async function send() {
  const body = Object.fromEntries(new FormData(form));
  if (form.dataset.token === "yes") body.token = token;
  const response = await fetch(form.action, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (response.ok) {
    document.getElementById("text").remove();
    form.remove();
    return report(form.dataset.done, "good");
  }
  const problem = await response.json();
  report(Object.values(problem.errors || {}).flat().join(" ") || problem.detail, "bad");
}

if (form.dataset.token === "yes" && !token) {
  form.remove();
  report("Please open this page by the link in the mail.", "bad");
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  send()
    .catch(() => report("The service cannot be reached. Please try again.", "bad"))
    .finally(() => (button.disabled = false));
});
