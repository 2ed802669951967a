import type { Ledger } from '../../load/ledger.ts'
import { SEQ_START } from '../../load/load-connection.ts'
import type { ReadersReport } from '../load/readers.ts'
import { type Connections, MAX_ABSENCE_MS, type SendingReport } from '../load/traffic.ts'
import { LAST_WILL, unlike, type VisitorReport } from '../load/visitors.ts'
import type { Failure } from '../report/journal.ts'
import type { Gathered, LogReading } from '../stage/evidence.ts'
import type { Fall } from '../stage/stage.ts'
import { type DeviceAnswer, difference, lackingCopy, statusIn } from './copies.ts'

export interface Invariant {
  readonly name: string
  readonly held: boolean
  /** Nothing wrong was found, but part of the evidence is missing. */
  readonly unseen: boolean
  /** In numbers. */
  readonly evidence: string
  /** The first few things that were wrong. */
  readonly wrong: readonly string[]
}

const MAX_TOLD = 5

/** Counts what is wrong, and keeps the first few in words. */
class Findings {
  count = 0
  readonly wrong: string[] = []

  add(what: string): void {
    this.count++
    if (this.wrong.length < MAX_TOLD) this.wrong.push(what)
  }

  /** `missing`: part of the evidence could not be read. */
  invariant(name: string, evidence: string, missing = false): Invariant {
    const sound = this.count === 0
    return { name, held: sound && !missing, unseen: sound && missing, evidence, wrong: this.wrong }
  }
}

function unseen(name: string, why = 'it could not be looked at'): Invariant {
  return new Findings().invariant(name, why, true)
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}

function number(value: number): string {
  return value.toLocaleString('en-US')
}

/** Everything that a run left behind. */
export interface Evidence extends Gathered {
  readonly ids: readonly string[]
  readonly partitions: number
  /** Copies of each partition when all is well, its owner's included. */
  readonly copiesDue: number
  readonly ledger: Pick<
    Ledger,
    'acknowledgedTo' | 'published' | 'count' | 'again' | 'refusals' | 'violations' | 'violation'
  >
  /** The error that ended the disturbances early. */
  readonly failure: Failure | undefined
  /** Why the cluster did not come to rest; undefined: it did. */
  readonly unsettled: string | undefined
  /** Connections of the fleet at the end. */
  readonly connections: Connections
  readonly sending: SendingReport
  /** Messages a second that the drill was to send. */
  readonly rate: number
  readonly reads: ReadersReport
  /** How many reads may fail without an excuse. */
  readonly failedReads: number
  readonly falls: readonly Fall[]
  /** Processes that came back after others had taken their partitions. */
  readonly zombies: readonly string[]
  readonly visitors: readonly VisitorReport[]
  /** Bad payloads; undefined: none were sent. */
  readonly poison: { readonly acknowledged: number; readonly sent: number } | undefined
}

/** Judges a run. Pure. */
export function judge(evidence: Evidence): Invariant[] {
  return [
    ...(evidence.failure === undefined ? [] : [disturbed(evidence.failure)]),
    quiet(evidence),
    devicesSent(evidence),
    acknowledgedInOrder(evidence),
    ...(evidence.missing.length === 0 ? [] : [all(evidence)]),
    nothingLost(evidence),
    countedOnce(evidence),
    farewells(evidence),
    neverBack(evidence),
    oneOwner(evidence),
    ...(evidence.zombies.length === 0 ? [] : [zombie(evidence)]),
    offsetFits(evidence),
    copiesFit(evidence),
    foreignReader(evidence),
    readsWentOn(evidence),
    ...(evidence.poison === undefined ? [] : [poison(evidence)]),
    nobodyFell(evidence),
  ]
}

/** Why the input cannot be judged: retention removed some of it. Undefined: all is there. */
function incomplete({ removed }: LogReading): string | undefined {
  const more = removed.length > 1 ? `, and of ${removed.length - 1} more` : ''
  return removed.length === 0 ? undefined : `${removed[0]}${more}`
}

function disturbed({ what, why }: Failure): Invariant {
  const findings = new Findings()
  findings.add(why)
  return findings.invariant('every disturbance could be made', `${what}; nothing was disturbed after that`)
}

function all({ missing }: Evidence): Invariant {
  const findings = new Findings()
  for (const what of missing) findings.add(what)
  return findings.invariant('all could be looked at', `${missing.length} of what is looked at could not be`)
}

