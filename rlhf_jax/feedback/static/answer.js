// The answer of an annotator to an assignment of `size` responses, as plain values; this file does not touch the page.
//   ratings, ranks (0 is the best), critiques, rewrites, flags: lists with an entry for each place
//   preference: between two responses, from -3 (A much better) to 3 (B much better); null where none was stated

export const letter = (place) => String.fromCharCode(65 + place);

export function blank(size) {
  const fill = (value) => Array.from({ length: size }, () => value);
  const values = { ratings: fill(null), ranks: fill(null), critiques: fill(""), rewrites: fill("") };
  return { ...values, flags: Array.from({ length: size }, () => []), preference: null, selected: null };
}

// The state that gives a withdrawn judgement again.
export function fromDraft(draft, size) {
  const state = blank(size);
  for (const field of ["ratings", "ranks", "flags", "critiques", "rewrites"]) {
    if (draft[field]) state[field] = draft[field].map((value) => (value === -1 ? null : value));
  }
  if (size === 2 && draft.ranks) {
    state.preference = Math.sign(draft.ranks[0] - draft.ranks[1]) * (draft.strength || 1);
  }
  return state;
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

// The step that is missing before the answer can be submitted, in words; "" for none. An answer needs a complete
// comparison, or else a rating of every response.
export function missing(state, size) {
  const unrated = state.ratings.includes(null);
  const unranked = state.ranks.flatMap((rank, place) => (rank === null ? [letter(place)] : []));
  if (size === 1) return unrated ? "Rate the response" : "";
  if (ranking(state, size)) return "";
  if (size > 2 && unranked.length < size) return `Rank ${unranked.join(", ")} too`;
  if (!unrated) return "";
  return size === 2 ? "Choose the better response, or rate both" : "Rank the responses, or rate all of them";
}

// "B > A = D > C" of a complete ranking of three or more, else "".
export function summary(state, size) {
  const ranks = ranking(state, size);
  if (!ranks || size < 3) return "";
  const tiers = [...new Set(ranks)].sort((a, b) => a - b);
  return tiers.map((tier) => ranks.flatMap((rank, i) => (rank === tier ? [letter(i)] : [])).join(" = ")).join(" > ");
}

// The fields of the answer as the server expects them; null where a field says nothing.
export function said(state, size) {
  const any = (values, test) => (values.some(test) ? values : null);
  return {
    ratings: any(state.ratings, (value) => value !== null),
    ranks: ranking(state, size),
    strength: size === 2 && state.preference ? Math.abs(state.preference) : null,
    flags: any(state.flags, (flags) => flags.length),
    critiques: any(state.critiques, (text) => text.trim()),
    rewrites: any(state.rewrites, (text) => text.trim()),
  };
}
