import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { connectAsync } from 'mqtt'
import { generate } from 'mqtt-packet'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { endsWithUs, freePorts, MAIN, removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { STARTED, timeFor } from './stack.ts'

const LIMIT = 256
/** After its share of 256 is left to the log and the stores: of the API, and of MQTT. */
const [API, MQTT] = [42, 128]
/** More than the write-ahead log has in one file, in pieces of so many bytes. */
const [MESSAGES, BYTES] = [200, 100_000]

let folder: string

beforeEach(async () => {
  folder = await temporaryFolder()
})

afterEach(async () => {
  await removeFolder(folder)
})

const request = () => 'GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n'
const connectPacket = (i: number) => generate({ cmd: 'connect', clientId: `idle-${i}`, clean: true, keepalive: 0 })

/** Connects `count` times, and stays; resolves when `open` of them are left. */
async function crowd(port: number, first: (i: number) => string | Buffer, count: number, open: number) {
  const sockets = Array.from({ length: count }, (_, i) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write(first(i))
    return socket.resume()
  })
  await vi.waitFor(() => {
    expect(sockets.filter((socket) => socket.bytesRead > 0)).toHaveLength(open)
    expect(sockets.filter((socket) => !socket.closed)).toHaveLength(open)
  })
  return sockets
}

test.skipIf(process.platform !== 'linux')(
  'connections leave the log and the stores the files they need',
  timeFor(1),
  async () => {
    const [mqttPort = 0, httpPort = 0] = await freePorts(2)
    const own = {
      HOST: '127.0.0.1',
      MQTT_PORT: `${mqttPort}`,
      HTTP_PORT: `${httpPort}`,
      DATA_DIR: join(folder, 'data'),
    }
    const child = spawn('sh', ['-c', `ulimit -n ${LIMIT} && exec "$0" "$@"`, process.execPath, MAIN, 'up'], {
      env: { ...process.env, ...own, LOG_LEVEL: 'info' },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    endsWithUs(child)
    let stderr = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    const told = /"limit":256,"needed":31000,"api":42,"mqtt":128,"msg":"the limit of open files .*ulimit/
    await vi.waitFor(() => expect(stderr).toMatch(told), STARTED)
    await vi.waitFor(() => expect(stderr).toMatch('MQTT is served'), STARTED)

    const device = await connectAsync(`mqtt://127.0.0.1:${mqttPort}`, { reconnectPeriod: 0 })
    const sockets = [
      ...(await crowd(httpPort, request, LIMIT, API)),
      ...(await crowd(mqttPort, connectPacket, LIMIT, MQTT - 1)),
    ]
    const value = 'x'.repeat(BYTES)
    for (let i = 0; i < MESSAGES; i++)
      await device.publishAsync(`devices/d-${i}/telemetry/text`, JSON.stringify(value), { qos: 1 })
    expect(stderr).not.toMatch('Too many open files')

    for (const socket of sockets) socket.destroy()
    await device.endAsync(true)
    child.kill('SIGKILL')
    await once(child, 'exit')
  },
)
