import { addressOf, hostAndPort } from '../contract/address.ts'
import type { Configuration } from './environment.ts'

export interface Served {
  readonly role: 'up' | 'ingest' | 'processor' | 'api'
  readonly configuration: Configuration
  readonly partitions: number
  readonly processors: number
  /** Simulated devices; 0 without a demo. */
  readonly devices: number
  /** Query endpoints of the processors that have one. */
  readonly query: readonly string[]
  readonly http: string | undefined
  /** Ports of MQTT without TLS (0: none) and with it. */
  readonly mqtt?: number
  readonly mqttTls?: number | undefined
  /** Health endpoint of an ingest process. */
  readonly health?: string | undefined
}

/** Tells a person where the process serves, and what to try. */
export function banner(served: Served): string {
  const { role, processors, devices, query, http, mqtt, mqttTls, health } = served
  const { HOST, DATA_DIR, KAFKA_BROKERS, GROUP, AUTH, MQTT_AUTH } = served.configuration
  const partitions = `${served.partitions} partitions`
  const inProcess = role === 'up' ? `, ${processors} processor${processors > 1 ? 's' : ''} here` : ''
  const lines = [`Tidemark is ready: ${role === 'up' ? 'all roles in one process' : role}`]
  const way =
    MQTT_AUTH === undefined || MQTT_AUTH === 'none' ? '' : `, for clients with ${MQTT_AUTH.replaceAll(',', ' or ')}`
  const ports = [mqtt === 0 ? undefined : mqtt, mqttTls]
  for (const [i, port] of ports.entries()) {
    if (port === undefined) continue
    const kind = i === 0 ? 'TCP, and WebSocket' : 'TLS, and WebSocket over TLS'
    lines.push(`  MQTT   ${addressOf({ host: HOST, port })} (${kind} on the same port)${way}`)
  }
  if (http !== undefined) lines.push(`  HTTP   ${http}${AUTH === 'jwt' ? ', for bearers of a token' : ''}`)
  for (const endpoint of query) lines.push(`  query  ${addressOf(hostAndPort(endpoint))} (also /readyz and /metrics)`)
  if (health !== undefined) lines.push(`  health ${addressOf(hostAndPort(health))} (/readyz and /metrics)`)
  lines.push(
    KAFKA_BROKERS === undefined
      ? `  log    embedded, ${partitions}${inProcess}, in ${DATA_DIR}`
      : `  log    Kafka at ${KAFKA_BROKERS}, ${partitions}, group ${GROUP}${inProcess}`,
  )
  if (devices > 0) lines.push(`  fleet  ${devices} simulated devices, one message a second each`)
  if (mqtt === undefined || http === undefined) return `${lines.join('\n')}\n`
  const curl = AUTH === 'jwt' ? 'curl -H "authorization: Bearer $TOKEN"' : 'curl'
  const certificate = ' --cafile ca.pem --cert truck-17.pem --key truck-17.key -i truck-17'
  const ca = mqtt === 0 ? ' --cafile ca.pem' : ''
  const credentials =
    way === '' ? ca : MQTT_AUTH === 'tls' ? certificate : `${ca} -i truck-17 -u truck-17 -P "$PASSWORD"`
  const message = '{"temperature":21.5,"pos":{"lat":52.1,"lon":4.3}}'
  return `${lines.join('\n')}

Try:
  mosquitto_pub -h ${HOST} -p ${mqtt || mqttTls}${credentials} -q 1 -t devices/truck-17/telemetry -m '${message}'
  ${curl} ${http}/v1/devices/truck-17
  ${curl} ${devices > 0 ? `'${http}/v1/devices?limit=3'` : `${http}/v1/partitions`}

Ctrl-C stops it; what was acknowledged stays in ${KAFKA_BROKERS === undefined ? DATA_DIR : 'Kafka'}.
`
}
