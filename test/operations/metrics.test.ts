import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import { beforeAll, expect, test } from 'vitest'
import { END_REASONS } from '../../api/changes/event.ts'
import { IngestMetrics } from '../../ingest/metrics.ts'
import { REJECTION_REASONS } from '../../processor/contract/dead-letter.ts'
import { KafkaMetrics } from '../../processor/log/kafka/health.ts'
import { ProcessorMetrics } from '../../processor/metrics.ts'
import { Stack } from '../system/stack.ts'
import { isThere, run } from './tools.ts'

const PAGE = join(import.meta.dirname, '../../docs/metrics.md')

interface Metric {
  readonly type: string
  readonly help: string
  readonly labels: ReadonlySet<string>
}

/** Of all roles on the embedded log, by a process that runs, and of Kafka's adapter; without what Node says of itself. */
let texts: string[]
/** By name. */
let all: Map<string, Metric>

beforeAll(async () => {
  await using stack = await Stack.start()
  const running = await (await stack.get('/metrics')).text()
  const kafka = new Registry()
  Reflect.construct(KafkaMetrics, [kafka])
  texts = [running, await kafka.metrics()].map(ours)
  all = new Map(texts.flatMap((text) => [...metricsIn(text)]))
})

function ours(text: string): string {
  const blocks = text.trimEnd().split('\n\n')
  return `${blocks.filter((block) => !/^# HELP (process|nodejs)_/.test(block)).join('\n\n')}\n`
}

function metricsIn(text: string): Map<string, Metric> {
  const found = new Map<string, Metric>()
  const heads = text.matchAll(/^# HELP (\S+) (.*)\n# TYPE \S+ (\w+)\n((?:(?!#).+\n)*)/gm)
  for (const [, name = '', help = '', type = '', samples = ''] of heads) {
    const labels = new Set(Array.from(samples.matchAll(/[{,](\w+)="/g), ([, label]) => label as string))
    if (type === 'histogram') labels.delete('le')
    found.set(name, { type, help, labels })
  }
  return found
}

test('metrics are named as Prometheus asks: one prefix, base units, _total for counters only, and a help text', () => {
  expect(all.size).toBeGreaterThan(40)
  for (const [name, { type, help, labels }] of all) {
    expect(name).toMatch(/^tidemark_[a-z][a-z0-9_]*$/)
    expect(name.endsWith('_total'), name).toBe(type === 'counter')
    if (type === 'histogram') expect(name).toMatch(/_(seconds|records|bytes)$/)
    expect(name).not.toMatch(/_(ms|millis|milliseconds|minutes|kb|count|gauge)(_|$)/)
    expect(help.length, name).toBeGreaterThan(10)
    // Prometheus names what it scrapes by these.
    for (const label of labels) expect(['instance', 'job', 'le', 'quantile'], name).not.toContain(label)
  }
})

test('docs/metrics.md explains every metric, by its type and labels, and no other', async () => {
  const page = await readFile(PAGE, 'utf8')
  const entries = page.matchAll(/^- `(tidemark_\w+)` (\w+)(?: \{([^}]*)\})?:/gm)
  const told = new Map(Array.from(entries, ([, name = '', type, labels]) => [name, { type, labels }]))
  expect([...told.keys()].sort()).toEqual([...all.keys()].sort())
  for (const [name, { type, labels }] of all) {
    expect(told.get(name)?.type, name).toBe(type)
    // A metric that nothing was counted in yet has no labels to compare.
    if (labels.size > 0) expect(new Set(told.get(name)?.labels?.split(', ')), name).toEqual(labels)
  }
})

test('docs/metrics.md names every bound of ingest', async () => {
  const page = await readFile(PAGE, 'utf8')
  const [row = ''] = /^- `tidemark_ingest_bound_hits_total`(?:.|\n(?!- ))*/m.exec(page) ?? []
  const bounds = texts.flatMap((text) => [...text.matchAll(/^tidemark_ingest_bound_hits_total\{bound="([^"]+)"/gm)])
  expect(bounds.length).toBeGreaterThan(5)
  for (const [, bound] of bounds) expect(row).toContain(`\`${bound}\``)
})

test('what counts by reason begins at 0: the first of a kind is an increase', async () => {
  const registry = new Registry()
  Reflect.construct(IngestMetrics, [registry])
  new ProcessorMetrics(registry).initialize('one')
  const text = await registry.metrics()
  for (const reason of REJECTION_REASONS) {
    expect(text).toContain(`tidemark_dead_letters_total{processor="one",reason="${reason}"} 0`)
  }
  expect(text).toContain('tidemark_decided_writes_total{processor="one",outcome="stale"} 0')
  for (const reason of ['LOG_UNAVAILABLE', 'LOG_NO_SPACE', 'RECORD_TOO_LARGE']) {
    expect(text).toContain(`tidemark_ingest_failed_appends_total{reason="${reason}"} 0`)
  }
  for (const reason of [...END_REASONS, 'client']) {
    expect(texts[0]).toContain(`tidemark_changes_streams_ended_total{reason="${reason}"} 0`)
  }
  const ingest = join(import.meta.dirname, '../../ingest')
  const files = (await readdir(ingest, { recursive: true })).filter((file) => file.endsWith('.ts'))
  const sources = files.map((file) => readFile(join(ingest, file), 'utf8'))
  const code = (await Promise.all(sources)).join('\n')
  const labels = [
    ...Array.from(code.matchAll(/(?:boundHits|droppedQos0|refusals)\.add\(\s*'([^']+)'/g)),
    ...Array.from(code.matchAll(/closeReason \?\?= '([^']+)'/g)),
    ...Array.from(code.matchAll(/(?:reason: |: |\?\? )'((?:bad|payload)-[a-z-]+)'/g)),
  ]
  expect(labels.length).toBeGreaterThan(20)
  for (const [found, label] of labels) expect(text, found).toMatch(new RegExp(`="${label}"} 0$`, 'm'))
})

test.skipIf(!isThere('promtool'))('promtool has nothing to say against them', async () => {
  for (const text of texts) {
    expect(run('promtool', ['check', 'metrics'], text)).toEqual({ code: 0, said: '' })
  }
})

test('docs/metrics.md says which metrics there are on Kafka alone', async () => {
  const page = await readFile(PAGE, 'utf8')
  const [, told = ''] = /on Kafka alone:\s([^.]+)\./.exec(page) ?? []
  const [running, kafka] = texts.map((text) => [...metricsIn(text).keys()])
  const alone = kafka?.filter((name) => running?.includes(name) === false)
  const names = Array.from(told.matchAll(/`(\w+)`/g), ([, name]) => name as string)
  expect(new Set(names)).toEqual(new Set(alone))
})
