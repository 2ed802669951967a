import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'yaml'

export const REPOSITORY = join(import.meta.dirname, '../..')

export interface Service {
  readonly image?: string
  readonly build?: string
  readonly hostname?: string
  readonly command?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly ports?: readonly string[]
  readonly volumes?: readonly string[]
  readonly secrets?: readonly string[]
  readonly configs?: readonly { readonly source: string; readonly target: string }[]
  readonly profiles?: readonly string[]
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>
  readonly healthcheck?: { readonly test: readonly string[] }
  readonly read_only?: boolean
  readonly stop_grace_period?: string
}

interface Compose {
  readonly services: Readonly<Record<string, Service>>
  readonly volumes: Readonly<Record<string, unknown>>
  readonly secrets: Readonly<Record<string, { readonly environment: string }>>
  readonly configs: Readonly<Record<string, { readonly content: string }>>
}

/** compose.yaml as it stands, and as its engine reads it. */
export class Composition {
  readonly document: Compose
  readonly services: readonly (Service & { readonly name: string })[]

  private constructor(document: Compose) {
    this.document = document
    this.services = Object.entries(document.services).map(([name, service]) => ({ ...service, name }))
  }

  static async read(): Promise<Composition> {
    const text = await readFile(join(REPOSITORY, 'compose.yaml'), 'utf8')
    return new Composition(parse(text, { merge: true }) as Compose)
  }

  /** Of this role: `node main.ts ROLE`. */
  of(role: string): readonly (Service & { readonly name: string })[] {
    return this.services.filter(({ command }) => command?.[2] === role)
  }

  /** Content of a configuration file. Throws when it has a `$` that the engine would take for a variable. */
  file(name: string): string {
    const content = this.document.configs[name]?.content
    if (content === undefined) throw new Error(`compose.yaml has no configs.${name}`)
    const text = content.replaceAll('$$', '\u0000')
    if (text.includes('$')) throw new Error(`configs.${name}: the engine takes a single $ for a variable`)
    return text.replaceAll('\u0000', '$')
  }
}
