import { Agent, request } from 'node:http'

/** One HTTP connection that is kept, for requests one after the other at little cost. */
export class KeepAlive implements Disposable {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 })
  readonly #port: number

  constructor(port: number) {
    this.#port = port
  }

  /** Status and body. */
  send(method: string, path: string, body?: string): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const headers =
        body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
      const options = { agent: this.#agent, host: '127.0.0.1', port: this.#port, method, path, headers }
      const outgoing = request(options, (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => {
          text += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
        response.on('error', reject)
      })
      outgoing.on('error', reject)
      outgoing.end(body)
    })
  }

  /** The JSON of an answer that must be 200. */
  async json<T>(method: string, path: string, body?: string): Promise<T> {
    const { status, text } = await this.send(method, path, body)
    if (status !== 200) throw new Error(`${method} ${path}: ${status} ${text}`)
    return JSON.parse(text) as T
  }

  [Symbol.dispose](): void {
    this.#agent.destroy()
  }
}
