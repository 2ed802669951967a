import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'

interface Block {
  name: string
  ok: number
  failures: string[]
}

/** TAP as tape prints it: "# name" opens a test, "ok" and "not ok" are its assertions, details follow indented. */
function parse(tap: string): { blocks: Block[]; summary: Map<string, number>; plan: number } {
  const blocks: Block[] = []
  const summary = new Map<string, number>()
  let plan = -1
  for (const line of tap.split('\n')) {
    const counted = /^# (tests|pass|fail|skip)\s+(\d+)$/.exec(line)
    const planned = /^1\.\.(\d+)$/.exec(line)
    if (counted !== null) summary.set(counted[1] ?? '', Number(counted[2]))
    else if (planned !== null) plan = Number(planned[1])
    else if (line.startsWith('# ') && line !== '# ok') blocks.push({ name: line.slice(2), ok: 0, failures: [] })
    else if (line.startsWith('ok ')) (blocks.at(-1) as Block).ok++
    else if (line.startsWith('not ok ')) blocks.at(-1)?.failures.push(line)
    else if (line.startsWith('  ')) {
      const failures = blocks.at(-1)?.failures
      if (failures !== undefined && failures.length > 0) failures[failures.length - 1] += `\n${line}`
    }
  }
  return { blocks, summary, plan }
}

async function run(): Promise<{ code: number; tap: string; stderr: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'rocksdb-level-conformance-'))
  try {
    return await runIn(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

function runIn(folder: string): Promise<{ code: number; tap: string; stderr: string }> {
  const suite = join(import.meta.dirname, 'conformance-suite.mjs')
  return new Promise((resolve) => {
    execFile(process.execPath, [suite, folder], { maxBuffer: 64 << 20, timeout: 600_000 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), tap: stdout, stderr })
    })
  })
}

describe("abstract-level's conformance suite", async () => {
  const { code, tap, stderr } = await run()
  const { blocks, summary, plan } = parse(tap)

  // Names repeat (the suite runs again on a sublevel), so each gets its number.
  for (const [i, block] of blocks.entries()) {
    test(`${i + 1} ${block.name} (${block.ok} assertions)`, () => {
      expect(block.failures).toEqual([])
    })
  }

  test('ran whole', () => {
    expect({ code, stderr, skipped: /# SKIP|# TODO/.exec(tap) }).toEqual({ code: 0, stderr: '', skipped: null })
    expect(plan).toBe(blocks.reduce((sum, block) => sum + block.ok, 0))
    expect(summary.get('tests')).toBe(plan)
    expect(summary.get('pass')).toBe(plan)
    expect(plan).toBeGreaterThan(4400)
  })
})
