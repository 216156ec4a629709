// The annotation page: one assignment at a time, usable by keyboard alone. The browser keeps an answer until the server
// has stored it.
import { blank, fromDraft, missing, said, summary } from "./answer.js";
import { check, listen, makeCard, segment, setPrompt } from "./cards.js";
import { post, tokenOfLink } from "./server.js";

const $ = (id) => document.getElementById(id);

let assignment = null; // {id, prompt, responses, draft} as the server gives it
let state = null; // the answer so far (see answer.js), and the selected place
let cards = [];
let last = null; // the judgement that undo withdraws
let kept = null; // {prompt, state}: an answer that came second, for when undo has brought its item back
let busy = false; // whether a request is under way
let watched = 0; // milliseconds for which the assignment was in view, up to `since`
let since = null; // time since which it is in view; null while it is hidden

// --- the assignment ---

function stored(id) {
  try {
    return JSON.parse(localStorage.getItem(`draft:${id}`));
  } catch {
    return null;
  }
}

function show(answer) {
  document.activeElement?.blur(); // the field stores its text now, while the state still belongs to it
  assignment = answer.assignment;
  last = answer.last;
  const total = answer.done + answer.left;
  $("count").textContent = `${answer.done} of ${total}`;
  $("meter").setAttribute("aria-valuemax", total);
  $("meter").setAttribute("aria-valuenow", answer.done);
  $("meter").firstElementChild.style.width = `${total ? (100 * answer.done) / total : 0}%`;
  $("undo").disabled = last === null;
  $("done").hidden = assignment !== null;
  $("assignment").hidden = assignment === null;
  $("error").hidden = true;
  document.querySelector(".actions").hidden = assignment === null;
  watched = 0;
  since = document.hidden ? null : performance.now();
  if (assignment === null) return;
  const size = assignment.responses.length;
  state = stored(assignment.id) || (assignment.draft ? fromDraft(assignment.draft, size) : blank(size));
  if (kept !== null && kept.prompt === JSON.stringify(assignment.prompt)) {
    state = kept.state;
    localStorage.setItem(`draft:${assignment.id}`, JSON.stringify(state));
  }
  kept = null;
  state.selected = null;
  setPrompt($("prompt"), assignment.prompt);
  cards = assignment.responses.map((text, place) => makeCard(place, text, size, change));
  $("responses").replaceChildren(...cards.map((card) => card.element));
  $("responses").dataset.size = size;
  $("pair").hidden = size !== 2;
  for (const card of cards) card.write(state);
  draw();
  $("main").scrollTo(0, 0);
}

function draw() {
  for (const card of cards) card.update(state);
  check($("scale"), state.preference);
  const lacking = missing(state, cards.length);
  $("hint").textContent = lacking || summary(state, cards.length);
  $("hint").classList.remove("nudge");
  $("submit").classList.toggle("ready", !lacking);
}

function change(place, field, value) {
  if (field === "selected") {
    if (state.selected === value) return;
    state.selected = value;
  } else if (field === "flags") {
    const flags = state.flags[place];
    state.flags[place] = flags.includes(value) ? flags.filter((flag) => flag !== value) : [...flags, value];
  } else if (field === "ratings" || field === "ranks") {
    state[field][place] = state[field][place] === value ? null : value;
  } else {
    state[field][place] = value;
  }
  keep();
}

function keep() {
  localStorage.setItem(`draft:${assignment.id}`, JSON.stringify(state));
  draw();
}

// --- requests ---

async function send(path, body) {
  if (busy) return;
  busy = true;
  document.body.classList.add("busy");
  try {
    show(await post(path, body));
    if (body && body.assignment) localStorage.removeItem(`draft:${body.assignment}`);
  } catch (problem) {
    fail(problem);
  } finally {
    busy = false;
    document.body.classList.remove("busy");
  }
}

function fail(problem) {
  if (problem.status === 401) location.replace("/");
  if (problem.judged) {
    // Another tab was faster: undo withdraws what it sent, and what stands here can then be submitted.
    last = assignment.id;
    kept = { prompt: JSON.stringify(assignment.prompt), state };
    $("undo").disabled = false;
  }
  $("error").textContent = problem.message;
  $("error").hidden = false;
  $("error").scrollIntoView({ block: "nearest" });
}

function seconds() {
  return (watched + (since === null ? 0 : performance.now() - since)) / 1000;
}

function judge(answer) {
  const { guidelines } = document.body.dataset;
  send("/judgements", { assignment: assignment.id, guidelines, ...answer, seconds: seconds() });
}

function submit() {
  if (assignment === null) return;
  if (missing(state, cards.length)) {
    $("hint").classList.add("nudge");
    return;
  }
  judge(said(state, cards.length));
}

function skip(reason) {
  if (assignment === null || !reason.trim()) return;
  $("skip").close();
  $("reason").value = "";
  judge({ skipped: reason.trim(), flags: said(state, cards.length).flags });
}

function undo() {
  if (last !== null) send("/undo", { judgement: last });
}

async function logOut() {
  for (const name of Object.keys(localStorage)) {
    if (name.startsWith("draft:")) localStorage.removeItem(name);
  }
  await post("/logout").catch(() => {});
  location.replace("/");
}

// --- keyboard and buttons ---

