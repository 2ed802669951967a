import type { Api } from '../../../api/app.ts'
import { ask } from '../conformance.ts'

export const MERGE_PATCH = 'application/merge-patch+json'
export const WAIT = { prefer: 'wait=10' }
type Headers = Record<string, string>

export function send(api: Api, method: 'PUT' | 'PATCH', id: string, body: unknown, headers: Headers = {}) {
  return ask(api, {
    url: `/v1/devices/${id}/attributes`,
    method,
    headers: { 'content-type': method === 'PUT' ? 'application/json' : MERGE_PATCH, ...headers },
    payload: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
  })
}

export function remove(api: Api, id: string, headers: Headers = {}) {
  return ask(api, { url: `/v1/devices/${id}`, method: 'DELETE', headers })
}

export function unknown(id: string): string {
  return `device ${id} is not known: it has sent nothing yet, or nothing since it was deleted`
}
