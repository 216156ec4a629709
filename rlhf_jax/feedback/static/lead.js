// The lead's page: numbers, annotators, settings and items; and its login page. Everything is set as text.
import { told } from "./more.js";
import { askAgain, onLink, post, tokenIn } from "./server.js";
import { setText } from "./text.js";

const $ = (id) => document.getElementById(id);
const SETTINGS = ["judgements_per_item", "agreeing", "at_most", "gold_every"];
let skip = 0; // items shown so far

function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  if (text !== "") setText(element, String(text));
  element.className = className;
  return element;
}

function fail(problem) {
  if (problem.status === 401) location.replace("/lead");
  $("error").textContent = problem.message;
  $("error").hidden = false;
}

// Whether the server did it; else it is told why not.
async function ask(name, body, show) {
  try {
    const answer = await post(`/lead/${name}`, body);
    $("error").hidden = true;
    await show(answer);
    return true;
  } catch (problem) {
    fail(problem);
    return false;
  }
}

// --- numbers ---

const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)} %`);
const number = (value, digits = 0) => (value === null ? "–" : value.toFixed(digits));
const COLUMNS = {
  Name: (person) => person.id + (person.expert ? " (expert)" : "") + (person.revoked ? " (revoked)" : ""),
  Judged: (person) => person.judged,
  Skipped: (person) => person.skipped,
  Corrected: (person) => person.corrected,
  Settled: (person) => person.final,
  "Seconds (median)": (person) => number(person.median_seconds, 1),
  "An hour": (person) => number(person.per_hour),
  "Agrees with others": (person) => percent(person.agreement),
  "Agrees with gold": (person) => percent(person.gold),
  "Last judgement": (person) => (person.last ? new Date(person.last).toLocaleString() : "–"),
};

function showOverview({ settings, items, judgements, annotators, events }) {
  const numbers = {
    "Items done": `${items.done + items.settled} of ${items.all - items.gold}`,
    "Items open": items.open,
    "Items disputed": items.disputed,
    "Items settled": items.settled,
    "Gold items": items.gold,
    Judgements: judgements.judged,
    "In 24 hours": judgements.today,
    Skips: judgements.skipped,
    "Judgements an hour": number(judgements.per_hour),
    "Seconds (median)": number(judgements.median_seconds, 1),
    "Equal votes": percent(judgements.agreement),
    "Krippendorff's alpha": number(judgements.alpha, 2),
    "Agreement with gold": percent(judgements.gold),
  };
  $("numbers").replaceChildren(...Object.entries(numbers).map(([name, value]) => {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", value));
    return pair;
  }));
  const head = make("tr");
  head.append(...[...Object.keys(COLUMNS), "Action"].map((name) => make("th", name)));
  for (const cell of head.children) cell.scope = "col";
  $("people-head").replaceChildren(head);
  $("people").replaceChildren(...annotators.map(personRow));
  const chosen = $("annotator").value;
  $("annotator").replaceChildren(new Option("anybody", ""), ...annotators.map(({ id }) => new Option(id, id)));
  $("annotator").value = chosen;
  for (const name of SETTINGS) $(name).value = settings[name];
  $("events").replaceChildren(...events.map(({ kind, by, created, value }) => {
    return make("li", `${new Date(created).toLocaleString()}: ${kind} by ${by || "the command line"}: ${JSON.stringify(value)}`);
  }));
}

function personRow(person) {
  const row = make("tr");
  row.append(...Object.values(COLUMNS).map((write) => make("td", write(person))));
  const [cell, button, renew] = [make("td"), make("button"), make("button", "New link")];
  Object.assign(button, { type: "button", textContent: person.revoked ? "Restore" : "Revoke" });
  button.setAttribute("aria-label", `${button.textContent} ${person.id}`);
  button.addEventListener("click", () => {
    if (person.revoked) return ask("restore", { annotator: person.id }, ({ link }) => showLink(person.id, link));
    $("revoke-name").textContent = person.id;
    $("discounted").checked = false;
    $("revoke").showModal();
  });
  renew.type = "button";
  renew.hidden = person.revoked;
  renew.setAttribute("aria-label", `New link for ${person.id}`);
  renew.addEventListener("click", () => invite(person.id, person.expert, true));
  cell.append(button, " ", renew);
  row.append(cell);
  return row;
}

function invite(annotator, expert, renew) {
  return ask("invite", { annotator, expert, renew }, ({ link }) => showLink(annotator, link));
}

async function showLink(name, link) {
  $("link").textContent = link
    ? `The link of ${name}, shown once: ${link}`
    : `${name} has a link already, or is revoked. “New link” makes another one, and “Restore” lets a revoked person back in.`;
  $("link").hidden = false;
  await refresh();
}

const refresh = () => ask("overview", {}, showOverview);

// --- items ---

function find(from) {
  const wanted = Object.fromEntries(["search", "state", "annotator", "flag"].map((name) => [name, $(name).value.trim()]));
  return ask("browse", { ...wanted, skip: from }, ({ found }) => {
    if (from === 0) $("items").replaceChildren();
    $("items").append(...found.map(itemBlock));
    skip = from + found.length;
    if (skip === 0) $("items").textContent = "There are none.";
    $("more").hidden = found.length < 20;
  });
}

function itemBlock({ prompt, responses, gold_ranks: gold, state, judgements }) {
  const block = make("article", "", "item");
  const text = typeof prompt === "string" ? prompt : prompt.map(({ role, content }) => `${role}: ${content}`).join("\n");
  const texts = responses.map((response) => response.text);
  const [title, answers, opinions] = [make("h3", text), make("ol"), make("ul")];
  title.dir = "auto";
  answers.type = "A";
  answers.append(...responses.map(({ text: answer, models }, i) => {
    const entry = make("li", answer || "(empty)");
    entry.dir = "auto";
    const from = models.join(" and ") || "unknown";
    entry.append(make("small", ` (${from}${gold ? `, gold rank ${gold[i] + 1}` : ""})`, "muted"));
    return entry;
  }));
  opinions.append(...judgements.map((judgement) => {
    const entry = judgement.skipped ? make("li", `skipped: ${judgement.skipped}`) : told(judgement, texts);
    if (!judgement.current) entry.classList.add("old");
    const what = judgement.final ? ", settles the item" : "";
    entry.prepend(make("b", `${judgement.annotator}${what}, ${new Date(judgement.created).toLocaleString()}: `));
    return entry;
  }));
  block.append(make("small", state, "muted"), title, answers, opinions);
  return block;
}

// --- start ---

function startPage() {
  $("refresh").addEventListener("click", refresh);
  $("logout").addEventListener("click", async () => {
    await post("/lead/logout").catch(() => {});
    location.replace("/lead");
  });
  $("invite").addEventListener("submit", (event) => {
    event.preventDefault();
    invite($("invite-name").value.trim(), $("invite-expert").checked, false).then((done) => done && event.target.reset());
  });
  $("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    ask("settings", Object.fromEntries(SETTINGS.map((name) => [name, Number($(name).value)])), refresh);
  });
  $("browse").addEventListener("submit", (event) => {
    event.preventDefault();
    find(0);
  });
  $("more").addEventListener("click", () => find(skip));
  $("revoke-cancel").addEventListener("click", () => $("revoke").close());
  $("revoke-yes").addEventListener("click", () => {
    $("revoke").close();
    ask("revoke", { annotator: $("revoke-name").textContent, discounted: $("discounted").checked }, refresh);
  });
  refresh().then(() => find(0));
}

async function enter(text) {
  try {
    await post("/lead/login", { token: tokenIn(text) ?? text.trim() });
    location.replace("/lead");
  } catch (problem) {
    fail(problem);
  }
}

if (!onLink(enter)) {
  if ($("login") !== null) askAgain();
  else startPage();
}
$("login")?.addEventListener("submit", (event) => {
  event.preventDefault();
  enter($("token").value);
});
