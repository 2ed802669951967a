import { spawnSync } from 'node:child_process'
import { Kafka, type KafkaOptions } from '../../simulators/kafka/kafka.ts'

const HEAP_MEBIBYTES = 384
/** A broker that lives for a minute gains nothing from code compiled well, and two cores have better to do. */
const BRIEF = ['-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC']

/** Where these are set, a missing Kafka is a failure: a test that never runs shows nothing. */
const required = process.env.CI === 'true' || process.env.TIDEMARK_REQUIRE_KAFKA !== undefined

/** Why the tests on Kafka are skipped; undefined when they run. */
export const kafkaMissing = required ? undefined : (missing('java', '-version') ?? missing('mvn', '--version'))

function missing(program: string, argument: string): string | undefined {
  return spawnSync(program, [argument]).error === undefined ? undefined : `skipped: ${program} is not on PATH`
}

/** A Kafka on a free port with its data in a temporary folder. */
export function startKafka(options: KafkaOptions = {}): Promise<Kafka> {
  return Kafka.open({ heapMebibytes: HEAP_MEBIBYTES, jvm: BRIEF, ...options })
}
