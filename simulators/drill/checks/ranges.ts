/** Whole numbers seen, as ascending inclusive ranges that do not touch. */
export class Ranges {
  readonly #ranges: [number, number][] = []
  count = 0

  /** False when the number had been seen. */
  add(n: number): boolean {
    const ranges = this.#ranges
    let i = ranges.length
    while (i > 0 && (ranges[i - 1] as [number, number])[0] > n) i--
    const below = ranges[i - 1]
    if (below !== undefined && n <= below[1]) return false
    const above = ranges[i]
    this.count++
    if (below !== undefined && below[1] === n - 1) {
      below[1] = n
      if (above !== undefined && above[0] === n + 1) {
        below[1] = above[1]
        ranges.splice(i, 1)
      }
    } else if (above !== undefined && above[0] === n + 1) above[0] = n
    else ranges.splice(i, 0, [n, n])
    return true
  }

  /** How many of the numbers from `first` to `last` are missing. */
  missing(first: number, last: number): number {
    let missing = Math.max(0, last - first + 1)
    for (const [low, high] of this.#ranges) {
      const overlap = Math.min(high, last) - Math.max(low, first) + 1
      if (overlap > 0) missing -= overlap
    }
    return missing
  }
}
