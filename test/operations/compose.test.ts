import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Ajv } from 'ajv'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { CHECKS_WITHIN_MS as OF_API } from '../../api/http/health.ts'
import { readEnvironment, SECRETS } from '../../processor/runtime/environment.ts'
import { CHECKS_WITHIN_MS } from '../../processor/runtime/health-server.ts'
import { Program } from '../../simulators/program.ts'
import { Composition, REPOSITORY, type Service } from './composition.ts'
import { isThere, run } from './tools.ts'

const require = createRequire(import.meta.url)
const SECRET = '0123456789abcdef'
const ROLES = ['ingest', 'processor', 'api', 'up']

let compose: Composition
let folder: string

beforeAll(async () => {
  compose = await Composition.read()
  folder = await mkdtemp(join(tmpdir(), 'tidemark-compose-'))
})

afterAll(async () => {
  await rm(folder, { recursive: true, force: true })
})

const ours = () => ROLES.flatMap((role) => compose.of(role))

/** As the role reads it: its secrets are files. */
function environmentOf({ environment = {}, secrets = [] }: Service): Record<string, string> {
  const read: Record<string, string> = {}
  for (const [name, value] of Object.entries(environment)) {
    const secret = SECRETS.find((known) => name === `${known}_FILE`)
    if (secret === undefined) read[name] = value
    else {
      expect(secrets.map((file) => `/run/secrets/${file}`)).toContain(value)
      read[secret] = SECRET
    }
  }
  return read
}

describe('compose.yaml', () => {
  test('keeps to the schema of the Compose specification, which refuses what it does not know', async () => {
    const at = dirname(require.resolve('dclint/package.json'))
    const { $schema: _, ...schema } = JSON.parse(await readFile(join(at, 'schemas/compose.schema.json'), 'utf8'))
    const validate = new Ajv({ strict: false, validateFormats: false, allErrors: true }).compile(schema)
    const isValid = (document: unknown) => {
      validate(document)
      return validate.errors ?? []
    }
    expect(isValid(compose.document)).toEqual([])
    const [broken] = ours()
    const { document } = compose
    for (const wrong of [{ healthchek: {} }, { depends_on: { kafka: { condition: 'healthy' } } }, { ports: 'all' }]) {
      const services = { ...document.services, broken: { ...broken, name: undefined, ...wrong } }
      expect(isValid({ ...document, services }), JSON.stringify(wrong)).not.toEqual([])
    }
  })

  test('has the cluster: Kafka, 2 ingest, 3 processors, 2 api, a balancer, Prometheus; and the single container apart', async () => {
    expect(Object.fromEntries(ROLES.map((role) => [role, compose.of(role).length]))).toEqual({
      ingest: 2,
      processor: 3,
      api: 2,
      up: 1,
    })
    const apart = compose.services.filter(({ profiles }) => profiles !== undefined)
    expect(apart.map(({ name, profiles }) => [name, profiles])).toEqual([['single', ['single']]])
    const others = compose.services.filter((service) => !ours().includes(service))
    expect(others.map(({ name }) => name).sort()).toEqual(['balancer', 'kafka', 'prometheus'])
    // One image for all roles; those of others are pinned.
    expect([...new Set(ours().map(({ image, build }) => `${image} of ${build}`))]).toEqual(['tidemark:0.1.0 of .'])
    for (const { image } of others) expect(image).toMatch(/:v?\d+\.\d+/)
    const kafka = await readFile(join(REPOSITORY, 'simulators/kafka/kafka.ts'), 'utf8')
    const version = /VERSION = '([\d.]+)'/.exec(kafka)?.[1]
    expect(compose.document.services.kafka?.image).toBe(`apache/kafka:${version}`)
  })

  test('runs roles that main.ts has, with variables that Tidemark reads and takes', async () => {
    const help = Program.main(['help'])
    await help.exited
    const roles = /\[([^\]]+)\]/.exec(help.stdout)?.[1]?.split(' | ')
    for (const { name, command, ...service } of ours()) {
      expect(command?.slice(0, 2), name).toEqual(['node', 'main.ts'])
      expect(roles, name).toContain(command?.[2])
      const environment = environmentOf(service)
      const configuration = readEnvironment(environment) as Record<string, unknown>
      for (const [variable, value] of Object.entries(environment)) {
        expect(String(configuration[variable]), `${name}: ${variable}`).toBe(value)
      }
    }
  })

  test('gives each processor a name, a zone and a volume of its own, and one secret to all', () => {
    const processors = compose.of('processor')
    for (const of of ['INSTANCE_ID', 'ZONE'] as const) {
      expect(new Set(processors.map(({ environment }) => environment?.[of])).size).toBe(processors.length)
    }
    const folders = processors.map(({ environment, volumes }) => {
      const [volume, at] = volumes?.[0]?.split(':') ?? []
      expect(at).toBe(environment?.DATA_DIR)
      return volume
    })
    expect(new Set(folders).size).toBe(processors.length)
    for (const { volumes = [] } of compose.services) {
      for (const volume of volumes) expect(Object.keys(compose.document.volumes)).toContain(volume.split(':')[0])
    }
    const cluster = ours().filter(({ name }) => name !== 'single')
    for (const { name, hostname, secrets, depends_on } of cluster) {
      // The address a processor announces is its host name, which others resolve as the service's.
      expect(hostname).toBe(name)
      expect(secrets).toEqual(['cluster_secret'])
      expect(depends_on).toEqual({ kafka: { condition: 'service_healthy' } })
    }
    expect(compose.document.secrets.cluster_secret).toEqual({ environment: 'CLUSTER_SECRET' })
    // The engine writes such secrets and configurations into the container.
    for (const { secrets, configs, read_only } of compose.services) {
      if (secrets !== undefined || configs !== undefined) expect(read_only).toBeUndefined()
    }
  })

  test('gives a stop more time than the process takes for it', async () => {
    const text = await readFile(join(REPOSITORY, 'main.ts'), 'utf8')
    const deadline = Number(/STOP_DEADLINE_MS = ([\d_]+)/.exec(text)?.[1]?.replaceAll('_', '')) / 1000
    for (const { stop_grace_period } of ours())
      expect(Number.parseInt(stop_grace_period ?? '', 10)).toBeGreaterThan(deadline)
  })

  test('gives the checks of health more time than a process takes for them', () => {
    const [, seconds] = /timeout check (\d+)s/.exec(compose.file('haproxy')) ?? []
    for (const within of [OF_API, CHECKS_WITHIN_MS]) expect(Number(seconds) * 1000).toBeGreaterThan(within)
  })

  test('says outright who the API answers, as it refuses to be open by accident', () => {
    for (const { environment } of [...compose.of('api'), ...compose.of('up')]) {
      expect(environment).toMatchObject({ HOST: '0.0.0.0', AUTH: 'none' })
    }
  })

  test('asks every role for its health where it listens, and brings its readers and scrapers there', () => {
    const { services } = compose.document
    const portOf = (name: string, variable: string) => `${name}:${services[name]?.environment?.[variable]}`
    const healths = { ingest: 'HEALTH_PORT', processor: 'QUERY_PORT', api: 'HTTP_PORT', up: 'HTTP_PORT' }
    for (const [role, variable] of Object.entries(healths)) {
      for (const { environment, healthcheck } of compose.of(role)) {
        expect(healthcheck?.test.at(-1)).toContain(`http://127.0.0.1:${environment?.[variable]}/readyz`)
      }
    }
    const advertised = services.kafka?.environment?.KAFKA_ADVERTISED_LISTENERS
    for (const { environment } of ours().filter(({ name }) => name !== 'single')) {
      expect(advertised).toBe(`PLAINTEXT://${environment?.KAFKA_BROKERS}`)
    }
    const haproxy = compose.file('haproxy')
    const backends = [...haproxy.matchAll(/^ *server \S+ (\S+)(?: port (\d+))?/gm)].map(([, to, port]) => [to, port])
    const balanced = [
      ...compose.of('ingest').map(({ name, environment }) => [portOf(name, 'MQTT_PORT'), environment?.HEALTH_PORT]),
      ...compose.of('ingest').map(({ name }) => [portOf(name, 'MQTT_PORT'), undefined]),
      ...compose.of('api').map(({ name }) => [portOf(name, 'HTTP_PORT'), undefined]),
    ]
    expect(backends).toEqual(balanced)
    const bound = [...haproxy.matchAll(/^ *bind :(\d+)/gm)].map(([, port]) => port)
    const published = services.balancer?.ports?.map((port) => port.split(':').at(-1))
    expect(bound).toEqual([...(published as string[]), '8404'])
    const { scrape_configs } = parse(compose.file('prometheus')) as {
      scrape_configs: { job_name: string; static_configs: { targets: string[] }[] }[]
    }
    expect(Object.fromEntries(scrape_configs.map((job) => [job.job_name, job.static_configs[0]?.targets]))).toEqual({
      ingest: compose.of('ingest').map(({ name }) => portOf(name, 'HEALTH_PORT')),
      processor: compose.of('processor').map(({ name }) => portOf(name, 'QUERY_PORT')),
      api: compose.of('api').map(({ name }) => portOf(name, 'HTTP_PORT')),
      balancer: ['balancer:8404'],
    })
    // Only the balancer, Prometheus and the single container are reached from outside, and only from this host.
    for (const { name, ports = [] } of compose.services) {
      for (const port of ports) {
        expect(['balancer', 'prometheus', 'single']).toContain(name)
        expect(port).toMatch(/^127\.0\.0\.1:/)
      }
    }
  })
})

