import { readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { Invariant } from '../checks/invariants.ts'
import { DRILLS } from '../drills.ts'
import { commandOf } from '../options.ts'
import type { Outcome } from '../run.ts'
import type { Journal, Span, Times } from './journal.ts'

/** The table that the drill prints at its end. */
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

function verdictOf({ invariants }: Pick<Outcome, 'invariants'>): string {
  const all = invariants.length
  const unseen = invariants.filter((invariant) => invariant.unseen).length
  const broken = invariants.filter(({ held }) => !held).length - unseen
  if (broken + unseen === 0) return `all ${all} invariants held`
  return `${broken} of ${all} invariants BROKEN${unseen === 0 ? '' : `, ${unseen} UNSEEN`}`
}

const WIDTH = 52
const MAX_WRONG = 400

const TIME_NAMES: readonly (readonly [keyof Times, string])[] = [
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

const require = createRequire(import.meta.url)

/** Writes `report.html`, which needs no other file, and `report.json` with the same data. Resolves with the path of the page. */
export async function writeReport(folder: string, outcome: Outcome): Promise<string> {
  const page = join(folder, 'report.html')
  await writeFile(join(folder, 'report.json'), `${JSON.stringify(dataOf(outcome), undefined, 1)}\n`)
  await writeFile(page, await pageOf(outcome))
  return page
}

function dataOf({ options, ...outcome }: Outcome): object {
  const { name, seed } = options
  const held = outcome.invariants.every((invariant) => invariant.held)
  return { drill: name, command: commandOf(options), seed, held, ...outcome }
}

async function pageOf(outcome: Outcome): Promise<string> {
  const { options, journal, invariants } = outcome
  const uplot = dirname(require.resolve('uplot'))
  const [library, libraryStyle, style, client] = await Promise.all([
    readFile(join(uplot, 'uPlot.iife.min.js'), 'utf8'),
    readFile(join(uplot, 'uPlot.min.css'), 'utf8'),
    readFile(join(import.meta.dirname, 'page.css'), 'utf8'),
    readFile(join(import.meta.dirname, 'client.js'), 'utf8'),
  ])
  const verdict = verdictOf(outcome)
  const good = invariants.every(({ held }) => held)
  const { failure } = journal
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Drill ${options.name}: ${verdict}</title>
<style>${libraryStyle}${style}</style>
</head>
<body>
<h1>Drill: ${options.name}</h1>
<p>${text(DRILLS[options.name].about)}</p>
<p class="verdict ${good ? 'good' : 'bad'}">${verdict}</p>
${failure === undefined ? '' : `<p class="bad">${text(`${failure.what}: ${failure.why}`)}</p>`}
<p class="faint">${text(journal.startedAt)}, seed ${options.seed}; to repeat it:</p>
<code>${text(commandOf(options))}</code>
<h2>What happened</h2>
<div class="key" id="key"></div>
<div class="chart" id="bands"></div>
<p class="faint">Who held each partition: full where it ran, thin where it was claimed or restored. Drag to zoom, double-click to see all.</p>
<h3>Messages a second</h3><div class="chart" id="rate"></div>
<h3>Lag</h3><div class="chart" id="lag"></div>
<h3>Staleness</h3><div class="chart" id="stale"></div>
<h3>Reads a second</h3><div class="chart" id="failed"></div>
<h2>Invariants</h2>
<table class="invariants"><tr class="head"><th></th><th>Invariant</th><th>Evidence</th></tr>
${invariants.map(invariantRow).join('\n')}
</table>
<h2>Figures</h2>
${timesTable(outcome)}
${figuresTable(outcome)}
<script type="application/json" id="data">${JSON.stringify({ journal }).replaceAll('<', '\\u003c')}</script>
<script>${library}</script>
<script>${client}</script>
</body>
</html>
`
}

function invariantRow({ name, held, unseen, evidence, wrong }: Invariant): string {
  const verdict = held ? '<td class="good">held</td>' : `<td class="bad">${unseen ? 'UNSEEN' : 'BROKEN'}</td>`
  const list = wrong.length === 0 ? '' : `<ul>${wrong.map((what) => `<li>${text(what)}</li>`).join('')}</ul>`
  return `<tr>${verdict}<td>${text(name)}</td><td>${text(evidence)}${list}</td></tr>`
}

function timesTable({ times }: Outcome): string {
  const rows = TIME_NAMES.flatMap(([key, name]) => {
    const span = times[key]
    return span === undefined ? [] : [numberRow(name, [span.p50, span.p95, span.worst, span.count])]
  })
  if (rows.length === 0) return ''
  return `<table>${numberRow('ms after a disturbance', ['p50', 'p95', 'worst', 'of'], 'th')}${rows.join('')}</table>`
}

function figuresTable({ reads, load }: Outcome): string {
  const figures: [string, string][] = [
    ['messages sent, acknowledged', `${load.sent}, ${load.acknowledged}; ${load.sentAgain} sent again`],
    ['time to acknowledgement', `p50 ${load.ackMs.p50} ms, p99 ${load.ackMs.p99} ms, worst ${load.ackMs.max} ms`],
    ['connections lost or refused', String(load.disconnects)],
    ['reads, failed', `${reads.reads}, ${reads.failures}`],
    ['time to answer', `p50 ${reads.latencyMs.p50} ms, p99 ${reads.latencyMs.p99} ms, worst ${reads.latencyMs.max} ms`],
    ['longest gap of a partition', `${reads.longestGapMs} ms`],
    ['stale answers', `${reads.stale.answers}; p99 ${reads.stale.p99Ms} ms, worst ${reads.stale.maxMs} ms`],
    ['answers by a standby', `${reads.standbyAnswers}, of them older than one before ${reads.olderFromStandby}`],
  ]
  return `<table>${figures.map(([name, value]) => `<tr><td>${name}</td><td>${text(value)}</td></tr>`).join('')}</table>`
}

function numberRow(name: string, values: readonly (string | number)[], cell = 'td'): string {
  const cells = values.map((value) => `<${cell} class="number">${value}</${cell}>`).join('')
  return `<tr><${cell}>${name}</${cell}>${cells}</tr>`
}

function text(raw: string): string {
  return raw.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
