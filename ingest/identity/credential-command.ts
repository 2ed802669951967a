import { readFile, rename, writeFile } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { parseArgs } from 'node:util'
import { ConfigurationError, reasonOf } from '../../processor/contract/errors.ts'
import { hashOfChosen, newSecret, Passwords } from './passwords.ts'

const USAGE = `usage: tidemark credential add NAME [flags]      makes a secret of 256 bits for NAME, and prints it once
         --gateway ids     it speaks for these devices, as in truck-*,van-7
         --service         it is no device: it has the rights that MQTT_ACL gives it, and no others
         --password        takes a password that a person chose from stdin, instead of making a secret
       tidemark credential list                  names, kinds and the ids of their credentials
       tidemark credential remove NAME [--id ID] all credentials of NAME, or one; its connections end within seconds
       tidemark credential import FILE           adds the lines of a password_file of Mosquitto
  --file FILE              the file of passwords; default: MQTT_PASSWORDS
A name that has a credential gets one more: both are good until you remove the older one.`

const FEWEST_CHARACTERS = 12

interface Command {
  readonly stdin: Readable
  /** MQTT_PASSWORDS. */
  readonly file: string | undefined
}

/** Resolves with the text to print. Rejects with ConfigurationError. */
export async function runCredential(argv: readonly string[], { stdin, file: preset }: Command): Promise<string> {
  const { values: flags, positionals } = parse(argv)
  const [action, name, ...rest] = positionals
  if (flags.help) return USAGE
  const file = flags.file ?? preset
  if (file === undefined) throw refused('set MQTT_PASSWORDS, or name the file with --file')
  if (rest.length > 0) throw refused(USAGE)
  if (action === 'list' && name === undefined) return await list(file)
  if (name === undefined) throw refused(USAGE)
  if (action === 'add') {
    if (flags.service && flags.gateway !== undefined) throw refused('--service and --gateway: choose one')
    const kind = flags.service ? ':service' : flags.gateway === undefined ? '' : `:gateway=${flags.gateway}`
    const chosen = flags.password ? await chosenPassword(stdin) : undefined
    const made = chosen === undefined ? newSecret() : { secret: undefined, hash: await hashOfChosen(chosen) }
    await change(file, (lines) => [...lines, `${name}:${made.hash}${kind}`])
    return made.secret ?? `${name} has the password`
  }
  if (action === 'remove') return await remove(file, name, flags.id)
  if (action === 'import') {
    const more = linesOf(await contents(name))
    await change(file, (lines) => [...lines, ...more])
    return `${more.length} lines were added`
  }
  throw refused(USAGE)
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        file: { type: 'string' },
        gateway: { type: 'string' },
        service: { type: 'boolean', default: false },
        password: { type: 'boolean', default: false },
        id: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    })
  } catch (error) {
    throw refused(`${reasonOf(error)}\n${USAGE}`, error)
  }
}

async function chosenPassword(stdin: Readable): Promise<string> {
  const password = (await text(stdin)).replace(/\r?\n$/, '')
  if (password.length < FEWEST_CHARACTERS) {
    throw refused(`--password: a password has at least ${FEWEST_CHARACTERS} characters; without the flag one is made`)
  }
  return password
}

async function list(file: string): Promise<string> {
  const passwords = await parsed(file, await contents(file))
  const rows = [...passwords.all()].map(({ name, kind, credentialId }) => [name, kind, idOf(credentialId)].join('\t'))
  return ['name\tkind\tid', ...rows].join('\n')
}

/** The last word of a credential id. */
function idOf(credentialId: string): string {
  return credentialId.slice(credentialId.lastIndexOf(' ') + 1)
}

async function remove(file: string, name: string, id: string | undefined): Promise<string> {
  let removed = 0
  await change(file, async (lines) => {
    const kept: string[] = []
    for (const line of lines) {
      const [one] = isComment(line) ? [] : [...(await parsed(file, line)).all()]
      if (one?.name === name && (id === undefined || idOf(one.credentialId) === id)) removed++
      else kept.push(line)
    }
    return kept
  })
  if (removed === 0)
    throw refused(`${file} has no credential of ${name}${id === undefined ? '' : ` with the id ${id}`}`)
  return `${removed} ${removed === 1 ? 'credential was' : 'credentials were'} removed`
}

function isComment(line: string): boolean {
  return line.trim() === '' || line.startsWith('#')
}

async function parsed(file: string, content: string): Promise<Passwords> {
  try {
    return await Passwords.parse(content)
  } catch (error) {
    throw refused(`${file}: ${reasonOf(error)}`, error)
  }
}

/** Replaces the file whole, so that a process that follows it never reads half of it. */
async function change(file: string, edit: (lines: string[]) => string[] | Promise<string[]>): Promise<void> {
  const draft = `${file}.new`
  const lines = await edit(linesOf(await contents(file, '')))
  const content = lines.map((line) => `${line}\n`).join('')
  await parsed(file, content)
  try {
    // Two commands at once would lose the change of one.
    await writeFile(draft, content, { mode: 0o600, flag: 'wx' })
  } catch (error) {
    const way = (error as NodeJS.ErrnoException).code === 'EEXIST' ? '; remove it unless another command runs' : ''
    throw refused(`${reasonOf(error)}${way}`, error)
  }
  await rename(draft, file)
}

function linesOf(content: string): string[] {
  return content.split('\n').filter((line) => line.trim() !== '')
}

async function contents(file: string, absent?: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if (absent !== undefined && (error as NodeJS.ErrnoException).code === 'ENOENT') return absent
    throw refused(`${file} cannot be read: ${reasonOf(error)}`, error)
  }
}

function refused(message: string, cause?: unknown): ConfigurationError {
  return new ConfigurationError('INVALID_CONFIGURATION', message, cause)
}
