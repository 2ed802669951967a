import { EmbeddedLog } from '../../processor/log/embedded/embedded-log.ts'

/** `node main.ts` whose embedded log keeps no more telemetry than a few seconds of a small drill have. */
const LITTLE = { retention: { telemetryBytes: 20_000 }, segmentBytes: 4_000 }

const open = EmbeddedLog.open.bind(EmbeddedLog)
EmbeddedLog.open = (options) => open({ ...options, ...LITTLE })

await import('../../main.ts')
