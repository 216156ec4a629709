// The keyboard. What a key does depends on the focus: in a group of choices it chooses there, on a button it presses that
// button, in a text it types; elsewhere it is a command of the page.
import { recall, remember } from "./storage.js";
import { press, step } from "./widgets.js";

const $ = (id) => document.getElementById(id);
const ARROWS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };

// page: the actions of annotate.js. Keys of a single character can be switched off (WCAG 2.1.4), as they get in the way of
// speech input.
export function listenToKeys(page) {
  const on = $("shortcuts");
  on.checked = recall("shortcuts") ?? true;
  const store = () => {
    remember("shortcuts", on.checked);
    document.body.classList.toggle("no-shortcuts", !on.checked);
  };
  on.addEventListener("change", store);
  store();
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229) return; // the key belongs to an input method
    const action = actionOf(event, page, on.checked);
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || event.key in ARROWS || "jk".includes(event.key)) action();
  });
}

// The action of a key, or null where the browser's own is wanted.
function actionOf(event, page, shortcuts) {
  const { target, key } = event;
  const choice = target.matches("[type=radio], [type=checkbox]");
  const typing = target.matches("textarea, input") && !choice;
  if (document.querySelector("dialog[open]")) return actionInDialog(event, typing, page, shortcuts);
  if (key === "Enter" && (event.ctrlKey || event.metaKey)) return page.submit;
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  if (key === "Escape") {
    return () => (typing || target.closest(".flags") ? page.select(page.selected() ?? 0) : page.closeGuidelines());
  }
  if (typing) return null;
  if (key === "Enter") return target.closest("button, summary, aside") ? null : page.submit;
  if (key in ARROWS) {
    if (target.type === "radio") return () => step(target, ARROWS[key]);
    const horizontal = key === "ArrowLeft" || key === "ArrowRight";
    return horizontal && target.matches("body, main, .prompt, .card") ? () => page.move(ARROWS[key]) : null;
  }
  return shortcuts && key.length === 1 ? command(event, page) : null;
}

function actionInDialog(event, typing, page, shortcuts) {
  if (!$("skip").open) return null;
  if (event.key === "Enter" && typing && event.target.id === "reason") return () => page.skip($("reason").value);
  const modified = event.ctrlKey || event.metaKey || event.altKey; // such a key is the browser's
  const reason = typing || modified || !shortcuts ? null : $("skip").querySelectorAll("[data-reason]")[event.key - 1];
  return reason ? () => reason.click() : null;
}

function command(event, page) {
  const { target } = event;
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code); // the key's code, as Shift changes its character
  if (digit) return () => chooseDigit(target, Number(digit[1]), event.shiftKey, page);
  const key = letterOf(event);
  const place = key.charCodeAt(0) - 97;
  if (place >= 0 && place < page.size()) return () => page.select(place);
  return page.commands[key] ?? null;
}

function chooseDigit(target, digit, shift, page) {
  const group = target.closest("[role=radiogroup], .flags");
  if (group && !shift) press(group, digit - 1);
  else if (page.selected() !== null) page.choose(page.selected(), shift ? "ranks" : "ratings", digit);
}

// The letter of a key, also while capital letters are locked or the keyboard writes another alphabet.
function letterOf(event) {
  const latin = /^Key([A-Z])$/.exec(event.code);
  if (latin && event.key > "~" && !event.shiftKey) return latin[1].toLowerCase();
  return event.shiftKey ? event.key : event.key.toLowerCase();
}
