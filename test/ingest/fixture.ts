import { connect, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import type { TLSSocket } from 'node:tls'
import { generate, type IConnackPacket, type IConnectPacket, type Packet, parser } from 'mqtt-packet'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { expect, onTestFinished, vi } from 'vitest'
import { type MqttAccess, readMqttAccess } from '../../ingest/identity/access.ts'
import { Guard } from '../../ingest/identity/guard.ts'
import { Ingest } from '../../ingest/ingest.ts'
import { DEFAULT_LIMITS, type Limits } from '../../ingest/limits.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import { type Connection, HEADER_KIND, type NewRecord } from '../../processor/contract/record.ts'
import { type Audit, NO_AUDIT } from '../../processor/runtime/audit.ts'
import { readEnvironment } from '../../processor/runtime/environment.ts'

interface Append {
  readonly topic: string
  readonly records: readonly NewRecord[]
  /** Makes it durable. */
  resolve(): void
  reject(error: Error): void
}

/** The `append` of a log, answered by the test when `hold` is set. */
export class HeldLog {
  readonly identity = { partitions: 4 }
  fault: Error | undefined
  /** Of one partition alone. */
  readonly faults = new Map<number, Error>()
  hold = false
  /** Partitions of telemetry that answer nothing. */
  readonly stuck = new Set<number>()
  /** Rejects every append. */
  failing: Error | undefined
  /** How many were asked for. */
  begun = 0
  /** Not answered yet. */
  readonly appends: Append[] = []
  readonly durable: { readonly topic: string; readonly record: NewRecord }[] = []

  partition(deviceId: string): number {
    return partitionOf(deviceId, this.identity.partitions)
  }

  faultAt(partition: number): Error | undefined {
    return this.fault ?? this.faults.get(partition)
  }

  append(topic: string, records: readonly NewRecord[]): Promise<void> {
    this.begun++
    if (this.failing !== undefined) return Promise.reject(this.failing)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const made = (): void => {
      for (const record of records) this.durable.push({ topic, record })
      resolve()
    }
    const stuck = topic === 'telemetry' && records.some(({ key }) => this.stuck.has(this.partition(String(key))))
    if (this.hold || stuck) this.appends.push({ topic, records, resolve: made, reject })
    else made()
    return promise
  }

  /** Answers what is held, and holds no more. */
  release(): void {
    this.hold = false
    for (const append of this.appends.splice(0)) append.resolve()
  }

  held(topic: string): number {
    return this.appends.filter((append) => append.topic === topic).reduce((sum, { records }) => sum + records.length, 0)
  }

  /** Messages held, connectivity left out. */
  heldMessages(): number {
    return this.appends.flatMap(({ records }) => records).filter(({ headers }) => headers?.[HEADER_KIND] === undefined)
      .length
  }

  /** Telemetry messages as [device, payload], connectivity left out. */
  messages(): [string, string][] {
    return this.#telemetry()
      .filter((record) => record.headers?.[HEADER_KIND] === undefined)
      .map((record) => [String(record.key), String(record.value)])
  }

  connections(deviceId?: string): (Connection & { deviceId: string })[] {
    return this.#telemetry()
      .filter((record) => record.headers?.[HEADER_KIND] !== undefined)
      .map((record) => ({ deviceId: String(record.key), ...(JSON.parse(String(record.value)) as Connection) }))
      .filter((connection) => deviceId === undefined || connection.deviceId === deviceId)
  }

  /** What was said of a device, as `state: reason`. */
  story(deviceId: string): string[] {
    return this.connections(deviceId).map(({ state, reason }) => `${state}: ${reason}`)
  }

  letters(): NewRecord[] {
    return this.durable.filter(({ topic }) => topic === 'dead-letters').map(({ record }) => record)
  }

  #telemetry(): NewRecord[] {
    return this.durable.filter(({ topic }) => topic === 'telemetry').map(({ record }) => record)
  }
}

export interface Fixture {
  readonly ingest: Ingest
  readonly log: HeldLog
  readonly registry: Registry
  readonly url: string
  readonly metric: (name: string, labels?: Record<string, string>) => Promise<number>
}

/** Access on free ports of this machine. */
export function accessOf(environment: Record<string, string> = {}): MqttAccess {
  return readMqttAccess(readEnvironment({ MQTT_PORT: '0', MQTT_TLS_PORT: '0', ...environment }))
}

/** A guard that asks nobody. */
export function openGuard(): Promise<Guard> {
  return Guard.open({ access: accessOf(), limits: DEFAULT_LIMITS, logger: pino({ level: 'silent' }), now: Date.now })
}

/** Ingest on a free port, stopped when the test ends. */
export async function openIngest(
  limits: Partial<Limits> = {},
  log = new HeldLog(),
  now: () => number = Date.now,
  environment: Record<string, string> = {},
  audit: Audit = NO_AUDIT,
): Promise<Fixture> {
  const registry = new Registry()
  const logger = pino({ level: 'silent' })
  const bounds = { stopTimeoutMs: 300, ...limits }
  const ingest = await Ingest.open({
    log,
    access: accessOf(environment),
    limits: bounds,
    logger,
    registry,
    audit,
    now,
    random: Math.random,
  })
  onTestFinished(() => ingest[Symbol.asyncDispose]())
  const metric = async (name: string, labels: Record<string, string> = {}): Promise<number> => {
    const found = (await registry.getMetricsAsJSON()).find((one) => one.name === `tidemark_ingest_${name}`)
    if (found === undefined) throw new Error(`no metric tidemark_ingest_${name}`)
    const { values } = found
    const wanted = Object.entries(labels)
    return values.find((value) => wanted.every(([label, text]) => value.labels[label] === text))?.value ?? 0
  }
  return { ingest, log, registry, url: `mqtt://127.0.0.1:${ingest.port}`, metric }
}