function select(place) {
  if (place >= 0 && place < cards.length) {
    cards[place].element.focus();
    cards[place].element.scrollIntoView({ block: "nearest" });
  }
}

function move(step) {
  if (cards.length === 2) {
    const start = state.preference === null ? 0 : state.preference;
    state.preference = Math.max(-3, Math.min(3, start + step));
    keep();
  } else if (state.selected !== null && cards.length > 2) {
    const now = state.ranks[state.selected];
    const next = now === null ? (step < 0 ? 0 : cards.length - 1) : now + step;
    state.ranks[state.selected] = Math.max(0, Math.min(cards.length - 1, next));
    keep();
  }
}

function tie() {
  if (cards.length !== 2) return;
  state.preference = 0;
  keep();
}

function toggleGuidelines(open = $("guidelines").hidden) {
  $("guidelines").hidden = !open;
  $("guidelines-toggle").setAttribute("aria-expanded", String(open));
  document.body.classList.toggle("reading", open);
  localStorage.setItem("guidelines", open ? "open" : "closed");
}

function onDigit(event, digit) {
  const chips = event.target.closest(".flags")?.querySelectorAll(".chip");
  if (chips) chips[digit - 1]?.click();
  else if (state.selected === null) return;
  else if (event.shiftKey && cards.length > 2 && digit <= cards.length) change(state.selected, "ranks", digit - 1);
  else if (!event.shiftKey && digit <= 7) change(state.selected, "ratings", digit);
}

const COMMANDS = {
  j: () => select(state.selected === null ? 0 : state.selected + 1),
  k: () => select(state.selected === null ? 0 : state.selected - 1),
  n: () => cards[state.selected ?? 0].open(".critique"),
  w: () => cards[state.selected ?? 0].open(".rewrite"),
  x: () => cards[state.selected ?? 0].element.querySelector(".chip").focus(),
  s: () => $("skip").showModal(),
  ArrowLeft: () => move(-1),
  ArrowRight: () => move(1),
  "=": tie,
  0: tie,
};
const ALWAYS = { u: undo, o: () => toggleGuidelines(), "?": () => $("keys").showModal() };

function onKey(event) {
  const typing = event.target.matches("textarea, input");
  if (document.querySelector("dialog[open]")) return onDialogKey(event, typing);
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return act(event, submit);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (typing || event.target.closest(".flags")) select(state.selected ?? 0);
    else toggleGuidelines(false);
    return;
  }
  if (typing) return;
  if (event.key === "Enter") {
    if (!event.target.closest(".bar, .actions, aside, summary")) act(event, submit);
    return;
  }
  if (event.key in ALWAYS) return act(event, ALWAYS[event.key]);
  if (assignment === null) return;
  const digit = /^(Digit|Numpad)([1-9])$/.exec(event.code); // the key's code, as Shift changes its character
  const place = event.key.length === 1 ? event.key.charCodeAt(0) - 97 : -1;
  if (digit) act(event, () => onDigit(event, Number(digit[2])));
  else if (place >= 0 && place < Math.min(9, cards.length)) act(event, () => select(place));
  else if (event.key in COMMANDS) act(event, COMMANDS[event.key]);
}

function onDialogKey(event, typing) {
  const reasons = $("skip").querySelectorAll("[data-reason]");
  if ($("skip").open && event.key === "Enter" && typing) act(event, () => skip($("reason").value));
  else if ($("skip").open && !typing && reasons[event.key - 1]) act(event, () => reasons[event.key - 1].click());
}

function act(event, action) {
  event.preventDefault();
  action();
}

// --- start ---

for (let value = -3; value <= 3; value++) {
  const label = value === 0 ? "=" : `${value < 0 ? "A" : "B"} ${"+".repeat(Math.abs(value))}`;
  const words = ["", "slightly better", "better", "much better"][Math.abs(value)];
  const button = segment(value, label);
  button.setAttribute("aria-label", value === 0 ? "tie" : `${value < 0 ? "A" : "B"} is ${words}`);
  button.title = button.getAttribute("aria-label");
  $("scale").append(button);
}
listen($("scale"), (value) => {
  state.preference = state.preference === value ? null : value;
  keep();
});
$("submit").addEventListener("click", submit);
$("undo").addEventListener("click", undo);
$("logout").addEventListener("click", logOut);
$("skip-open").addEventListener("click", () => $("skip").showModal());
$("keys-open").addEventListener("click", () => $("keys").showModal());
$("guidelines-toggle").addEventListener("click", () => toggleGuidelines());
$("guidelines-close").addEventListener("click", () => toggleGuidelines(false));
$("skip-other").addEventListener("click", () => skip($("reason").value));
for (const button of document.querySelectorAll("[data-reason]")) {
  button.addEventListener("click", () => skip(button.dataset.reason));
}
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", () => {
  if (document.hidden && since !== null) watched += performance.now() - since;
  since = document.hidden ? null : performance.now();
});
const wide = matchMedia("(min-width: 75rem)").matches;
toggleGuidelines(localStorage.getItem("guidelines") === null ? wide : localStorage.getItem("guidelines") === "open");
const token = tokenOfLink(); // there is one where a login link is opened in a browser that is logged in already
if (token) post("/login", { token }).then(() => location.reload(), fail);
else send("/next");
