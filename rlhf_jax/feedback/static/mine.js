// The annotator's own judgements: found again by a word, and chosen to be corrected.
import { post } from "./server.js";
import { setText } from "./text.js";

const $ = (id) => document.getElementById(id);
const PAGE = 20; // judgements that the server gives at a time

// Calls onChoose(id of a judgement) when one is chosen, and onFail(problem) when the server refuses.
export function offerMine(onChoose, onFail) {
  let skip = 0;
  let asked = 0; // number of the request whose answer is wanted: a slower earlier one is dropped

  async function find(from) {
    const mine = ++asked;
    try {
      const { found } = await post("/mine", { search: $("mine-search").value.trim(), skip: from });
      if (mine !== asked) return;
      if (from === 0) $("mine-found").replaceChildren();
      skip = from + found.length;
      $("mine-found").append(...found.map(entry));
      if (skip === 0) $("mine-found").textContent = "There are none.";
      $("mine-more").hidden = found.length < PAGE;
    } catch (problem) {
      $("mine").close();
      onFail(problem);
    }
  }

  function entry({ id, prompt, created, skipped }) {
    const button = document.createElement("button");
    const time = document.createElement("small");
    const words = document.createElement("span");
    button.type = "button";
    words.dir = "auto";
    setText(words, prompt);
    time.className = "muted";
    time.textContent = `${new Date(created).toLocaleString()}${skipped ? ", skipped" : ""} `;
    button.append(time, words);
    button.addEventListener("click", () => {
      $("mine").close();
      onChoose(id);
    });
    return button;
  }

  $("mine-open").addEventListener("click", () => {
    $("mine-search").value = "";
    $("mine").showModal();
    find(0);
  });
  $("mine-search").addEventListener("input", () => find(0));
  $("mine-more").addEventListener("click", () => find(skip));
}
