import { once } from 'node:events'
import { type DestinationStream, type Logger, pino, stdTimeFunctions } from 'pino'
import { ConfigurationError, reasonOf } from '../contract/errors.ts'

/** Bytes of lines that may wait for the file; lines beyond them are dropped. */
const MAX_WAITING_BYTES = 4 * 1024 * 1024
/** UTF-16 code units of a text that a client chose; a longer one is cut. */
const MAX_TEXT = 256

/** What happened. `deny`: what a client had no right to. `revoke`: a connection ended with its credential or rights. */
type AuditEvent = 'connect' | 'refuse' | 'deny' | 'revoke' | 'write'

/** Who did what, from where. It never has a secret. */
export type Audit = (event: AuditEvent, facts: Readonly<Record<string, string | number | undefined>>) => void

export const NO_AUDIT: Audit = () => {}

interface AuditFile extends DestinationStream, NodeJS.EventEmitter {
  flushSync(): void
  end(): void
}

/**
 * Opens what `AUDIT_LOG` names: `log` marks lines of the log, anything else is a file that lines of JSON are added to.
 * Rejects with ConfigurationError when the file cannot be opened.
 */
export async function openAudit(
  setting: string | undefined,
  logger: Logger,
  running: AsyncDisposableStack,
): Promise<Audit> {
  if (setting === undefined) return NO_AUDIT
  if (setting === 'log') return auditTo(logger.child({}, { level: 'info' }))
  const file = pino.destination({
    dest: setting,
    append: true,
    mode: 0o600,
    sync: false,
    maxLength: MAX_WAITING_BYTES,
  }) as unknown as AuditFile
  try {
    await once(file, 'ready')
  } catch (error) {
    throw new ConfigurationError('INVALID_CONFIGURATION', `AUDIT_LOG=${setting}: ${reasonOf(error)}`, error)
  }
  // A full disk must not stop the fleet.
  file.on('error', (error) => logger.error({ err: error }, 'the audit log cannot be written'))
  file.on('drop', () => logger.error('the audit log takes too few lines: some were dropped'))
  running.defer(() => {
    try {
      file.flushSync()
    } catch (error) {
      logger.error({ err: error }, 'the end of the audit log could not be written')
    }
    file.end()
  })
  return auditTo(
    pino({ base: null, timestamp: stdTimeFunctions.isoTime, formatters: { level: (level) => ({ level }) } }, file),
  )
}

function auditTo(logger: Logger): Audit {
  return (event, facts) => {
    const cut = Object.entries(facts).map(([name, fact]) => [
      name,
      typeof fact === 'string' && fact.length > MAX_TEXT ? `${fact.slice(0, MAX_TEXT)}…` : fact,
    ])
    logger.info({ audit: event, ...Object.fromEntries(cut) })
  }
}