function quiet({ unsettled, ledger }: Evidence): Invariant {
  const findings = new Findings()
  if (unsettled !== undefined) findings.add(unsettled)
  if (ledger.count < ledger.published)
    findings.add(`${ledger.published - ledger.count} messages were never acknowledged`)
  const sent = `${number(ledger.published)} messages sent, ${number(ledger.count)} acknowledged`
  return findings.invariant('it came to rest', `${sent}, ${number(ledger.again)} sent again on new connections`)
}

function devicesSent({ ledger, connections, sending, rate }: Evidence): Invariant {
  const findings = new Findings()
  const { all: devices, open } = connections
  const due = Math.round((rate * sending.ms) / 1000)
  if (ledger.published === 0) findings.add('nothing was sent')
  if (open < devices) findings.add(`${devices - open} of ${devices} connections were not back at the end`)
  if (sending.locked > 0) {
    const long = `${sending.locked} of ${devices} connections had no session for longer than ${MAX_ABSENCE_MS / 1000} s`
    findings.add(`${long}, one for ${seconds(sending.longestMs)}, while nothing kept them from it`)
  }
  if (sending.ms >= MIN_SENDING_MS && sending.sent < due * MIN_SHARE) findings.add('that is less than a tenth')
  const sent = `${number(sending.sent)} of ${number(due)} messages while nothing kept them from it`
  return findings.invariant('devices could send', `${sent}, longest without a session ${seconds(sending.longestMs)}`)
}

/** The least share of the rate. A slow machine may send less than the rate; devices that are shut out send nothing. */
const MIN_SHARE = 0.1
/** A shorter time without disturbance is not judged, ms. */
const MIN_SENDING_MS = 1_000

function acknowledgedInOrder({ ledger }: Evidence): Invariant {
  const findings = new Findings()
  for (const what of ledger.violation) findings.add(what)
  findings.count = ledger.violations
  const excess = ledger.count - ledger.published
  if (excess > 0) findings.add(`${excess} more messages were acknowledged than sent`)
  const refused = `${number(ledger.refusals)} connections refused`
  return findings.invariant(
    'each acknowledgement is of what was sent, in order',
    `${number(ledger.count)} acknowledgements, ${number(ledger.violations)} that were not due; ${refused}`,
  )
}

function nothingLost({ ids, ledger, log, answers }: Evidence): Invariant {
  const name = 'nothing acknowledged is lost'
  if (log === undefined) return unseen(name)
  const gone = incomplete(log)
  const findings = new Findings()
  let messages = 0
  ids.forEach((id, device) => {
    const acknowledged = ledger.acknowledgedTo(device)
    messages += acknowledged
    if (acknowledged === 0) return
    const last = SEQ_START + acknowledged - 1
    const inLog = log.input.devices.get(id)?.seqs.missing(SEQ_START, last) ?? acknowledged
    if (inLog > 0 && gone === undefined)
      findings.add(`${id}: ${inLog} of ${acknowledged} acknowledged messages are not in the log`)
    if (answers === undefined) return
    const seen = answers.get(id)?.sequence?.seen ?? []
    const covered = seen.some(([low, high]) => low <= SEQ_START && high >= last)
    if (!covered) findings.add(`${id}: acknowledged up to ${last}, the API shows ${JSON.stringify(seen)}`)
  })
  const places = [...(gone === undefined ? ['the log'] : []), ...(answers === undefined ? [] : ['the answers'])]
  const where = places.length === 0 ? 'nothing' : places.join(' and in ')
  const what = `${number(messages)} acknowledged messages of ${number(ids.length)} devices looked for in ${where}`
  const missing = answers === undefined || gone !== undefined
  return findings.invariant(name, gone === undefined ? what : `${what}; ${gone}`, missing)
}

/** Judges an invariant that needs the whole input and the answers; `compare` returns the evidence. */
function compared(
  name: string,
  { log, answers }: Evidence,
  compare: (log: LogReading, answers: ReadonlyMap<string, DeviceAnswer>, findings: Findings) => string,
): Invariant {
  if (log === undefined || answers === undefined) return unseen(name)
  const gone = incomplete(log)
  if (gone !== undefined) return unseen(name, gone)
  const findings = new Findings()
  return findings.invariant(name, compare(log, answers, findings))
}

