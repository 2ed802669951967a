import { Registry } from 'prom-client'
import { onTestFinished } from 'vitest'
import type { Caller } from '../../../api/auth/caller.ts'
import type { Subject } from '../../../api/changes/changelog-follower.ts'
import { ChangeStreams, type ChangeStreamsOptions } from '../../../api/changes/streams.ts'
import { type ChangesLimits, DEFAULT_CHANGES_LIMITS } from '../../../api/limits.ts'
import { silent } from '../stage.ts'
import type { Changelog } from './changelog.ts'
import type { Client, FakeClock, FakeSink } from './client.ts'

export const EVERYTHING: Subject = { text: '', matcher: undefined }
export const ANYONE: Caller = {
  subject: undefined,
  scopes: new Set(),
  prefixes: undefined,
  expiresAt: undefined,
  isTrusted: () => true,
}

/** The streams of one api process over a changelog in memory, until the test is over. */
export function streamsOver(
  log: Changelog,
  clock: FakeClock,
  { limits, ...options }: Partial<Omit<ChangeStreamsOptions, 'limits'>> & { limits?: Partial<ChangesLimits> } = {},
): ChangeStreams {
  const streams = new ChangeStreams({
    feed: log.feed(),
    reader: log.reader,
    clock,
    random: () => 0,
    registry: new Registry(),
    logger: silent,
    limits: { ...DEFAULT_CHANGES_LIMITS, ...limits },
    ...options,
  })
  onTestFinished(() => streams.close())
  return streams
}

/** Connects the client, with its last id; what it is connected by. */
export async function follow(
  streams: ChangeStreams,
  client: Client,
  request: { subject?: Subject; caller?: Caller; snapshot?: boolean; stalled?: boolean } = {},
): Promise<FakeSink> {
  const { subject = EVERYTHING, caller = ANYONE, snapshot = true, stalled = false } = request
  const sink = client.connect()
  sink.stalled = stalled
  await streams.open({ subject, caller, snapshot, lastEventId: client.lastEventId }, () => sink)
  return sink
}
