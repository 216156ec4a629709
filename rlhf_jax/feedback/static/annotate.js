// The annotation page: one assignment at a time, usable by keyboard alone. The browser keeps an answer until the server
// has stored it.
import { blank, fitted, fromDraft, missing, said, summary } from "./answer.js";
import { makeCard } from "./cards.js";
import { listenToKeys } from "./keys.js";
import { offerMine } from "./mine.js";
import { told } from "./more.js";
import { showPrompt, toggleFolds } from "./reading.js";
import { logIn, onLink, post, sessions } from "./server.js";
import { forget, names, recall, remember } from "./storage.js";
import { reachFormulas } from "./text.js";
import { addChoices, check, listen } from "./widgets.js";

const $ = (id) => document.getElementById(id);

const asked = JSON.parse(document.body.dataset.questions);
let assignment = null; // {id, prompt, responses, formatted, draft, correction, others} as the server gives it
let state = null; // the answer so far (see answer.js), and the selected place
let cards = [];
let turns = []; // the passages of the prompt
let last = null; // the judgement that undo withdraws
let kept = null; // {item, state}: an answer that came second, for when undo has brought its item back
let busy = false; // whether a request is under way
let watched = 0; // milliseconds for which the assignment was in view, up to `since`
let since = null; // time since which it is in view; null while it is hidden
const view = { plain: recall("plain") === true, marked: false };

// --- the assignment ---

const itemOf = ({ prompt, responses }) => JSON.stringify([prompt, responses]);

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
  cards = [];
  turns = [];
  if (assignment !== null) showItem();
  drawTexts();
  if (turns.length > 1) $("prompt").lastElementChild.scrollIntoView({ block: "start" });
}

function showItem() {
  const { id, prompt, responses, formatted, draft, correction, others } = assignment;
  const size = responses.length;
  const before = recall(`draft:${id}`);
  state = before ? { ...blank(size), ...before } : draft ? fromDraft(draft, size, asked) : blank(size);
  state = fitted(state, size, asked);
  if (kept !== null && kept.item === itemOf(assignment)) {
    state = kept.state;
    remember(`draft:${id}`, state);
  }
  kept = null;
  state.selected = null;
  $("prompt").className = "passage";
  turns = showPrompt($("prompt"), prompt, formatted.prompt);
  cards = responses.map((text, place) => makeCard(place, text, formatted.responses[place], size, asked, change));
  $("responses").replaceChildren(...cards.map((card) => card.element));
  $("responses").dataset.size = size;
  $("pair").hidden = size !== 2 || !asked.ask.includes("comparison");
  $("correction").hidden = !correction;
  $("others").hidden = others === null;
  $("others").lastElementChild.replaceChildren(...(others ?? []).map((judgement) => told(judgement, responses)));
  for (const card of cards) card.write(state);
  draw();
  $("main").scrollTo(0, 0);
  $("prompt").parentElement.scrollTo(0, 0);
  document.scrollingElement.scrollTo(0, 0);
}

function draw() {
  for (const card of cards) card.update(state);
  check($("scale"), [state.allBad ? null : state.preference]);
  $("both-bad")?.setAttribute("aria-pressed", String(state.allBad));
  const lacking = missing(state, cards.length, asked);
  $("hint").textContent = lacking || summary(state, cards.length);
  $("hint").classList.remove("nudge");
  $("submit").classList.toggle("ready", !lacking);
}

// Two responses are each compared with the other one, more of them with the selected one or else the first.
function drawTexts() {
  const base = cards.length === 2 ? null : (state?.selected ?? 0);
  for (const passage of turns) passage.show(view);
  cards.forEach((card, place) => {
    const other = base === null ? 1 - place : base;
    card.passage.show(view, other === place || cards.length < 2 ? null : assignment.responses[other]);
  });
  $("plain").hidden = ![...turns, ...cards.map((card) => card.passage)].some((passage) => passage.isFormatted);
  $("plain").setAttribute("aria-pressed", String(view.plain));
  $("marked").hidden = cards.length < 2;
  $("marked").setAttribute("aria-pressed", String(view.marked));
}

function toggleView(name) {
  if ($(name).hidden) return;
  view[name] = !view[name];
  if (name === "plain") remember("plain", view.plain);
  drawTexts();
}

