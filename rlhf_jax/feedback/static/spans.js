// Marked parts of a response. The text stands in a field that can only be read, in which a part is selected by mouse,
// by touch or by Shift and the arrow keys.
import { letter } from "./answer.js";
import { setText } from "./text.js";

// Appends the field, a button for each label and the list of marks; returns the function that shows the marks
// [start, end, label], in characters (code points) of the text.
export function addSpans(element, place, text, labels, onChange) {
  const [details, summary, field, buttons, list] =
    ["details", "summary", "textarea", "div", "ul"].map((tag) => document.createElement(tag));
  let marks = [];
  details.className = "spans";
  buttons.className = "control";
  // A field that is marked as read-only has no cursor in some browsers, so that keys could select nothing.
  Object.assign(field, { value: text, rows: 6, dir: "auto", spellcheck: false, inputMode: "none" });
  field.setAttribute("aria-readonly", "true");
  field.addEventListener("beforeinput", (event) => event.preventDefault());
  field.addEventListener("input", () => { field.value = text; }); // an input method asks nobody before it writes
  field.setAttribute("aria-label", `Text of response ${letter(place)}: select a part, then choose a mark`);
  list.setAttribute("aria-label", "Marks");
  for (const label of labels) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Mark as ${label}`;
    button.addEventListener("click", () => {
      const [start, end] = [field.selectionStart, field.selectionEnd].map((offset) => codePoints(text, offset));
      if (start < end && !marks.some((mark) => same(mark, [start, end, label]))) onChange([...marks, [start, end, label]]);
    });
    buttons.append(button);
  }
  details.append(summary, field, buttons, list);
  element.append(details);
  return (spans) => {
    marks = spans;
    summary.textContent = `Marked parts: ${spans.length}`;
    if (spans.length) details.open = true;
    list.replaceChildren(...spans.map((span) => entry(span, () => onChange(marks.filter((mark) => !same(mark, span))))));
  };

  function entry([start, end, label], remove) {
    const [item, words, button] = ["li", "span", "button"].map((tag) => document.createElement(tag));
    setText(words, `${label}: ${quoted(text, start, end)}`);
    Object.assign(button, { type: "button", textContent: "Remove" });
    button.addEventListener("click", remove);
    item.append(words, " ", button);
    return item;
  }
}

// The part of a text between two of its characters (code points), in quotes and cut where it is long.
export function quoted(text, start, end) {
  const part = [...text].slice(start, end);
  return `“${part.slice(0, 80).join("")}${part.length > 80 ? "…" : ""}”`;
}

const same = (one, other) => one.every((part, i) => part === other[i]);

// Number of code points of the text before an offset in the field, which writes every end of a line as one "\n" and counts
// a character outside the basic plane as two.
export function codePoints(text, offset) {
  let [count, at, before] = [0, 0, ""];
  for (const char of text) {
    const joined = before === "\r" && char === "\n";
    if (at >= offset && !joined) break;
    count += 1;
    if (!joined) at += char.length;
    before = char;
  }
  return count;
}
