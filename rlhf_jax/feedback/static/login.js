// Exchanges a token for a session cookie. A link carries the token as #token=..., which the browser sends to no server.
import { post, tokenOfLink } from "./server.js";

const error = document.getElementById("error");

async function logIn(token) {
  error.hidden = true;
  try {
    await post("/login", { token });
    location.replace("/");
  } catch (problem) {
    error.textContent = problem.message;
    error.hidden = false;
  }
}

document.getElementById("login").addEventListener("submit", (event) => {
  event.preventDefault();
  logIn(document.getElementById("token").value.trim());
});

const token = tokenOfLink();
if (token) logIn(token);
