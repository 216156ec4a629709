// What a lead may ask of a response beside the default page: ratings of aspects, yes or no, and marked parts; and the
// judgements of others, which an expert sees of a disputed item.
import { letter } from "./answer.js";
import { addSpans, quoted } from "./spans.js";
import { setText } from "./text.js";
import { addChoices, check, listen } from "./widgets.js";

// Fills the element of a card, and returns the function that shows a state in it.
export function addMore(element, place, text, asked, onChange) {
  const updates = [];
  const of = `of response ${letter(place)}`;
  if (asked.ask.includes("rating")) {
    const { points, labels } = asked.rating;
    const choices = Array.from({ length: points }, (_, i) => ({
      value: i + 1, label: labels.length ? `${i + 1} ${labels[i]}` : i + 1,
    }));
    for (const aspect of asked.rating.aspects) {
      const name = `aspect-${aspect}-${place}`;
      const group = row(element, aspect, `${aspect} ${of}, ${points} is the best`, name, choices);
      listen(group, (value) => onChange(place, `aspect:${aspect}`, Number(value)));
      updates.push((state) => check(group, [state.aspects[aspect]?.[place] ?? null]));
    }
  }
  if (asked.ask.includes("yes_no")) {
    const { question } = asked.yes_no;
    const choices = [{ value: true, label: "Yes" }, { value: false, label: "No" }];
    const group = row(element, question, `${question} (${of})`, `yes-no-${place}`, choices);
    listen(group, (value) => onChange(place, "yesNo", value === "true"));
    updates.push((state) => check(group, [state.yesNo[place]]));
  }
  if (asked.ask.includes("spans")) {
    const show = addSpans(element, place, text, asked.spans.labels, (spans) => onChange(place, "spans", spans));
    updates.push((state) => show(state.spans[place]));
  }
  return (state) => updates.forEach((update) => update(state));
}

function row(element, words, description, name, choices) {
  const [group, label, segments] = ["div", "span", "div"].map((tag) => document.createElement(tag));
  Object.assign(group, { className: "control asked", role: "radiogroup" });
  group.setAttribute("aria-label", description);
  label.className = "label";
  label.textContent = words;
  segments.className = "segments";
  addChoices(segments, "radio", name, choices);
  group.append(label, segments);
  element.append(group);
  return group;
}

// A judgement of somebody else on responses with these texts in words, by place; the page does not tell whose it is.
export function told(judgement, texts) {
  const { ranks, strength, ratings, yes_no: yesNo, aspects, flags, critiques, rewrites, spans } = judgement;
  const each = (values, write = String) => values.flatMap((value, place) => {
    return value === null || !value.toString() ? [] : [`${letter(place)} ${write(value, place)}`];
  }).join(", ");
  const marks = (found, place) => found.map(([start, end, label]) => `${label} ${quoted(texts[place], start, end)}`);
  const parts = [
    ranks && (judgement.all_bad ? "all are bad" : order(ranks)) + (strength ? ` by ${strength} of 3` : ""),
    ratings && `ratings: ${each(ratings)}`,
    ...Object.entries(aspects ?? {}).map(([name, values]) => `${name}: ${each(values)}`),
    yesNo && `yes or no: ${each(yesNo, (answer) => (answer ? "yes" : "no"))}`,
    flags && `flags: ${each(flags, (labels) => labels.join(" and "))}`,
    critiques && `critiques: ${each(critiques)}`,
    rewrites && `rewrites: ${each(rewrites)}`,
    spans && `marked parts: ${each(spans, (found, place) => marks(found, place).join(" and ")) || "none"}`,
  ];
  const item = document.createElement("li");
  item.dir = "auto";
  setText(item, parts.filter(Boolean).join("; "));
  return item;
}

function order(ranks) {
  const tiers = [...new Set(ranks)].filter((rank) => rank >= 0).sort((a, b) => a - b);
  return tiers.map((tier) => ranks.flatMap((rank, i) => (rank === tier ? [letter(i)] : [])).join(" = ")).join(" > ");
}
