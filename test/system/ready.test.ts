import { fileURLToPath } from 'node:url'
import { connectAsync } from 'mqtt'
import { expect, onTestFinished, test } from 'vitest'
import { freePorts, Program, removeFolder, temporaryFolder } from '../../simulators/program.ts'

const ENTRY = fileURLToPath(new URL('../faults/listens-late.ts', import.meta.url))

test('a process is not ready before devices can connect', async () => {
  const folder = await temporaryFolder()
  onTestFinished(() => removeFolder(folder))
  const [mqttPort, httpPort] = await freePorts(2)
  const program = new Program(ENTRY, ['up'], {
    HOST: '127.0.0.1',
    MQTT_PORT: `${mqttPort}`,
    HTTP_PORT: `${httpPort}`,
    DATA_DIR: folder,
    LOG_LEVEL: 'warn',
  })
  onTestFinished(async () => void (await program.kill()))
  await program.ready('up', `http://127.0.0.1:${httpPort}`, 20_000)
  await (await connectAsync(`mqtt://127.0.0.1:${mqttPort}`, { reconnectPeriod: 0 })).endAsync()
  expect(program.stdout).toContain('"detail":"MQTT connections are not taken yet"')
})
