import { describe, expect, it } from 'vitest'
import { murmur2, partitionOf } from '../../../processor/contract/partition.ts'

describe('murmur2', () => {
  // org.apache.kafka.common.utils.UtilsTest.testMurmur2
  it.each([
    ['21', -973932308],
    ['foobar', -790332482],
    ['a-little-bit-long-string', -985981536],
    ['a-little-bit-longer-string', -1486304829],
    ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
    ['abc', 479470107],
  ])('of %s is what the Java client gives', (key, hash) => {
    expect(murmur2(key)).toBe(hash)
  })

  it('hashes the UTF-8 bytes of a key outside ASCII', () => {
    const latin1 = Buffer.from('né', 'utf8').toString('latin1')
    expect(latin1).toHaveLength(3)
    // The same three bytes, given as three Latin-1 characters, are re-encoded to five: another hash.
    expect(murmur2('né')).not.toBe(murmur2(latin1))
  })
})

describe('partitionOf', () => {
  it('masks the sign bit as Utils.toPositive does', () => {
    expect(partitionOf('21', 8)).toBe((-973932308 & 0x7fffffff) % 8)
    expect(partitionOf('abc', 10)).toBe(7)
  })

  it('spreads a fleet evenly', () => {
    const counts = Array.from({ length: 8 }, () => 0)
    for (let i = 0; i < 8000; i++) counts[partitionOf(`device-${i}`, 8)]! += 1
    for (const count of counts) expect(count).toBeGreaterThan(800)
  })
})