function change(place, field, value) {
  if (field === "selected") {
    if (state.selected === value) return;
    state.selected = value;
    if (view.marked && cards.length > 2) drawTexts();
  } else if (field === "flags") {
    const flags = state.flags[place];
    state.flags[place] = flags.includes(value) ? flags.filter((flag) => flag !== value) : [...flags, value];
  } else if (field.startsWith("aspect:")) {
    const ratings = (state.aspects[field.slice(7)] ??= Array(cards.length).fill(null));
    ratings[place] = ratings[place] === value ? null : value;
  } else if (["ratings", "ranks", "yesNo"].includes(field)) {
    state[field][place] = state[field][place] === value ? null : value;
  } else {
    state[field][place] = value;
  }
  keep();
}

function keep() {
  remember(`draft:${assignment.id}`, state);
  draw();
}

// --- requests ---

// While a request is under way nothing on the page can be changed: what is sent is what is seen.
async function send(path, body) {
  if (busy) return;
  const focus = document.activeElement;
  setBusy(true);
  try {
    const answer = await post(path, body);
    setBusy(false);
    show(answer);
    if (body && body.assignment) forget(`draft:${body.assignment}`);
  } catch (problem) {
    setBusy(false);
    focus?.focus();
    fail(problem);
  }
}

function setBusy(value) {
  busy = value;
  document.body.classList.toggle("busy", value);
  for (const part of [$("assignment"), document.querySelector(".actions")]) part.inert = value;
}

function fail(problem) {
  if (problem.status === 401) location.replace("/");
  if (problem.judged) {
    // Another tab was faster: undo withdraws what it sent, and what stands here can then be submitted.
    last = assignment.id;
    kept = { item: itemOf(assignment), state };
    $("undo").disabled = false;
  }
  $("error").textContent = problem.message;
  $("error").hidden = false;
  $("error").scrollIntoView({ block: "nearest" });
}

// An invitation link replaces the session of whoever was logged in; one that is refused leaves nobody in doubt.
function enter(token) {
  logIn(token).catch((problem) => {
    const who = document.body.dataset.annotator;
    $("assignment").hidden = true;
    document.querySelector(".actions").hidden = true;
    assignment = null;
    fail(new Error(`${problem.message}. You are still logged in as ${who}: reload the page to go on.`));
  });
}

function seconds() {
  return (watched + (since === null ? 0 : performance.now() - since)) / 1000;
}

function judge(answer) {
  const { guidelines } = document.body.dataset;
  const versions = { guidelines, questions: asked.version };
  send("/judgements", { assignment: assignment.id, ...versions, ...answer, seconds: seconds() });
}

function submit() {
  if (assignment === null || busy) return;
  if (missing(state, cards.length, asked)) {
    $("hint").classList.add("nudge");
    return;
  }
  judge(said(state, cards.length, asked));
}

function skip(reason) {
  if (assignment === null || busy || !reason.trim()) return;
  $("skip").close();
  if ($("reason") !== null) $("reason").value = "";
  judge({ skipped: reason.trim(), flags: said(state, cards.length, asked).flags });
}

function undo() {
  if (last !== null) send("/undo", { judgement: last });
}

async function logOut() {
  for (const name of names()) if (name.startsWith("draft:")) forget(name);
  await post("/logout").catch(() => {});
  sessions.postMessage("changed");
  location.replace("/");
}

// --- keyboard and buttons ---

function select(place) {
  if (place >= 0 && place < cards.length) {
    const { element } = cards[place];
    const room = $("main").clientHeight - parseFloat($("main").style.scrollPaddingTop);
    element.focus({ preventScroll: true });
    element.scrollIntoView({ block: element.offsetHeight > room ? "start" : "nearest" });
  }
}

function move(by) {
  if (cards.length === 2 && !$("pair").hidden) {
    const values = preferences.map(({ value }) => value);
    const from = values.filter((value) => (by < 0 ? value < (state.preference ?? 0) : value > (state.preference ?? 0)));
    prefer((by < 0 ? from.at(-1) : from[0]) ?? state.preference);
  } else if (cards.length > 2 && state.selected !== null) {
    const now = state.ranks[state.selected];
    const next = now === null ? (by < 0 ? 0 : cards.length - 1) : now + by;
    if (!asked.ask.includes("ranking")) return;
    state.ranks[state.selected] = Math.max(0, Math.min(cards.length - 1, next));
    keep();
  }
}

function tie() {
  if (cards.length === 2 && !$("pair").hidden && asked.comparison.tie) prefer(0);
}

function prefer(value, allBad = false) {
  Object.assign(state, { preference: value, allBad });
  keep();
}

