import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { Positions } from '../../../api/changes/resume.ts'

const positions = fc.record({
  offsets: fc.array(fc.option(fc.nat({ max: 2 ** 40 }), { nil: undefined }), { minLength: 1, maxLength: 20 }),
  atSeconds: fc.nat({ max: 4_000_000_000 }),
})

it('comes back as it was, in characters that a URL and a header may hold', () => {
  fc.assert(
    fc.property(positions, (position) => {
      const stream = new Positions('cluster topic', position.offsets.length)
      const text = stream.encode(position)
      expect(text).toMatch(/^[0-9a-z.]+$/)
      expect(stream.decode(text)).toEqual(position)
    }),
  )
})

it('is refused when it is of another log, query or caller, or of another number of partitions', () => {
  fc.assert(
    fc.property(positions, (position) => {
      const partitions = position.offsets.length
      const text = new Positions('cluster topic', partitions).encode(position)
      expect(new Positions('cluster anew', partitions).decode(text)).toBe('position-of-another-stream')
      expect(new Positions('cluster topic', partitions + 1).decode(text)).toBe('position-of-another-stream')
    }),
  )
})

it('is refused when it is garbled', () => {
  fc.assert(
    fc.property(positions, fc.nat(), fc.constantFrom('', '0', 'z', '.', 'A', '%', 'é'), (position, seed, other) => {
      const stream = new Positions('cluster topic', position.offsets.length)
      const text = stream.encode(position)
      const at = seed % text.length
      const garbled = text.slice(0, at) + other + text.slice(at + 1)
      fc.pre(garbled !== text)
      expect(stream.decode(garbled)).toBe('position-malformed')
    }),
  )
  for (const text of ['', '.', 'null', '0000000.0.0', '\0', '.'.repeat(100_000)]) {
    expect(new Positions('cluster topic', 1).decode(text)).toBe('position-malformed')
  }
})
