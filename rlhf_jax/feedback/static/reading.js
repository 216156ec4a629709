// How texts are read: formatted or plain, with or without marks at what differs, and folded where they are very long.
import { newPieces } from "./diff.js";
import { setFormatted, setMarked, setText, unixLines } from "./text.js";

const LONG = { characters: 6000, lines: 100 };

// Fills an element with a text that show(view, other) writes as the view {plain, marked} wants it. other: the text that it
// is compared with, or null.
export function makePassage(element, text, tree) {
  const body = document.createElement("div");
  body.className = "text";
  body.dir = "auto";
  element.replaceChildren(body);
  if (text.length > LONG.characters || unixLines(text).split("\n").length > LONG.lines) {
    element.classList.add("folded");
    element.append(unfoldButton(element, text));
  }
  return {
    isFormatted: tree !== null,
    show(view, other = null) {
      if (view.marked && other !== null && text.trim()) setMarked(body, newPieces(unixLines(text), unixLines(other)));
      else if (tree !== null && !view.plain) setFormatted(body, tree);
      else setText(body, text);
    },
  };
}

// The prompt: a text, or the messages {role, content, ...} of a dialogue, each below the name of its speaker. Returns the
// passages, one for each turn.
export function showPrompt(element, prompt, trees) {
  if (typeof prompt === "string") return [makePassage(element, prompt, trees[0])];
  const passages = [];
  element.className = "passage dialogue"; // a fold of the prompt before is gone
  const turns = prompt.map((message, place) => {
    const turn = document.createElement("div");
    const [role, content, more] = ["h3", "div", "div"].map((tag) => document.createElement(tag));
    turn.className = "turn";
    turn.dataset.role = message.role;
    role.textContent = message.role;
    content.className = "passage";
    passages.push(makePassage(content, message.content ?? "", trees[place]));
    turn.append(role, content);
    const { role: _, content: __, ...rest } = message;
    if (Object.keys(rest).length) {
      more.className = "text";
      setText(more, JSON.stringify(rest, null, 1));
      turn.append(more);
    }
    return turn;
  });
  element.replaceChildren(...turns);
  return passages;
}

// Unfolds all long texts, or folds them again when none is folded.
export function toggleFolds() {
  const buttons = [...document.querySelectorAll("#assignment .unfold")];
  const folded = buttons.filter((button) => button.getAttribute("aria-expanded") === "false");
  for (const button of folded.length ? folded : buttons) button.click();
}

function unfoldButton(element, text) {
  const button = document.createElement("button");
  const label = `Show all of it (${text.trim().split(/\s+/).length.toLocaleString("en")} words)`;
  button.type = "button";
  button.className = "unfold";
  button.textContent = label;
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    const folded = element.classList.toggle("folded");
    button.textContent = folded ? label : "Show less";
    button.setAttribute("aria-expanded", String(!folded));
  });
  return button;
}
