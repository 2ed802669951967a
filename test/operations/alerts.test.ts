import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { parse } from 'yaml'
import { Composition, REPOSITORY } from './composition.ts'
import { isThere, run } from './tools.ts'

interface Tested {
  readonly alertname: string
  readonly exp_alerts?: readonly object[]
}

/** As compose.yaml has them, and what promtool tries them with. */
let alerts: string
let tests: string
let page: string

beforeAll(async () => {
  alerts = (await Composition.read()).file('alerts')
  tests = await readFile(join(import.meta.dirname, 'alerts.test.yml'), 'utf8')
  page = await readFile(join(REPOSITORY, 'docs/metrics.md'), 'utf8')
})

function names(): string[] {
  const { groups } = parse(alerts) as { groups: { rules: { alert: string }[] }[] }
  return groups.flatMap(({ rules }) => rules.map(({ alert }) => alert)).sort()
}

describe('the alerts of compose.yaml', () => {
  test('are told of metrics that there are', () => {
    const asked = new Set(alerts.match(/tidemark_\w+/g))
    expect(asked.size).toBeGreaterThan(6)
    for (const name of asked) expect(page).toContain(`- \`${name.replace(/_(bucket|count|sum)$/, '')}\``)
  })

  test('are told in docs/metrics.md, each with the metrics that it asks', () => {
    const { groups } = parse(alerts) as { groups: { rules: { alert: string; expr: string }[] }[] }
    const told = new Map(
      Array.from(page.matchAll(/^- \*\*`(\w+)`\*\*(?: \(([^)]*)\))?:/gm), ([, name = '', of = '']) => [name, of]),
    )
    expect([...told.keys()].sort()).toEqual(names())
    for (const { alert, expr } of groups.flatMap(({ rules }) => rules)) {
      const asked = new Set(expr.match(/tidemark_\w+/g)?.map((name) => name.replace(/_(bucket|count|sum)$/, '')))
      expect(new Set(told.get(alert)?.match(/tidemark_\w+/g)), alert).toEqual(asked)
    }
  })

  test('are each tried where it is to be raised, and where it is not', () => {
    const tried = (parse(tests) as { tests: { alert_rule_test: Tested[] }[] }).tests.flatMap((of) => of.alert_rule_test)
    const raised = tried.filter(({ exp_alerts: expected = [] }) => expected.length > 0)
    const silent = tried.filter(({ exp_alerts: expected = [] }) => expected.length === 0)
    for (const of of [raised, silent]) {
      expect([...new Set(of.map(({ alertname }) => alertname))].sort()).toEqual(names())
    }
  })

  test.skipIf(!isThere('promtool'))('are raised then, and only then', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tidemark-alerts-'))
    onTestFinished(() => rm(folder, { recursive: true, force: true }))
    const file = join(folder, 'alerts.test.yml')
    await writeFile(join(folder, 'alerts.yml'), alerts)
    await writeFile(file, tests)
    const { code, said } = run('promtool', ['test', 'rules', file])
    expect(said).toMatch('SUCCESS')
    expect(code).toBe(0)
  })
})
