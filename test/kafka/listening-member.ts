import { createServer, type Server } from 'node:http'
import pino, { type Logger } from 'pino'
import { Registry } from 'prom-client'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import { type RoleHooks, TestMember } from '../contract/log-member.ts'

/** What happens within it is not the session's doing. */
const SESSION_TIMEOUT_MS = 60_000

/** A member of a group in this process with a log of its own, whose endpoint answers as its processor's would. */
export class ListeningMember extends TestMember implements AsyncDisposable {
  override readonly endpoint: string
  readonly #server: Server
  #log: KafkaLog | undefined

  /** Answers begin when `busy` has resolved. */
  constructor(instance: string, port: number, hooks?: RoleHooks, busy = () => Promise.resolve()) {
    super(instance, hooks)
    this.endpoint = `127.0.0.1:${port}`
    this.#server = createServer((_, response) => {
      void busy().then(() => response.end(JSON.stringify({ instance })))
    })
    this.#server.listen(port, '127.0.0.1')
  }

  async joinGroup(
    brokers: string,
    group: string,
    partitions: number,
    logger: Logger = pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' }),
  ): Promise<this> {
    this.#log = await KafkaLog.open({
      brokers: [brokers],
      prefix: group,
      group,
      partitions,
      sessionTimeoutMs: SESSION_TIMEOUT_MS,
      logger,
      registry: new Registry(),
    })
    return this.join(this.#log)
  }

  get memberIds(): readonly string[] {
    return this.#log?.memberIds ?? []
  }

  /** As a process that is killed does, it says nothing to the group. */
  die(): void {
    this.#log?.sever()
  }

  /** Connections to the endpoint are refused from now on. */
  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const left = this.leave()
    await this.#log?.[Symbol.asyncDispose]()
    await left
    this.close()
  }
}
