import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import { expect, test } from 'vitest'
import { Gate } from '../../api/gate.ts'
import { measureReads, RequestDurations } from '../../api/measures.ts'
import { Counts } from '../../ingest/counts.ts'
import { REJECTION_REASONS } from '../../processor/contract/telemetry.ts'
import { EmbeddedMetrics } from '../../processor/log/embedded-metrics.ts'
import { KafkaMetrics } from '../../processor/log/kafka-metrics.ts'
import { ProcessorMetrics } from '../../processor/metrics.ts'
import { isThere, run } from './tools.ts'

interface Metric {
  readonly name: string
  readonly type: string
  readonly help: string
  readonly labels: readonly string[]
}

/** Every metric of every role, once. */
async function metrics(): Promise<{ all: Metric[]; texts: string[] }> {
  const registries = [new Registry(), new Registry()] as const
  const [kafka, embedded] = registries
  for (const Metrics of [KafkaMetrics, ProcessorMetrics, Counts, RequestDurations]) Reflect.construct(Metrics, [kafka])
  measureReads(kafka, { one: new Gate('reads', 1) })
  Reflect.construct(EmbeddedMetrics, [embedded])
  const found = new Map<string, Metric>()
  for (const registry of registries) {
    for (const { name, type, help } of await registry.getMetricsAsJSON()) {
      const { labelNames = [] } = registry.getSingleMetric(name) as unknown as { labelNames?: string[] }
      found.set(name, { name, type: String(type), help, labels: labelNames })
    }
  }
  return { all: [...found.values()], texts: await Promise.all(registries.map((registry) => registry.metrics())) }
}

test('metrics are named as Prometheus asks: one prefix, base units, _total for counters only, and a help text', async () => {
  const { all } = await metrics()
  expect(all.length).toBeGreaterThan(30)
  for (const { name, type, help, labels } of all) {
    expect(name).toMatch(/^tidemark_[a-z][a-z0-9_]*$/)
    expect(name.endsWith('_total'), name).toBe(type === 'counter')
    if (type === 'histogram') expect(name).toMatch(/_(seconds|records|bytes)$/)
    expect(name).not.toMatch(/_(ms|millis|milliseconds|minutes|kb|count|gauge)(_|$)/)
    expect(help.length, name).toBeGreaterThan(10)
    // Prometheus names what it scrapes by these.
    for (const label of labels) expect(['instance', 'job', 'le', 'quantile'], name).not.toContain(label)
  }
})

test('README explains every metric, by its type, and no other', async () => {
  const readme = await readFile(join(import.meta.dirname, '../../README.md'), 'utf8')
  const rows = [...readme.matchAll(/^\| `(tidemark_\w+)`[^|]*\| (\w+) \|/gm)].map(([, name, type]) => `${name} ${type}`)
  const { all } = await metrics()
  // `openLog` adds it to what the log counts.
  const names = [...all.map(({ name, type }) => `${name} ${type}`), 'tidemark_log_partitions gauge']
  expect(rows.sort()).toEqual(names.sort())
})

test('what counts by reason begins at 0: the first of a kind is an increase', async () => {
  const registry = new Registry()
  Reflect.construct(Counts, [registry])
  new ProcessorMetrics(registry).begin('one')
  const text = await registry.metrics()
  for (const reason of REJECTION_REASONS) {
    expect(text).toContain(`tidemark_dead_letters_total{processor="one",reason="${reason}"} 0`)
  }
  expect(text).toContain('tidemark_decided_writes_total{processor="one",outcome="stale"} 0')
  const ingest = join(import.meta.dirname, '../../ingest')
  const sources = (await readdir(ingest)).map((file) => readFile(join(ingest, file), 'utf8'))
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
  for (const text of (await metrics()).texts) {
    expect(run('promtool', ['check', 'metrics'], text)).toEqual({ code: 0, said: '' })
  }
})