function countedOnce(evidence: Evidence): Invariant {
  return compared('each log record is counted once', evidence, (log, answers, findings) => {
    let messages = 0
    let duplicates = 0
    for (const [id, { messages: inLog, seqs, wills }] of log.input.devices) {
      duplicates += inLog - seqs.count
      const unnumbered = wills.values().reduce((sum, count) => sum + count, 0)
      const different = seqs.count + unnumbered
      messages += different
      const counters = answers.get(id)?.counters
      if (counters?.messages !== different || counters.duplicates !== inLog - seqs.count) {
        const said = counters && `${counters.messages} messages and ${counters.duplicates} duplicates`
        findings.add(`${id}: the log has ${different} messages and ${inLog - seqs.count} duplicates, the API ${said}`)
      }
    }
    const what = `${number(messages)} messages and ${number(duplicates)} duplicates`
    return `${what} in the log, by an own reading of it`
  })
}

function farewells(evidence: Evidence): Invariant {
  const { visitors } = evidence
  return compared('connectivity, wills and QoS 2 are as MQTT has them', evidence, (log, answers, findings) => {
    let wills = 0
    let messages = 0
    for (const visitor of visitors) {
      const { id, lost, resent } = visitor
      const wrong = unlike(visitor, answers.get(id))
      if (wrong !== undefined) findings.add(`${id}: ${wrong}`)
      const inLog = log.input.devices.get(id)
      if (inLog === undefined) continue
      messages += inLog.messages
      for (const [will, count] of inLog.wills) {
        wills += count
        const due = will === LAST_WILL ? 1 : lost
        if (count > due) findings.add(`${id}: ${count} wills in the log, of ${due} connections that were lost`)
      }
      const twice = inLog.messages - inLog.seqs.count
      if (twice > resent) findings.add(`${id}: ${twice} QoS 2 messages are in the log again, ${resent} were sent anew`)
    }
    const what = `${number(messages)} QoS 2 messages and ${number(wills)} wills in the log`
    return `${number(visitors.length)} devices that came and went: ${what}`
  })
}

function neverBack({ reads, log }: Evidence): Invariant {
  const findings = new Findings()
  for (const what of reads.wentBack) findings.add(`readers saw ${what}`)
  for (const what of log?.changelog.wentBack ?? []) findings.add(`changelog: ${what}`)
  findings.count = reads.wentBackCount + (log?.changelog.wentBackCount ?? 0)
  return findings.invariant(
    'rev, event times and sessions never go back',
    `${number(reads.reads)} reads and ${number(log?.changelog.records ?? 0)} changelog records in order`,
    log === undefined,
  )
}

function oneOwner({ log }: Evidence): Invariant {
  const name = 'no two owners of a partition commit'
  if (log === undefined) return unseen(name)
  const { changelog } = log
  const findings = new Findings()
  for (const what of changelog.inputsBack) findings.add(what)
  findings.count = changelog.inputBack + changelog.revenants
  const epochs = changelog.epochs === 0 ? '' : ` under ${changelog.epochs} epochs`
  const records = `${number(changelog.records)} changelog records${epochs}`
  return findings.invariant(name, `${records}: epochs and inputs only grow`)
}

function zombie({ log, zombies }: Evidence): Invariant {
  const name = 'the zombie committed nothing'
  if (log === undefined) return unseen(name)
  const { changelog } = log
  const findings = new Findings()
  if (changelog.revenants > 0) findings.add(`${changelog.revenants} changelog records of epochs that were overtaken`)
  return findings.invariant(name, `${zombies.join(', ')} came back after others took over`)
}

function offsetFits({ log }: Evidence): Invariant {
  const name = 'the committed offset is never ahead of the changelog'
  if (log === undefined) return unseen(name)
  const { changelog, committed, changelogEnds } = log
  const findings = new Findings()
  for (const what of changelog.unfit) findings.add(what)
  committed.forEach(({ input, changelogEnd }, partition) => {
    const end = changelogEnds[partition] ?? 0
    if (Number.isNaN(changelogEnd)) {
      findings.add(`partition ${partition}: ${input} is committed without a changelog end`)
    } else if (changelogEnd > end) {
      findings.add(
        `partition ${partition}: ${input} is committed with changelog end ${changelogEnd}, which ends at ${end}`,
      )
    }
  })
  const { samples, forgotten } = changelog
  const behind = forgotten === 0 ? '' : ` (${number(forgotten)} behind an earlier one)`
  return findings.invariant(
    name,
    `${number(samples)} committed offsets seen during the run${behind}, and ${committed.length} at its end`,
  )
}

