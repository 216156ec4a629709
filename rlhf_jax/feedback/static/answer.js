// The answer of an annotator to an assignment of `size` responses, as plain values; this file does not touch the page.
//   ratings, ranks (0 is the best), yesNo, critiques, rewrites, flags, spans: lists with an entry for each place
//   aspects: name -> ratings, for the aspects that are rated
//   preference: between two responses, from -3 (A much better) to 3 (B much better); null where none was stated
//   allBad: whether both responses are called bad, which is a tie
// `asked` is what the lead asks for: the fields of questions.py.

export const letter = (place) => String.fromCharCode(65 + place);

export function blank(size) {
  const fill = (value) => Array.from({ length: size }, () => value);
  const values = { ratings: fill(null), ranks: fill(null), critiques: fill(""), rewrites: fill("") };
  const lists = { flags: fill(null).map(() => []), spans: fill(null).map(() => []) };
  return { ...values, ...lists, yesNo: fill(null), aspects: {}, preference: null, allBad: false, selected: null };
}

// The state that gives an earlier judgement again.
export function fromDraft(draft, size, asked) {
  const state = blank(size);
  for (const field of ["ratings", "ranks", "flags", "critiques", "rewrites", "spans"]) {
    if (draft[field]) state[field] = draft[field].map((value) => (value === -1 ? null : value));
  }
  if (size === 2 && draft.ranks) {
    const order = Math.sign(draft.ranks[0] - draft.ranks[1]);
    const stated = order === 0 || draft.strength || asked.comparison.strengths === 1;
    state.preference = stated ? order * (draft.strength || 1) : null; // a strength that was never said is asked for
  }
  if (draft.yes_no) state.yesNo = draft.yes_no;
  if (draft.aspects) state.aspects = draft.aspects;
  state.allBad = draft.all_bad;
  return state;
}

// The state without what is not asked any more: the questions may have changed since an answer was begun or given, and the
// page shows nothing by which the rest could be taken back.
export function fitted(state, size, asked) {
  const none = blank(size);
  const { rating, text } = asked;
  const given = (kind, field, wanted = true) => (asked.ask.includes(kind) && wanted ? state[field] : none[field]);
  const inScale = (ratings) => ratings.map((value) => (value > rating.points ? null : value));
  const aspects = rating.aspects.filter((name) => given("rating", "aspects")[name]);
  const compared = size === 2 && asked.ask.includes("comparison");
  const preference = compared ? preferred(state, asked.comparison) : null;
  return {
    ...state,
    preference,
    allBad: state.allBad && preference === 0,
    ranks: given("ranking", "ranks", size > 2),
    ratings: inScale(given("rating", "ratings", rating.overall)),
    aspects: Object.fromEntries(aspects.map((name) => [name, inScale(state.aspects[name])])),
    yesNo: given("yes_no", "yesNo"),
    flags: given("flags", "flags").map((flags) => flags.filter((flag) => asked.flags.labels.includes(flag))),
    critiques: given("text", "critiques", text.fields.includes("critique")),
    rewrites: given("text", "rewrites", text.fields.includes("rewrite")),
    spans: given("spans", "spans").map((marks) => marks.filter(([, , label]) => asked.spans.labels.includes(label))),
  };
}

// The preference where it can be chosen, else null. Where no strength is asked, the response that was better is.
function preferred({ preference, allBad }, { strengths, tie, both_bad: bothBad }) {
  if (preference === null) return null;
  if (preference === 0) return (allBad ? bothBad : tie) ? 0 : null;
  if (strengths === 1) return Math.sign(preference);
  return Math.abs(preference) <= strengths ? preference : null;
}

// The ranks 0, 1, ... of all responses, without gaps; null while a response is not ranked.
function ranking(state, size) {
  if (size === 2) {
    return state.preference === null ? null : [Number(state.preference > 0), Number(state.preference < 0)];
  }
  if (size === 1 || state.ranks.includes(null)) return null;
  const ladder = [...new Set(state.ranks)].sort((a, b) => a - b);
  return state.ranks.map((rank) => ladder.indexOf(rank));
}

