import { Ingest } from '../../ingest/ingest.ts'

/** `node main.ts up` that takes MQTT connections only after it has said, on stdout, what /readyz lists when nothing else is missing. */
const { HTTP_PORT } = process.env

const open = Ingest.open.bind(Ingest)
Ingest.open = async (options) => {
  let text: string
  do text = await (await fetch(`http://127.0.0.1:${HTTP_PORT}/readyz`)).text()
  while (text.includes('partition'))
  process.stdout.write(`${text}\n`)
  return open(options)
}

await import('../../main.ts')
