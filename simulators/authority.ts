import { execFile } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The PEM files of a certificate and its private key. */
export interface Issued {
  readonly cert: string
  readonly key: string
}

/** A certificate authority in a folder, for demos, drills and tests. It needs the program `openssl`. */
export class Authority {
  readonly folder: string
  readonly ca: string
  readonly crl: string
  #serial = 1
  /** Lines of openssl's database of certificates that were taken back. */
  readonly #revoked: string[] = []
  readonly #serials = new Map<string, string>()

  private constructor(folder: string) {
    this.folder = folder
    this.ca = join(folder, 'ca.pem')
    this.crl = join(folder, 'crl.pem')
  }

  static async create(folder: string, name = 'Tidemark demo authority'): Promise<Authority> {
    const authority = new Authority(folder)
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const config = '[ca]\ndefault_ca=all\n[all]\ndatabase=index.txt\ndefault_md=sha256\ndefault_crl_days=3650\n'
    await writeFile(join(folder, 'ca.cnf'), config)
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', 'ca.key']
    await authority.#openssl('req', '-x509', ...key, '-out', 'ca.pem', '-days', '3650', '-subj', `/CN=${name}`)
    return authority
  }

  /** `altNames`: as openssl writes them, such as `DNS:localhost,IP:127.0.0.1`. */
  async issue(name: string, altNames = `DNS:${name}`): Promise<Issued> {
    const serial = (this.#serial++).toString(16).padStart(8, '0').toUpperCase()
    const file = `${name.replaceAll(/[^\w.-]/g, '_')}-${serial}`
    this.#serials.set(name, serial)
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', `${file}.key`]
    await this.#openssl('req', ...key, '-out', `${file}.csr`, '-subj', `/CN=${name}`)
    await writeFile(join(this.folder, `${file}.cnf`), `subjectAltName=${altNames}\n`)
    const by = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-set_serial', `0x${serial}`, '-extfile', `${file}.cnf`]
    await this.#openssl('x509', '-req', '-in', `${file}.csr`, '-out', `${file}.pem`, '-days', '3650', ...by)
    return { cert: join(this.folder, `${file}.pem`), key: join(this.folder, `${file}.key`) }
  }

  /** Takes back the last certificate of a name, and writes `crl`. */
  async revoke(...names: readonly string[]): Promise<void> {
    for (const name of names) {
      const serial = this.#serials.get(name)
      if (serial === undefined) throw new Error(`${name} has no certificate`)
      this.#revoked.push(`R\t360101000000Z\t260101000000Z\t${serial}\tunknown\t/CN=${name}\n`)
    }
    await writeFile(join(this.folder, 'index.txt'), this.#revoked.join(''))
    const by = ['-config', 'ca.cnf', '-gencrl', '-keyfile', 'ca.key', '-cert', 'ca.pem']
    await this.#openssl('ca', ...by, '-out', 'crl.pem')
  }

  async #openssl(...args: readonly string[]): Promise<void> {
    await run('openssl', [...args], { cwd: this.folder })
  }
}
