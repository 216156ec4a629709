// Exchanges a token for a session cookie. A link carries the token as #token=..., which the browser sends to no server.
import { askAgain, logIn, onLink, sessions, tokenIn } from "./server.js";

const error = document.getElementById("error");

function enter(token) {
  error.hidden = true;
  logIn(token).catch((problem) => {
    error.textContent = problem.message;
    error.hidden = false;
  });
}

document.getElementById("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = document.getElementById("token").value.trim();
  enter(tokenIn(text) ?? text);
});
sessions.addEventListener("message", () => location.replace("/"));
if (!onLink(enter)) askAgain();
