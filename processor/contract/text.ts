/** The first `most` characters, or one fewer: a surrogate pair is not parted, as half of one has no bytes of its own. */
export function beginningOf(text: string, most: number): string {
  if (text.length <= most) return text
  return text.slice(0, (text.charCodeAt(most - 1) & 0xfc00) === 0xd800 ? most - 1 : most)
}
