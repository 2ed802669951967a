import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { KafkaLog, type KafkaLogOptions } from '../../processor/log/kafka/kafka-log.ts'
import { Cluster } from '../../simulators/cluster.ts'
import { runDrillCommand } from '../../simulators/drill/drill.ts'
import { KafkaClient } from '../../simulators/drill/stage/kafka-client.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { Program } from '../../simulators/program.ts'
import { read } from '../contract/log-member.ts'
import { numbered } from '../contract/log-records.ts'
import type { DeviceAnswer } from '../system/answers.ts'
import { ResendingDevice } from '../system/resending-device.ts'
import { SMALL_DRILL } from '../system/small-drill.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const PATIENCE_MS = 120_000
const SECRET = 'no-one-may-read-this'
const DEADLINE = { timeout: 20_000, interval: 10 }
const MECHANISMS = ['plain', 'scram-sha-256', 'scram-sha-512'] as const

describe.skipIf(kafkaMissing !== undefined)('a Kafka with TLS and SASL', { timeout: PATIENCE_MS }, () => {
  let folder: string
  let ca: string
  let kafka: Kafka
  /** Asks without TLS, and gives up after half a minute. */
  let plain: Program
  let logged = ''

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tidemark-security-'))
    const store = join(folder, 'broker.p12')
    const keytool = (args: readonly string[]) => {
      execFileSync('keytool', [...args, '-keystore', store, '-storepass', 'changeit', '-alias', 'broker'], {
        stdio: 'pipe',
      })
    }
    const identity = ['-dname', 'CN=localhost', '-ext', 'san=ip:127.0.0.1,dns:localhost', '-validity', '2']
    keytool(['-genkeypair', '-keyalg', 'RSA', '-storetype', 'PKCS12', ...identity])
    keytool(['-exportcert', '-rfc', '-file', join(folder, 'broker.pem')])
    ca = await readFile(join(folder, 'broker.pem'), 'utf8')
    const users = `user_admin="${SECRET}" user_tidemark="${SECRET}"`
    const module = 'org.apache.kafka.common.security'
    kafka = await startKafka({
      properties: {
        'listener.security.protocol.map': 'PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT',
        'inter.broker.listener.name': 'PLAINTEXT',
        'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
        'sasl.mechanism.inter.broker.protocol': 'PLAIN',
        'listener.name.plaintext.plain.sasl.jaas.config': `${module}.plain.PlainLoginModule required username="admin" password="${SECRET}" ${users};`,
        'listener.name.plaintext.scram-sha-256.sasl.jaas.config': `${module}.scram.ScramLoginModule required;`,
        'listener.name.plaintext.scram-sha-512.sasl.jaas.config': `${module}.scram.ScramLoginModule required;`,
        'ssl.keystore.type': 'PKCS12',
        'ssl.keystore.location': store,
        'ssl.keystore.password': 'changeit',
        'ssl.truststore.type': 'PKCS12',
        'ssl.truststore.location': store,
        'ssl.truststore.password': 'changeit',
      },
      formatArguments: ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap((mechanism) => [
        '--add-scram',
        `${mechanism}=[name=tidemark,password=${SECRET}]`,
      ]),
    })
    plain = Program.main(['ingest'], { KAFKA_BROKERS: kafka.brokers, HEALTH_PORT: '0', MQTT_PORT: '0' })
  }, 180_000)

  afterAll(async () => {
    await kafka?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  function open(prefix: string, security: NonNullable<KafkaLogOptions['security']>): Promise<KafkaLog> {
    return KafkaLog.open({
      brokers: [kafka.brokers],
      prefix,
      group: prefix,
      partitions: 1,
      standbys: 0,
      security,
      logger: pino({ level: 'trace' }, { write: (line: string) => void (logged += line) }),
      registry: new Registry(),
    })
  }

  test.each(MECHANISMS)('lets in who can say so by %s', async (mechanism) => {
    const sasl = { mechanism, username: 'tidemark', password: SECRET }
    await using log = await open(`security-${mechanism}`, { tls: { ca }, sasl })
    await log.append('telemetry', numbered(0, 10))
    expect((await read(log, 'telemetry', 0, 0, (records) => records.length >= 10)).length).toBe(10)
  })

  test('refuses a wrong password, and neither error nor log tells it', async () => {
    const sasl = { mechanism: 'scram-sha-256', username: 'tidemark', password: `${SECRET}-but-wrong` } as const
    const refused = await open('security-wrong', { tls: { ca }, sasl }).catch((error: unknown) => error)
    expect(refused).toMatchObject({ name: 'ConfigurationError', code: 'INVALID_CONFIGURATION' })
    expect(String(refused)).not.toContain(SECRET)
    expect(logged).not.toContain(SECRET)
  })

  test('is not trusted without its authority', async () => {
    const sasl = { mechanism: 'plain', username: 'tidemark', password: SECRET } as const
    await expect(open('security-untrusted', { tls: true, sasl })).rejects.toMatchObject({
      name: 'ConfigurationError',
      message: expect.stringMatching(/certificate/),
    })
  })

  /** As an operator gives it: the authority and the password are files. */
  async function environment(password: string): Promise<Record<string, string>> {
    const file = join(folder, `password-${password.length}`)
    await writeFile(file, `${password}\n`)
    return {
      KAFKA_SSL: 'true',
      KAFKA_CA: join(folder, 'broker.pem'),
      KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512',
      KAFKA_SASL_USERNAME: 'tidemark',
      KAFKA_SASL_PASSWORD_FILE: file,
    }
  }

  test('carries every role by its environment alone: MQTT in, status out, and no line tells a secret', async () => {
    await using cluster = await Cluster.open(kafka.brokers, 2, { ...(await environment(SECRET)), LOG_LEVEL: 'trace' })
    const [processor, ingest, api] = await Promise.all([cluster.processor('a'), cluster.ingest(), cluster.api()])
    const device = new ResendingDevice('truck-17', cluster.mqttPort)
    device.start()
    await vi.waitFor(() => expect(device.acknowledged).toBeGreaterThan(50), DEADLINE)
    await device.finish()
    await vi.waitFor(async () => {
      const { counters, freshness } = await cluster.json<DeviceAnswer>('/v1/devices/truck-17')
      expect(counters).toMatchObject({ messages: device.made, late: 0 })
      expect(freshness).toMatchObject({ servedBy: 'owner' })
    }, DEADLINE)
    const programs = [ingest, processor, api]
    for (const program of programs) {
      expect(await program.stop()).toEqual({ code: 0, signal: null })
      // All of it: more than is kept would begin in the middle.
      expect(program.stderr).toContain('connecting to Kafka')
      for (const secret of [SECRET, cluster.env.CLUSTER_SECRET, 'changeit']) {
        expect(`${program.stdout}${program.stderr}`).not.toContain(secret)
      }
    }
  })

  test('carries a drill, which leaves nothing there', async () => {
    const sasl = { mechanism: 'plain', username: 'tidemark', password: SECRET } as const
    await using client = await KafkaClient.open({ brokers: [kafka.brokers], ssl: { ca }, sasl })
    const before = await client.topics('cluster-')
    let said = ''
    const output = { write: (text: string) => (said += text) }
    const argv = ['watch', ...SMALL_DRILL, '--processors', '1', '--seconds', '2', '--failed-reads', '1000000']
    const variables = { ...(await environment(SECRET)), KAFKA_BROKERS: kafka.brokers, KAFKA_REPLICATION: '1' }
    const io = { stdout: output, stderr: output, environment: variables, signal: new AbortController().signal }
    expect(await runDrillCommand(argv, io), said).toBe(0)
    expect(said).not.toContain(SECRET)
    expect(await client.topics('cluster-')).toEqual(before)
  })

  test('tells a role without TLS, once it has waited for Kafka, how to ask for it', async () => {
    expect(await plain.exited, plain.stderr).toEqual({ code: 2, signal: null })
    expect(plain.stderr).toMatch(/^tidemark: .*; if it takes only TLS, set KAFKA_SSL=true$/m)
  })

  test('answers a wrong password with one clear line, and the role ends with exit code 2', async () => {
    const wrong = `${SECRET}-but-wrong`
    await using cluster = await Cluster.open(kafka.brokers, 1, await environment(wrong))
    const folders = { DATA_DIR: cluster.dataDir, HEALTH_PORT: '0', QUERY_PORT: '0' }
    const programs = ['ingest', 'processor', 'api'].map((role) => Program.main([role], { ...cluster.env, ...folders }))
    for (const program of programs) {
      expect(await program.exited).toEqual({ code: 2, signal: null })
      expect(program.stdout).toBe('')
      expect(program.stderr).toMatch(/^tidemark: Kafka at 127\.0\.0\.1:\d+ cannot be used: .*[Aa]uthentication.*\n$/)
      expect(program.stderr).not.toContain(SECRET)
    }
  })
})
