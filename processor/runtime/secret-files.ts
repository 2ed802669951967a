import { readFile } from 'node:fs/promises'
import { ConfigurationError, reasonOf } from '../contract/errors.ts'
import { mangled, SECRETS } from './environment.ts'

type Variables = Readonly<Record<string, string | undefined>>

/**
 * Adds the secrets whose files `<secret>_FILE` names, as container engines pass them. Drops a newline at the end.
 * Rejects with ConfigurationError when a file cannot be read, or the variable is set as well.
 */
export async function withSecretFiles(environment: Variables): Promise<Variables> {
  const read: Record<string, string> = {}
  for (const name of SECRETS) {
    const variable = `${name}_FILE`
    const file = environment[variable]
    if (file === undefined || file === '') continue
    const fault = mangled(file)
    if (fault !== undefined) {
      throw new ConfigurationError('INVALID_CONFIGURATION', `${variable}=${JSON.stringify(file)}: ${fault}`)
    }
    if (environment[name] !== undefined && environment[name] !== '') {
      throw new ConfigurationError('INVALID_CONFIGURATION', `${name} and ${variable} are both set: unset one of them`)
    }
    read[name] = (await contentsOf(variable, file)).replace(/\r?\n$/, '')
    if (read[name] === '') {
      throw new ConfigurationError('INVALID_CONFIGURATION', `${variable}=${file}: the file is empty`)
    }
  }
  return { ...environment, ...read }
}

export async function contentsOf(variable: string, file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    const message = `${variable}=${file} cannot be read: ${reasonOf(error)}`
    throw new ConfigurationError('INVALID_CONFIGURATION', message, error)
  }
}
