// The words of a text that another text lacks.

const MAX_CELLS = 4e6; // of the table of common subsequences, which takes some 20 ms and 8 MB

// The text in pieces [text, whether the other text lacks it], along a longest common subsequence of words.
export function newPieces(text, other) {
  const words = split(text);
  const others = split(other);
  let start = 0;
  while (start < words.length && words[start] === others[start]) start++;
  let end = 0;
  while (end < Math.min(words.length, others.length) - start && words.at(-1 - end) === others.at(-1 - end)) end++;
  const middle = words.slice(start, words.length - end);
  const kept = common(middle, others.slice(start, others.length - end));
  const pieces = [];
  words.forEach((word, place) => {
    const inside = place >= start && place < words.length - end;
    const marked = inside && !kept[place - start] && word.trim() !== "";
    const before = pieces.at(-1);
    if (before?.[1] === marked) {
      before[0] += word;
    } else if (marked && pieces.length > 1 && !before[0].trim()) {
      pieces.at(-2)[0] += pieces.pop()[0] + word; // one mark for words that only a space parts
    } else {
      pieces.push([word, marked]);
    }
  });
  return pieces;
}

function split(text) {
  return Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), (part) => part.segment);
}

// For each word whether a longest common subsequence with the others holds it; none where the table would be too large.
function common(words, others) {
  const kept = words.map(() => false);
  const width = others.length + 1;
  if (words.length * others.length > MAX_CELLS) return kept;
  const lengths = new Uint16Array((words.length + 1) * width); // of words[i:] and others[j:]
  for (let i = words.length - 1; i >= 0; i--) {
    for (let j = others.length - 1; j >= 0; j--) {
      const longer = Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
      lengths[i * width + j] = words[i] === others[j] ? lengths[(i + 1) * width + j + 1] + 1 : longer;
    }
  }
  for (let i = 0, j = 0; i < words.length && j < others.length; ) {
    if (words[i] === others[j]) {
      kept[i++] = true;
      j++;
    } else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i++;
    else j++;
  }
  return kept;
}
