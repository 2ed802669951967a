import { defineConfig } from 'vitest/config'
import CountReporter from './count-reporter.ts'

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: ['test/**/*.test.ts'],
    reporters: ['default', new CountReporter()],
    pool: 'forks',
    // Two cores: more workers only make timeouts out of contention.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
})
