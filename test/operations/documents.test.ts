import { access, readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { DEFAULT_LIMITS } from '../../ingest/limits.ts'
import { REJECTION_REASONS } from '../../processor/contract/dead-letter.ts'
import { REPOSITORY } from './composition.ts'

const MiB = 1024 * 1024

function count(number: number): string {
  return number.toLocaleString('en-US')
}

const pages = ['README.md', 'ARCHITECTURE.md']
for (const name of await readdir(join(REPOSITORY, 'docs'))) pages.push(`docs/${name}`)

function read(page: string): Promise<string> {
  return readFile(join(REPOSITORY, page), 'utf8')
}

/** The anchors of the headings, as GitHub makes them. */
function anchorsOf(text: string): string[] {
  const prose = text.replaceAll(/^```[\s\S]*?^```$/gm, '')
  return Array.from(prose.matchAll(/^#+ (.+)$/gm), ([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

describe('the documents', () => {
  test.each(pages)('%s links to what is there', async (page) => {
    const text = await read(page)
    const links = Array.from(text.matchAll(/\]\(([^)\s]+)\)/g), ([, target = '']) => target)
    for (const link of links.filter((target) => !/^https?:/.test(target))) {
      const [file = '', anchor] = link.split('#')
      const target = file === '' ? page : join(dirname(page), file)
      await expect(access(join(REPOSITORY, target)), link).resolves.toBeUndefined()
      if (anchor !== undefined) expect(anchorsOf(await read(target)), link).toContain(anchor)
    }
  })

  test.each([
    ['README.md', 200],
    ['ARCHITECTURE.md', 250],
  ])('%s has at most %i lines, of 120 characters', async (page, most) => {
    const lines = (await read(page)).trimEnd().split('\n')
    expect(lines.length).toBeLessThanOrEqual(most)
    expect(lines.filter((line) => line.length > 120)).toEqual([])
  })

  test('README links to each page', async () => {
    const readme = await read('README.md')
    for (const page of pages.filter((one) => one !== 'README.md')) expect(readme).toContain(`](${page})`)
  })

  test('docs/mqtt.md has each reason of a dead letter, and the limits of ingest', async () => {
    const page = await read('docs/mqtt.md')
    for (const reason of REJECTION_REASONS) expect(page).toContain(`\`${reason}\``)
    const { maxConnections, maxPacketBytes, maxUnacked, maxUnreleased, maxHeldBytes, maxQos0Bytes } = DEFAULT_LIMITS
    const { maxDevicesPerConnection, maxDevices, maxSubscriptionLevels, maxSubscriptionLevelsTotal } = DEFAULT_LIMITS
    const { maxQueued, maxQueuedTotal, maxQueuedBytes, maxStoredSessions, maxRetained, maxRetainedBytes } =
      DEFAULT_LIMITS
    const { maxOutgoingBytes, maxOutgoingTotalBytes, maxFilters, maxFilterLength, maxClientIdLength } = DEFAULT_LIMITS
    const { maxHandshakes, maxDenials } = DEFAULT_LIMITS
    const { maxWillBytes, maxIncompleteBytes, connectTimeoutMs, appendDeadlineMs, drainTimeoutMs } = DEFAULT_LIMITS
    for (const row of [
      `connections | ${count(maxConnections)}`,
      `connections of one address | ${count(DEFAULT_LIMITS.maxConnectionsPerAddress)}`,
      `the same of one client | ${DEFAULT_LIMITS.maxWillBytesPerClient / MiB} MiB`,
      `persistent sessions of one client | ${count(DEFAULT_LIMITS.maxStoredSessionsPerClient)}`,
      `time from connecting to CONNECT | ${connectTimeoutMs / 1000} s`,
      `TLS handshakes at once | ${count(maxHandshakes)}`,
      `messages of a connection that it may not publish | ${maxDenials} in a minute`,
      `a packet | ${count(maxPacketBytes)} bytes`,
      `client id | ${maxClientIdLength} characters`,
      `wills of all connections | ${maxWillBytes / MiB} MiB`,
      `messages of a connection without acknowledgement | ${count(maxUnacked)}`,
      `the same of all connections | ${maxHeldBytes / MiB} MiB`,
      `QoS 2 messages without PUBREL | ${count(maxUnreleased)}`,
      `packets and WebSocket messages that are incomplete, in all | ${maxIncompleteBytes / MiB} MiB`,
      `time for the log to take a message | ${appendDeadlineMs / 1000} s`,
      `devices of a connection; of a process | ${count(maxDevicesPerConnection)}; ${count(maxDevices)}`,
      `filters in a packet | ${count(maxFilters)}`,
      `a filter | ${maxFilterLength} characters, ${DEFAULT_LIMITS.maxFilterLevels} levels, ${DEFAULT_LIMITS.maxFilterWildcards} wildcards`,
      `levels of all filters of a connection | ${count(maxSubscriptionLevels)}`,
      `the same of a client; of all | ${count(DEFAULT_LIMITS.maxSubscriptionLevelsPerClient)}; ${count(maxSubscriptionLevelsTotal)}`,
      `retained messages | ${count(maxRetained)}; ${maxRetainedBytes / MiB} MiB`,
      `queue of a persistent session | ${count(maxQueued)}`,
      `queues of all persistent sessions | ${count(maxQueuedTotal)}; ${maxQueuedBytes / MiB} MiB`,
      `persistent sessions | ${count(maxStoredSessions)}`,
      `bytes that a client has not read; of all | ${maxOutgoingBytes / MiB} MiB; ${maxOutgoingTotalBytes / MiB} MiB`,
      `a client that reads nothing | ${drainTimeoutMs / 1000} s`,
    ]) {
      expect(page).toContain(`| ${row} |`)
    }
    expect(page.replaceAll('\n', ' ')).toContain(`While the log takes nothing, ${maxQos0Bytes / MiB} MiB wait`)
  })
})