function choose(place, field, digit) {
  const { ask, rating } = asked;
  if (field === "ratings" && ask.includes("rating") && rating.overall && digit <= rating.points) change(place, field, digit);
  if (field === "ranks" && ask.includes("ranking") && cards.length > 2 && digit <= cards.length) change(place, field, digit - 1);
}

// Of several responses the one is meant that is selected; a single one needs no selection.
function answerYesNo(value) {
  const place = cards.length === 1 ? 0 : state.selected;
  if (asked.ask.includes("yes_no") && place !== null) change(place, "yesNo", value);
}

function toggleGuidelines(open = $("guidelines")?.hidden) {
  if ($("guidelines") === null) return; // there are none
  $("guidelines").hidden = !open;
  reachFormulas($("guidelines"));
  $("guidelines-toggle").setAttribute("aria-expanded", String(open));
  remember("guidelines", open);
}

const always = { u: undo, o: () => toggleGuidelines(), "?": () => $("keys").showModal() };
const ofAssignment = {
  j: () => select(state.selected === null ? 0 : state.selected + 1),
  k: () => select(state.selected === null ? 0 : state.selected - 1),
  t: () => cards[state.selected ?? 0].open(".critique"),
  w: () => cards[state.selected ?? 0].open(".rewrite"),
  x: () => cards[state.selected ?? 0].element.querySelector(".chip input")?.focus(),
  s: () => $("skip").showModal(),
  p: () => toggleView("plain"),
  v: () => toggleView("marked"),
  m: toggleFolds,
  "=": tie,
  0: tie,
  y: () => answerYesNo(true),
  n: () => answerYesNo(false),
};
listenToKeys({
  get commands() {
    return busy ? {} : assignment === null ? always : { ...always, ...ofAssignment };
  },
  size: () => (busy ? 0 : cards.length),
  selected: () => (busy || assignment === null ? null : state.selected),
  move: (by) => busy || move(by),
  closeGuidelines: () => toggleGuidelines(false),
  select, choose, submit, skip,
});

// --- start ---

const words = ["tie", "slightly better", "better", "much better"];
const { strengths, tie: tieAllowed } = asked.comparison;
const wanted = (value) => Math.abs(value) <= strengths && (value !== 0 || tieAllowed);
const preferences = [-3, -2, -1, 0, 1, 2, 3].filter(wanted).map((value) => {
  const better = value < 0 ? "A" : "B";
  if (value === 0) return { value, label: "=", title: "tie" };
  const strength = Math.abs(value);
  if (strengths === 1) return { value, label: better, title: `${better} is better` };
  return { value, label: `${better} ${"+".repeat(strength)}`, title: `${better} is ${words[strength]}` };
});
addChoices($("scale"), "radio", "preference", preferences);
listen($("scale"), (value) => {
  prefer(state.preference === Number(value) && !state.allBad ? null : Number(value));
});
$("both-bad")?.addEventListener("click", () => (state.allBad ? prefer(null) : prefer(0, true)));
$("give-up").addEventListener("click", () => send("/give-up", { assignment: assignment.id }));
offerMine((judgement) => send("/correct", { judgement }), fail);
$("submit").addEventListener("click", submit);
$("undo").addEventListener("click", undo);
$("logout").addEventListener("click", logOut);
$("plain").addEventListener("click", () => toggleView("plain"));
$("marked").addEventListener("click", () => toggleView("marked"));
$("skip-open").addEventListener("click", () => $("skip").showModal());
$("keys-open").addEventListener("click", () => $("keys").showModal());
$("guidelines-toggle")?.addEventListener("click", () => toggleGuidelines());
$("guidelines-close")?.addEventListener("click", () => toggleGuidelines(false));
$("skip-other")?.addEventListener("click", () => skip($("reason").value));
for (const button of document.querySelectorAll("[data-reason]")) {
  button.addEventListener("click", () => skip(button.dataset.reason));
}
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden && since !== null) watched += performance.now() - since;
  since = document.hidden ? null : performance.now();
});
// What gets the focus is scrolled out from behind the prompt, where that stays in view.
new ResizeObserver(([{ target }]) => {
  const above = getComputedStyle(target).position === "sticky" ? target.offsetHeight + 16 : 0;
  $("main").style.scrollPaddingTop = `${above}px`;
}).observe(document.querySelector(".prompt"));
sessions.addEventListener("message", () => location.reload());
const wide = matchMedia("(min-width: 75rem)").matches;
toggleGuidelines(wide && (recall("guidelines") ?? true)); // else they would cover the page
if (location.search) history.replaceState(null, "", `/${location.hash}`);
if (!onLink(enter)) send("/next");
