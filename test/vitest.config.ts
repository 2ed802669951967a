import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import CountReporter from './count-reporter.ts'
import LongFirst from './sequencer.ts'

export default defineConfig({
  test: {
    root: fileURLToPath(new URL('..', import.meta.url)),
    include: ['test/**/*.test.ts'],
    reporters: ['default', new CountReporter()],
    pool: 'forks',
    // Two cores: more workers only make timeouts out of contention.
    maxWorkers: 2,
    sequence: { sequencer: LongFirst },
    // Their default of 1 s is too little for a slow machine.
    setupFiles: ['test/patience.ts'],
    expect: { poll: { timeout: 20_000 } },
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
})
