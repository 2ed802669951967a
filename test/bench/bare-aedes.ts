import { createServer } from 'node:net'
import { Aedes } from 'aedes'

/** The peer of the ingest figure: the same broker, acknowledging at once what nobody keeps. */
const broker = await Aedes.createBroker({ concurrency: 1_000 })
createServer(broker.handle).listen(Number(process.argv[2]), '127.0.0.1')
