export interface Invariant {
  readonly name: string
  readonly held: boolean
  /** Nothing wrong was found, but not all could be looked at. */
  readonly unseen: boolean
  /** What was looked at, and what was found: in numbers. */
  readonly evidence: string
  /** The first few things that were wrong. */
  readonly wrong: readonly string[]
}

const MAX_TOLD = 5

/** What was wrong, and the first few in words. */
export class Findings {
  count = 0
  readonly wrong: string[] = []

  add(what: string): void {
    this.count++
    if (this.wrong.length < MAX_TOLD) this.wrong.push(what)
  }

  /** `missing`: part of the evidence was not to be had. */
  invariant(name: string, evidence: string, missing = false): Invariant {
    const sound = this.count === 0
    return { name, held: sound && !missing, unseen: sound && missing, evidence, wrong: this.wrong }
  }
}

export function unseen(name: string, why = 'it could not be looked at'): Invariant {
  return new Findings().invariant(name, why, true)
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}

export function number(value: number): string {
  return value.toLocaleString('en-US')
}