// The step that is missing before the answer can be submitted, in words; "" for none. Where nothing is required, an
// answer needs a complete comparison, or else a rating of every response, or an answer of yes or no for every response.
export function missing(state, size, asked) {
  const order = size === 2 ? "comparison" : "ranking";
  const all = size === 1 ? "the response" : size === 2 ? "both" : "all of them";
  const steps = {
    comparison: size === 2 && "choose the better response",
    ranking: size > 2 && "rank the responses",
    rating: `rate ${all}`,
    yes_no: `say yes or no ${size === 1 ? "" : `for ${all}`}`.trim(),
    flags: "set a flag",
    text: "write a critique or a rewrite",
    spans: "mark a part",
  };
  const unranked = state.ranks.flatMap((rank, place) => (rank === null ? [letter(place)] : []));
  if (size > 2 && unranked.length && unranked.length < size) return `Rank ${unranked.join(", ")} too`;
  const complete = (kind) => isComplete(kind, state, size, asked);
  const required = asked.required.filter((kind) => steps[kind]);
  if (required.length) return sentence(required.filter((kind) => !complete(kind)).slice(0, 1).map((kind) => steps[kind]));
  const opinions = [order, "rating", "yes_no"].filter((kind) => asked.ask.includes(kind) && steps[kind]);
  const choices = opinions.length ? opinions : asked.ask.filter((kind) => steps[kind]);
  if (!choices.length) return "Nothing is asked of this one: skip it";
  return choices.some(complete) ? "" : sentence(choices.map((kind) => steps[kind]));
}

function sentence(steps) {
  const text = steps.join(", or ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function isComplete(kind, state, size, asked) {
  if (kind === "comparison" || kind === "ranking") return ranking(state, size) !== null;
  if (kind === "rating") return rated(state, size, asked).every((ratings) => !ratings.includes(null));
  if (kind === "yes_no") return !state.yesNo.includes(null);
  if (kind === "flags") return state.flags.some((flags) => flags.length);
  if (kind === "text") return [...state.critiques, ...state.rewrites].some((text) => text.trim());
  return true; // that nothing is marked is an answer too
}

// The lists of ratings that are asked for, of the whole and of the aspects.
function rated(state, size, asked) {
  const aspects = asked.rating.aspects.map((name) => state.aspects[name] ?? Array(size).fill(null));
  return asked.rating.overall ? [state.ratings, ...aspects] : aspects;
}

// "B > A = D > C" of a complete ranking of three or more, else "".
export function summary(state, size) {
  const ranks = ranking(state, size);
  if (!ranks || size < 3) return "";
  const tiers = [...new Set(ranks)].sort((a, b) => a - b);
  return tiers.map((tier) => ranks.flatMap((rank, i) => (rank === tier ? [letter(i)] : [])).join(" = ")).join(" > ");
}

// The fields of the answer as the server expects them; null where a field says nothing, or is not asked for.
export function said(state, size, asked) {
  const any = (values, test) => (values.some(test) ? values : null);
  const given = (value) => value !== null;
  const aspects = Object.entries(state.aspects).filter(([, ratings]) => ratings.some(given));
  return {
    ratings: any(state.ratings, given),
    ranks: ranking(state, size),
    strength: size === 2 && state.preference && asked.comparison.strengths > 1 ? Math.abs(state.preference) : null,
    all_bad: state.allBad && state.preference === 0,
    yes_no: any(state.yesNo, given),
    aspects: aspects.length ? Object.fromEntries(aspects) : null,
    flags: any(state.flags, (flags) => flags.length),
    critiques: any(state.critiques, (text) => text.trim()),
    rewrites: any(state.rewrites, (text) => text.trim()),
    spans: asked.ask.includes("spans") ? state.spans : null,
  };
}
