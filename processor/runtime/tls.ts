import { createSecureContext, type SecureContextOptions } from 'node:tls'
import type { Logger } from 'pino'
import { type NamedFile, WatchedFiles } from './watched-files.ts'

/** PEM files of a server. `ca`: the authorities of its clients' certificates. */
export interface TlsFiles {
  readonly cert: NamedFile
  readonly key: NamedFile
  readonly ca?: NamedFile | undefined
}

/** Follows the files of a TLS server. Give what changes to `setSecureContext`: open connections go on. */
export function watchTls({ cert, key, ca }: TlsFiles, logger: Logger): Promise<WatchedFiles<SecureContextOptions>> {
  return WatchedFiles.open({ files: ca === undefined ? [cert, key] : [cert, key, ca], parse, logger })
}

function parse([cert, key, ca]: readonly string[]): SecureContextOptions {
  const context: SecureContextOptions = { cert, key, minVersion: 'TLSv1.2', ...(ca === undefined ? {} : { ca }) }
  // It throws when the key is not that of the certificate, which happens between the writes of the two.
  createSecureContext(context)
  return context
}
