import type { Outcome } from '../run.ts'
import type { Journal } from './journal.ts'
import type { Span, Times } from './times.ts'

/** What the drill says at its end: plain text, under 120 columns. */
export function tableOf(outcome: Outcome): string {
  const { invariants } = outcome
  const lines = invariants.flatMap(({ name, held, unseen, evidence, wrong }) => [
    `  ${held ? 'held  ' : unseen ? 'UNSEEN' : 'BROKEN'}  ${name.padEnd(WIDTH)}  ${evidence}`,
    ...wrong.map((what) => `            ${what.slice(0, MAX_WRONG)}`),
  ])
  return [
    ...lines,
    '',
    ...timesLines(outcome.times),
    ...readsLines(outcome),
    '',
    `${outcome.options.name}: ${verdictOf(outcome)}, ${disturbances(outcome.journal)}`,
  ].join('\n')
}

/** In a few words. */
export function verdictOf({ invariants }: Pick<Outcome, 'invariants'>): string {
  const all = invariants.length
  const unseen = invariants.filter((invariant) => invariant.unseen).length
  const broken = invariants.filter(({ held }) => !held).length - unseen
  if (broken + unseen === 0) return `all ${all} invariants held`
  return `${broken} of ${all} invariants BROKEN${unseen === 0 ? '' : `, ${unseen} UNSEEN`}`
}

const WIDTH = 52
const MAX_WRONG = 400

export const TIME_NAMES: readonly (readonly [keyof Times, string])[] = [
  ['detection', 'detection'],
  ['reassignment', 'reassignment'],
  ['restore', 'restore'],
  ['firstCommit', 'first commit'],
  ['lagNormal', 'lag back to normal'],
]

function timesLines(times: Times): string[] {
  const measured = TIME_NAMES.flatMap(([key, name]) => {
    const span = times[key]
    return span === undefined ? [] : [row(name, span)]
  })
  if (measured.length === 0) return []
  return [`  ${'ms'.padEnd(20)}${['p50', 'p95', 'worst', 'of'].map((name) => name.padStart(8)).join('')}`, ...measured]
}

function row(name: string, { p50, p95, worst, count }: Span): string {
  return `  ${name.padEnd(20)}${[p50, p95, worst, count].map((value) => String(value).padStart(8)).join('')}`
}

function readsLines({ reads, load }: Outcome): string[] {
  const { latencyMs, stale } = reads
  return [
    `  reads                p50 ${latencyMs.p50} ms, p99 ${latencyMs.p99} ms, worst ${latencyMs.max} ms; ${reads.failures} of ${reads.reads} failed`,
    `  stale answers        ${stale.answers}, p99 ${stale.p99Ms} ms, worst ${stale.maxMs} ms; by a standby ${reads.standbyAnswers}, of them older than before ${reads.olderFromStandby}`,
    `  acknowledgements     p50 ${load.ackMs.p50} ms, p99 ${load.ackMs.p99} ms, worst ${load.ackMs.max} ms; ${load.disconnects} connections lost`,
  ]
}

function disturbances({ marks, failure }: Journal): string {
  return `${marks.length} disturbances${failure === undefined ? '' : `, then ${failure.what}`}`
}
