/** The part of autocannon 9 that the benchmarks use; the package has no types. */
declare module 'autocannon' {
  export interface Request {
    readonly method?: string
    readonly path: string
    readonly headers?: Readonly<Record<string, string>>
    readonly body?: string
  }

  export interface Options {
    readonly url: string
    readonly connections: number
    /** Seconds. */
    readonly duration: number
    readonly requests: readonly Request[]
  }

  export interface Result {
    readonly requests: { readonly average: number; readonly total: number }
    /** Milliseconds, whole. */
    readonly latency: { readonly p50: number; readonly p99: number; readonly max: number }
    readonly errors: number
    readonly timeouts: number
    readonly non2xx: number
    readonly '2xx': number
    /** Seconds. */
    readonly duration: number
  }

  export default function autocannon(options: Options): Promise<Result>
}
