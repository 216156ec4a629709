// The responses on the page. The text of a model is always set as text, never parsed as HTML.
import { letter } from "./answer.js";

// The text with control, bidirectional and other invisible characters spelt out, so that a response cannot reorder or
// hide parts of the page.
function visible(text) {
  return text.replace(/(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (char) => {
    return `⟨U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

export function setText(element, text) {
  element.textContent = text.trim() ? visible(text) : "(empty)";
  element.classList.toggle("empty", !text.trim());
}

// The prompt: a text, or the messages {role, content} of a dialogue, each below the name of its speaker.
export function setPrompt(element, prompt) {
  if (typeof prompt === "string") return setText(element, prompt);
  const turns = prompt.map((message) => {
    const turn = document.createElement("div");
    const [role, text, more] = ["h3", "div", "div"].map((tag) => document.createElement(tag));
    role.textContent = message.role;
    setText(text, message.content ?? "");
    const { role: _, content: __, ...rest } = message;
    if (Object.keys(rest).length) setText(more, JSON.stringify(rest, null, 1));
    turn.append(role, text, more);
    return turn;
  });
  element.classList.remove("empty");
  element.replaceChildren(...turns);
}

// The card of one response. onChange(place, field, value) is called when the annotator changes something; update(state)
// shows the buttons of a state, write(state) its texts.
export function makeCard(place, text, size, onChange) {
  const card = document.getElementById("card").content.firstElementChild.cloneNode(true);
  const find = (selector) => card.querySelector(selector);
  card.setAttribute("aria-label", `Response ${letter(place)}`);
  find(".letter").textContent = letter(place);
  setText(find(".text"), text);

  const ranks = find(".ranks");
  ranks.hidden = size < 3;
  ranks.setAttribute("aria-label", `Rank of response ${letter(place)}, 1 is the best`);
  find(".ratings").setAttribute("aria-label", `Rating of response ${letter(place)}, 7 is the best`);
  for (let rank = 1; rank <= size; rank++) {
    ranks.querySelector(".segments").append(segment(rank, ordinal(rank)));
  }
  listen(ranks, (value) => onChange(place, "ranks", value - 1));
  listen(find(".ratings"), (value) => onChange(place, "ratings", value));
  for (const chip of card.querySelectorAll(".chip")) {
    chip.addEventListener("click", () => onChange(place, "flags", chip.dataset.flag));
  }
  const critique = find(".critique");
  const rewrite = find(".rewrite");
  critique.addEventListener("input", () => onChange(place, "critiques", critique.value));
  rewrite.addEventListener("input", () => onChange(place, "rewrites", rewrite.value));
  rewrite.addEventListener("focus", () => {
    if (!rewrite.value) rewrite.value = text; // a rewrite starts from the response itself
  });
  rewrite.addEventListener("blur", () => {
    if (rewrite.value === text) rewrite.value = "";
    onChange(place, "rewrites", rewrite.value);
  });
  card.addEventListener("focusin", () => onChange(place, "selected", place));

  function update(state) {
    card.classList.toggle("on", state.selected === place);
    check(ranks, state.ranks[place] === null ? null : state.ranks[place] + 1);
    check(find(".ratings"), state.ratings[place]);
    for (const chip of card.querySelectorAll(".chip")) {
      chip.setAttribute("aria-pressed", String(state.flags[place].includes(chip.dataset.flag)));
    }
  }

  function write(state) {
    critique.value = state.critiques[place];
    rewrite.value = state.rewrites[place];
    find("details").open = Boolean(critique.value || rewrite.value);
  }

  return { element: card, update, write, open: (name) => {
    find("details").open = true;
    find(name).focus();
  } };
}

export function segment(value, label = String(value)) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("role", "radio");
  button.setAttribute("aria-checked", "false");
  button.dataset.value = value;
  button.textContent = label;
  return button;
}

export function listen(group, onValue) {
  for (const button of group.querySelectorAll("[data-value]")) {
    button.addEventListener("click", () => onValue(Number(button.dataset.value)));
  }
}

export function check(group, value) {
  for (const button of group.querySelectorAll("[data-value]")) {
    button.setAttribute("aria-checked", String(value !== null && Number(button.dataset.value) === value));
  }
}

function ordinal(number) {
  return `${number}${{ 1: "st", 2: "nd", 3: "rd" }[number] || "th"}`;
}
