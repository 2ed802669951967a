/** Sleeps that end when they are told to, in the order in which they began, or by their signal. */
export function sleeps() {
  const ends: (() => void)[] = []
  const sleep = (_: number, signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      ends.push(resolve)
      signal.addEventListener('abort', () => resolve(), { once: true })
    })
  return { sleep, ends }
}
