/** So many letters a name must have for each that may be wrong, and as many more: of short ones others are one letter away. */
const LETTERS_PER_MISTAKE = 4
/** More is no slip. */
const MAX_MISTAKES = 2

/** That of `names` which `given` is likely to be meant for, but for capitals and a letter or two; undefined for none. */
export function nearest(given: string, names: readonly string[]): string | undefined {
  const word = given.toUpperCase()
  let found: { readonly name: string; readonly mistakes: number } | undefined
  for (const name of names) {
    const allowed = Math.max(0, Math.min(MAX_MISTAKES, Math.floor(name.length / LETTERS_PER_MISTAKE) - 1))
    if (Math.abs(name.length - word.length) > allowed) continue
    const mistakes = distance(word, name)
    if (mistakes > allowed) continue
    if (found === undefined || mistakes < found.mistakes) found = { name, mistakes }
  }
  return found?.name
}

/** Letters that were left out, added, replaced, or swapped with their neighbour (optimal string alignment). */
function distance(a: string, b: string): number {
  let [before, last] = [[] as number[], Array.from({ length: b.length + 1 }, (_, j) => j)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = at(last, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1)
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      const swapped = isSwap ? at(before, j - 2) + 1 : Number.POSITIVE_INFINITY
      row.push(Math.min(at(last, j) + 1, at(row, j - 1) + 1, replaced, swapped))
    }
    before = last
    last = row
  }
  return at(last, b.length)
}

function at(row: readonly number[], j: number): number {
  return row[j] as number
}
