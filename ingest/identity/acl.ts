import { setImmediate as turn } from 'node:timers/promises'

type Access = 'read' | 'write' | 'readwrite' | 'deny'

/** What a client may do with the topics that a filter matches. `deny` goes before all else. */
export interface Rule {
  readonly access: Access
  readonly filter: string
}

const ACCESSES: ReadonlySet<string> = new Set<Access>(['read', 'write', 'readwrite', 'deny'])
/** Lines of a file. */
const MAX_LINES = 500_000
/** Rules of one user, and patterns, which hold for all. */
const MAX_RULES = 1_000
const LINES_PER_TURN = 2_000

/**
 * The file of rights, in Mosquitto's form (`acl_file` in mosquitto.conf(5)). `topic` lines after `user NAME` are for
 * that user, those before any are for clients without a name, and `pattern` lines are for all with a name: `%u` is the
 * name and `%c` the client id.
 */
export class Acl {
  readonly #rules = new Map<string | undefined, Rule[]>()
  readonly #patterns: Rule[] = []

  /** Rejects with an error that names the line. */
  static async parse(text: string): Promise<Acl> {
    const acl = new Acl()
    const lines = text.split('\n')
    if (lines.length > MAX_LINES) throw new Error(`has more than ${MAX_LINES} lines`)
    let user: string | undefined
    for (const [i, raw] of lines.entries()) {
      if (i % LINES_PER_TURN === LINES_PER_TURN - 1) await turn()
      const line = raw.trim()
      if (line === '' || line.startsWith('#')) continue
      const [, word = '', rest = ''] = /^(\S+)\s*(.*)$/.exec(line) ?? []
      try {
        if (word === 'user') user = nonEmpty(rest)
        else if (word === 'topic') acl.#add(acl.#rules.get(user) ?? acl.#begin(user), ruleOf(rest))
        else if (word === 'pattern') acl.#add(acl.#patterns, ruleOf(rest))
        else throw new Error('must begin with user, topic or pattern')
      } catch (error) {
        throw new Error(`line ${i + 1}: ${(error as Error).message}`, { cause: error })
      }
    }
    return acl
  }

  /** `name` is undefined for clients that have none. */
  rulesFor(name: string | undefined, clientId: string): readonly Rule[] {
    const own = this.#rules.get(name) ?? []
    // A wildcard in a client id would widen its rights.
    if (name === undefined || /[+#/]/.test(name)) return own
    const patterns = this.#patterns.flatMap(({ access, filter }) => {
      if (filter.includes('%c') && /[+#]/.test(clientId)) return []
      return [{ access, filter: filter.replaceAll('%u', () => name).replaceAll('%c', () => clientId) }]
    })
    return [...own, ...patterns]
  }

  #begin(user: string | undefined): Rule[] {
    const rules: Rule[] = []
    this.#rules.set(user, rules)
    return rules
  }

  #add(rules: Rule[], rule: Rule): void {
    if (rules.length >= MAX_RULES) throw new Error(`there are more than ${MAX_RULES} rules of this user`)
    rules.push(rule)
  }
}

function nonEmpty(text: string): string {
  if (text === '') throw new Error('a name is missing')
  return text
}

function ruleOf(text: string): Rule {
  const [, first = '', rest = ''] = /^(\S+)\s*(.*)$/.exec(text) ?? []
  const named = ACCESSES.has(first) && rest !== ''
  const filter = named ? rest : text
  if (filter === '') throw new Error('a topic is missing')
  if (!isFilter(filter)) throw new Error(`${JSON.stringify(filter)} is no topic filter`)
  return { access: named ? (first as Access) : 'readwrite', filter }
}

/** Wildcards stand for whole levels, and `#` for the last (MQTT 3.1.1 section 4.7.1). */
export function isFilter(text: string): boolean {
  const levels = text.split('/')
  return text !== '' && levels.every((level, i) => !/[+#]/.test(level) || level === '+' || isLastHash(level, i, levels))
}

function isLastHash(level: string, i: number, levels: readonly string[]): boolean {
  return level === '#' && i === levels.length - 1
}

/** Every topic that `other` matches is one that `filter` matches. A topic is a filter that matches itself alone. */
export function covers(filter: string, other: string): boolean {
  // [MQTT-4.7.2-1]
  if (other.startsWith('$') && !filter.startsWith('$')) return false
  if (filter === '#' || filter === other) return true
  const wide = filter.split('/')
  const narrow = other.split('/')
  for (let i = 0; ; i++) {
    const level = wide[i]
    const given = narrow[i]
    // `a/#` matches `a`, too.
    if (level === '#') return true
    if (level === undefined || given === undefined) return level === given
    if (given === '#' || (level !== '+' && level !== given)) return false
  }
}