test('the image gets nothing that git ignores: keys and settings of a developer, data, reports', async () => {
  const [git, docker] = await Promise.all(
    ['.gitignore', '.dockerignore'].map(async (file) => (await readFile(join(REPOSITORY, file), 'utf8')).split('\n')),
  )
  const ignored = (git as string[]).filter((line) => line !== '')
  expect(ignored).toEqual(expect.arrayContaining(['.env*', '*.jwk', '/out/']))
  for (const line of ignored) {
    const name = line.replace(/\/$/, '')
    expect(docker).toContain(name.startsWith('/') ? name.slice(1) : `**/${name}`)
  }
})

test.skipIf(!isThere('haproxy'))('HAProxy takes the configuration', async () => {
  const file = join(folder, 'haproxy.cfg')
  await writeFile(file, compose.file('haproxy'))
  expect(run('haproxy', ['-c', '-f', file])).toMatchObject({ code: 0 })
  await writeFile(file, compose.file('haproxy').replace('balance leastconn', 'balance most'))
  expect(run('haproxy', ['-c', '-f', file])).toMatchObject({ code: 1 })
})

test.skipIf(!isThere('promtool'))('Prometheus takes the configuration and the alerts', async () => {
  const [at, alerts] = [join(folder, 'prometheus.yml'), join(folder, 'alerts.yml')]
  const mounted = compose.document.services.prometheus?.configs?.map(({ source, target }) => [source, target])
  expect(mounted).toContainEqual(['alerts', '/etc/prometheus/alerts.yml'])
  await writeFile(at, compose.file('prometheus').replace('/etc/prometheus/alerts.yml', alerts))
  await writeFile(alerts, compose.file('alerts'))
  const { code, said } = run('promtool', ['check', 'config', at])
  expect(said).toMatch(/SUCCESS: \d+ rules found/)
  expect(code).toBe(0)
})