function copiesFit({ copies, log, partitions, copiesDue }: Evidence): Invariant {
  const name = 'every store equals the fold of the input'
  const gone = log && incomplete(log)
  if (copies === undefined || gone !== undefined) return unseen(name, gone)
  const findings = new Findings()
  for (const { instance, partition, role, differing, example } of copies) {
    if (differing > 0) findings.add(`${instance}, ${role} of ${partition}: ${differing} devices differ; ${example}`)
  }
  for (const [partition, its] of Map.groupBy(copies, (copy) => copy.partition)) {
    const digests = new Set(its.map(({ digest }) => digest))
    if (digests.size > 1) findings.add(`partition ${partition}: copies have the digests ${[...digests].join(', ')}`)
  }
  const owners = copies.filter(({ role }) => role === 'owner').length
  const standbys = copies.filter(({ role }) => role === 'standby').length
  const kinds =
    copies.length > owners + standbys ? `${copies.length} stores` : `${owners} owners and ${standbys} standbys`
  const lacking = lackingCopy(copies, partitions, copiesDue)
  const what = `${kinds} against a fold up to the committed offset`
  return findings.invariant(name, lacking === undefined ? what : `${what}; ${lacking}`, lacking !== undefined)
}

function foreignReader(evidence: Evidence): Invariant {
  const name = 'a reader of the changelog sees what the API answers'
  const { alone } = evidence
  if (alone === undefined) return unseen(name)
  return compared(name, evidence, ({ changelog, input: { statuses } }, answers, findings) => {
    const compare = (id: string, text: string, answer: DeviceAnswer | undefined, how: string): void => {
      if (answer === undefined) findings.add(`${id}: the API does not know it${how}`)
      else if (statusIn(answer) !== JSON.stringify(JSON.parse(text))) {
        findings.add(`${id} in the API${how}: ${difference(statusIn(answer), text)}`)
      }
    }
    for (const [id, text] of statuses) {
      const last = changelog.values.get(id)
      if (last === text) compare(id, text, answers.get(id), '')
      else findings.add(`${id} in the changelog: ${difference(last, text)}`)
    }
    for (const id of alone.asked) {
      const text = statuses.get(id)
      if (text !== undefined) compare(id, text, alone.answers.get(id), ', asked for alone')
    }
    for (const id of changelog.values.keys()) if (!statuses.has(id)) findings.add(`${id} is in the changelog only`)
    const single = `${number(alone.asked.length)} asked for alone too`
    return `${number(statuses.size)} devices: last record per key, fold and answer; ${single}`
  })
}

function readsWentOn({ reads, failedReads }: Evidence): Invariant {
  const findings = new Findings()
  if (reads.failures - reads.excused > failedReads) for (const what of reads.failed) findings.add(what)
  for (const what of reads.wrong) findings.add(what)
  if (reads.reads === 0) findings.add('nothing was read')
  const excused = reads.excused === 0 ? '' : ` (${number(reads.excused)} allowed: nobody could stand in)`
  const failed = `${number(reads.failures)} of ${number(reads.reads)} failed${excused}`
  const wrong = reads.wrongCount === 0 ? '' : `, ${number(reads.wrongCount)} answered wrongly`
  return findings.invariant('reads went on', `${failed}${wrong}, longest gap of a partition ${reads.longestGapMs} ms`)
}

function poison({ poison: payloads, log, unsettled }: Evidence): Invariant {
  const name = 'bad payloads stop nothing and do not disappear'
  if (payloads === undefined || log === undefined) return unseen(name)
  const { acknowledged, sent } = payloads
  const { deadLetters } = log
  const findings = new Findings()
  if (unsettled === undefined && acknowledged < sent) {
    findings.add(`${sent - acknowledged} of ${sent} bad payloads were never acknowledged`)
  }
  if (deadLetters < acknowledged || deadLetters > sent) {
    findings.add(`${acknowledged} of ${sent} bad payloads were acknowledged, ${deadLetters} are among the dead letters`)
  }
  return findings.invariant(
    name,
    `${number(sent)} sent, ${number(acknowledged)} acknowledged, ${number(deadLetters)} dead letters`,
  )
}

function nobodyFell({ falls }: Evidence): Invariant {
  const findings = new Findings()
  for (const { target, exit, said } of falls) findings.add(`${target} ended with ${JSON.stringify(exit)}: ${said}`)
  return findings.invariant('no process ended by itself', `${falls.length} did`)
}
