// The cards of the responses.
import { letter } from "./answer.js";
import { addMore } from "./more.js";
import { makePassage } from "./reading.js";
import { addChoices, check, listen } from "./widgets.js";

// The card of one response, whose formatted text is `tree` (see text.js), with what is `asked` of it. onChange(place, field,
// value) is called when the annotator changes something; update(state) shows the choices of a state, write(state) its texts.
export function makeCard(place, text, tree, size, asked, onChange) {
  const card = document.getElementById("card").content.firstElementChild.cloneNode(true);
  const find = (selector) => card.querySelector(selector);
  card.setAttribute("aria-label", `Response ${letter(place)}`);
  find(".letter").textContent = letter(place);
  const passage = makePassage(find(".passage"), text, tree);

  const ranks = find(".ranks");
  ranks.hidden = size < 3 || !asked.ask.includes("ranking");
  ranks.setAttribute("aria-label", `Rank of response ${letter(place)}, 1 is the best`);
  find(".ratings").setAttribute("aria-label", `Rating of response ${letter(place)}, ${asked.rating.points} is the best`);
  const places = Array.from({ length: size }, (_, rank) => ({ value: rank, label: ordinal(rank + 1) }));
  addChoices(ranks.querySelector(".segments"), "radio", "ranks", places);
  for (const input of card.querySelectorAll("[type=radio], [type=checkbox]")) input.name += `-${place}`;
  listen(ranks, (value) => onChange(place, "ranks", Number(value)));
  listen(find(".ratings"), (value) => onChange(place, "ratings", Number(value)));
  listen(find(".flags"), (value) => onChange(place, "flags", value));
  const more = addMore(find(".more"), place, text, asked, onChange);
  const critique = find(".critique");
  const rewrite = find(".rewrite");
  const texts = critique.closest("details");
  critique.addEventListener("input", () => onChange(place, "critiques", critique.value));
  rewrite.maxLength = text.length + 20000;
  rewrite.addEventListener("input", () => onChange(place, "rewrites", rewritten(text, rewrite.value)));
  rewrite.addEventListener("focus", () => {
    if (!rewrite.value) rewrite.value = text; // a rewrite starts from the response itself
  });
  rewrite.addEventListener("blur", () => {
    if (!rewritten(text, rewrite.value)) rewrite.value = "";
  });
  card.addEventListener("focusin", () => onChange(place, "selected", place));

  function update(state) {
    card.classList.toggle("on", state.selected === place);
    check(ranks, [state.ranks[place]]);
    check(find(".ratings"), [state.ratings[place]]);
    check(find(".flags"), state.flags[place]);
    more(state);
  }

  function write(state) {
    critique.value = state.critiques[place];
    rewrite.value = state.rewrites[place];
    texts.open = Boolean(critique.value || rewrite.value);
  }

  return { element: card, passage, update, write, open: (name) => {
    texts.open = true;
    find(name).focus();
  } };
}

// The rewrite that a text field with a response holds, "" where nothing was changed. A field writes every end of a line as
// "\n"; those of the response are put back, so that they are no change.
export function rewritten(text, value) {
  const ends = new Set(text.match(/\r\n|\r|\n/g));
  if (value === text.replace(/\r\n?/g, "\n")) return "";
  return ends.size === 1 ? value.replaceAll("\n", [...ends][0]) : value;
}

function ordinal(number) {
  return `${number}${{ 1: "st", 2: "nd", 3: "rd" }[number] || "th"}`;
}
