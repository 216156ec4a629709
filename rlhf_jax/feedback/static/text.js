// Texts that models and people wrote. They are set as text, never parsed as HTML: the server gives formatted text as a
// tree of elements, [tag, {attribute: value}, children].

const MATHML = "http://www.w3.org/1998/Math/MathML";

// The text with control, bidirectional and other invisible characters spelt out, so that a response cannot reorder or
// hide parts of the page.
function visible(text) {
  return text.replace(/(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (char) => {
    return `⟨U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

// The text as it is. Line ends are shown as such, whatever characters write them.
export function setText(element, text) {
  element.textContent = text.trim() ? visible(unixLines(text)) : "(empty)";
  element.classList.toggle("empty", !text.trim());
  element.classList.remove("formatted");
}

export function setFormatted(element, tree) {
  element.replaceChildren(...tree.map((node) => build(node, false)));
  for (const block of element.children) block.dir = block.tagName === "PRE" ? "ltr" : "auto";
  element.classList.remove("empty");
  element.classList.add("formatted");
  reachFormulas(element);
}

// Wide formulas get the focus, so that the arrow keys can scroll them.
export function reachFormulas(element) {
  for (const formula of element.querySelectorAll(".formula")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
  }
}

// The text in pieces [text, whether it is marked].
export function setMarked(element, pieces) {
  element.replaceChildren(...pieces.map(([piece, marked]) => {
    if (!marked) return visible(piece);
    const mark = document.createElement("mark");
    mark.textContent = visible(piece);
    return mark;
  }));
  element.classList.remove("empty", "formatted");
}

export function unixLines(text) {
  return text.replace(/\r\n?/g, "\n");
}

function build(node, inFormula) {
  if (typeof node === "string") return document.createTextNode(visible(node));
  const [tag, attributes, children] = node;
  const formula = inFormula || tag === "math";
  const element = formula ? document.createElementNS(MATHML, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, visible(value));
  element.append(...children.map((child) => build(child, formula)));
  return element;
}