/** An MQTT client that does only what it is told. */
export class RawClient {
  readonly socket: Socket
  readonly received: Packet[] = []
  closed = false

  constructor(port: number | Socket) {
    this.socket = typeof port === 'number' ? connect({ port, host: '127.0.0.1', noDelay: true }) : port
    const packets = parser()
    packets.on('packet', (packet) => this.received.push(packet))
    // An HTTP answer, to what happened to look like a request.
    packets.on('error', () => undefined)
    this.socket.on('data', (chunk) => packets.parse(chunk))
    this.socket.on('error', () => undefined)
    this.socket.on('close', () => {
      this.closed = true
    })
    onTestFinished(() => {
      this.socket.destroy()
    })
  }

  static on(socket: TLSSocket): RawClient {
    return new RawClient(socket)
  }

  get tls(): TLSSocket {
    return this.socket as TLSSocket
  }

  /** Connected, with CONNACK received. */
  static async open(port: number, options: Partial<IConnectPacket> = {}): Promise<RawClient> {
    const client = new RawClient(port)
    await client.connect(options)
    return client
  }

  async connect(options: Partial<IConnectPacket> = {}): Promise<IConnackPacket> {
    this.send({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 4,
      clean: true,
      clientId: '',
      keepalive: 0,
      ...options,
    })
    await vi.waitFor(() => {
      if (this.of('connack').length === 0) throw new Error('no CONNACK')
    }, WAIT)
    return this.of('connack')[0] as IConnackPacket
  }

  send(packet: Packet): void {
    this.socket.write(generate(packet))
  }

  write(bytes: Buffer): void {
    this.socket.write(bytes)
  }

  publish(
    topic: string,
    payload: string | Buffer,
    qos: 0 | 1 | 2 = 0,
    messageId = 1,
    more: { dup?: boolean; retain?: boolean } = {},
  ): void {
    this.write(publication(topic, payload, qos, messageId, more))
  }

  of(cmd: Packet['cmd']): Packet[] {
    return this.received.filter((packet) => packet.cmd === cmd)
  }

  ids(cmd: Packet['cmd']): (number | undefined)[] {
    return this.of(cmd).map((packet) => packet.messageId)
  }

  async end(): Promise<void> {
    await vi.waitFor(() => {
      if (!this.closed) throw new Error('the connection is open')
    }, WAIT)
  }
}

export function publication(
  topic: string,
  payload: string | Buffer,
  qos: 0 | 1 | 2 = 0,
  messageId = 1,
  more: { dup?: boolean; retain?: boolean } = {},
): Buffer {
  const packet = { cmd: 'publish', topic, payload, qos, dup: false, retain: false, ...more } as const
  return generate(qos === 0 ? packet : { ...packet, messageId })
}

/** Bounds of `vi.waitFor`: how often, and until when, a condition is looked at, ms. */
export const WAIT = { interval: 5, timeout: 15_000 }

/** Everything that was on its way through the event loop has arrived: some turns, no time. */
export async function turns(count = 20): Promise<void> {
  for (let i = 0; i < count; i++) await turn()
}

/** A round trip on `client`: what it sent before was handled. */
export async function pinged(client: RawClient): Promise<void> {
  const before = client.of('pingresp').length
  client.send({ cmd: 'pingreq' })
  await vi.waitFor(() => {
    if (client.of('pingresp').length === before) throw new Error('no PINGRESP')
  }, WAIT)
}

/** What a client was sent: payload, QoS and DUP. */
export function deliveries(client: RawClient): [string, number, boolean][] {
  return client.received.flatMap((packet) =>
    packet.cmd === 'publish' ? [[String(packet.payload), packet.qos, packet.dup] as [string, number, boolean]] : [],
  )
}

/** Subscribes, and waits for SUBACK, with these return codes. */
export async function subscribe(
  client: RawClient,
  filters: Record<string, 0 | 1 | 2>,
  codes?: number[],
): Promise<void> {
  const subscriptions = Object.entries(filters).map(([topic, qos]) => ({ topic, qos }))
  client.send({ cmd: 'subscribe', messageId: 1, subscriptions })
  const expected = codes ?? Object.values(filters)
  await vi.waitFor(() => expect(client.of('suback').at(-1)).toMatchObject({ granted: expected }), WAIT)
}

/** Others notice nothing: a connection that was open before works as it did. */
export async function unharmed({ ingest, log }: Fixture, witness: RawClient): Promise<void> {
  const acks = witness.of('puback').length
  witness.publish('devices/witness/telemetry', '1', 1, acks + 1)
  await vi.waitFor(() => expect(witness.of('puback').length).toBe(acks + 1), WAIT)
  expect(log.messages().filter(([device]) => device === 'witness').length).toBe(acks + 1)
  expect((await new RawClient(ingest.port).connect()).returnCode).toBe(0)
}
