// Groups of choices, made of the browser's own radio buttons and checkboxes.

// Appends a choice for each {value, label, title}; `name` is that of the group on the whole page.
export function addChoices(group, type, name, choices) {
  for (const { value, label, title } of choices) {
    const element = document.createElement("label");
    const input = document.createElement("input");
    const words = document.createElement("span");
    Object.assign(input, { type, name, value: String(value) });
    if (title) {
      input.setAttribute("aria-label", title);
      element.title = title;
    }
    words.textContent = label;
    element.append(input, words);
    group.append(element);
  }
}

// Calls onValue(value) when a choice is pressed, also one that is chosen already.
export function listen(group, onValue) {
  for (const input of inputs(group)) input.addEventListener("click", () => onValue(input.value));
}

// Shows the values as chosen.
export function check(group, values) {
  const chosen = values.map(String);
  for (const input of inputs(group)) input.checked = chosen.includes(input.value);
}

// Presses the choice at a place, counted from 0.
export function press(group, place) {
  inputs(group)[place]?.click();
}

// Chooses the neighbour of a radio button's group that is chosen, without going round at the ends.
export function step(input, by) {
  const all = [...document.getElementsByName(input.name)];
  const from = all.findIndex((other) => other.checked);
  const next = all[Math.max(0, Math.min(all.length - 1, (from < 0 ? all.indexOf(input) : from) + by))];
  next.focus();
  if (!next.checked) next.click();
}

function inputs(group) {
  return group.querySelectorAll("input[type=radio], input[type=checkbox]");
}
