import type { Json } from './json.ts'

/** Groups of one summary. Further ones are counted together as not shown. */
export const MAX_GROUPS = 1000
/** Groups of one device: its lists make a group of every combination of elements. It is not shown in further ones. */
export const MAX_GROUPS_OF_DEVICE = 256
/** Work of each group of such a device, beside its key, in bytes of JSON: about 1.5 us. */
const GROUP_WORK = 256
/** Values of one metric in one group that are kept exactly. Beyond them only bins are. */
const MAX_EXACT = 512
/** Values kept exactly over all groups. Groups that come later have bins from the start. */
const MAX_EXACT_IN_ALL = 100_000
/** Elements of a list by which one device is counted. It is in no group of the others. */
const MAX_ELEMENTS = 16

/** Largest relative error of a value that is read from its bin (DDSketch, Masson et al., VLDB 2019). */
const ACCURACY = 0.01
const LOG_GAMMA = Math.log((1 + ACCURACY) / (1 - ACCURACY))

/** How the values of a metric are distributed. Percentiles are nearest-rank; `exact` when no bins were used. */
export interface Distribution {
  readonly count: number
  readonly min: number
  readonly max: number
  readonly mean: number
  readonly exact: boolean
  readonly percentiles: Readonly<Record<'p50' | 'p90' | 'p95' | 'p99', number>>
}

interface MetricJson {
  readonly count: number
  readonly min: number
  readonly max: number
  /** In units of SUM_UNIT. */
  readonly scaledSum: number
  readonly exact?: readonly number[]
  /**
   * `[bin, count]`, ascending. Rename it whenever bins get other numbers: processes of two versions would confuse
   * theirs. Without it and `exact` nothing is known of the distribution.
   */
  readonly logBins?: readonly (readonly [number, number])[]
}

interface GroupJson {
  /** One value per field; null for a field that the device lacks, whose index is then in `missing`. */
  readonly values: readonly Json[]
  readonly missing: readonly number[]
  readonly count: number
  readonly metrics: readonly MetricJson[]
}

export interface SummaryJson {
  /** Counts each device once, whatever groups it is in. */
  readonly devices: number
  readonly groups: readonly GroupJson[]
  /** Devices in groups beyond the bound; an upper bound where there are lists. */
  readonly notShown: number
}

/**
 * Counts devices by the values of fields, with distributions of some metrics. Summaries of parts add up to one of the
 * whole.
 */
export class Summary {
  readonly #metrics: number
  readonly #groups = new Map<string, Group>()
  #devices = 0
  #notShown = 0
  #exact = 0

  constructor(metrics: number) {
    this.#metrics = metrics
  }

  get devices(): number {
    return this.#devices
  }

  /** Devices in groups beyond the bounds. Parts do not name them, so several parts may count one device. */
  get notShown(): number {
    return Math.min(this.#notShown, this.#devices)
  }

  /**
   * Adds a device by its values of the fields and metrics; a list counts for each element. Returns the work of its
   * groups, in bytes of JSON.
   */
  add(by: readonly (Json | undefined)[], metrics: readonly (Json | undefined)[]): number {
    this.#devices++
    if (!by.some(Array.isArray)) {
      if (!this.#addTo(keyOf(by), by, metrics)) this.#notShown++
      return 0
    }
    const { groups, whole } = expand(by)
    let shown = whole
    let work = 0
    for (const group of groups) {
      if (!this.#addTo(group.key, group.by, metrics)) shown = false
      work += GROUP_WORK + group.key.length
    }
    if (!shown) this.#notShown++
    return work
  }

  addDevices(devices: number): void {
    this.#devices += devices
  }

  /** Adds devices with equal values and without metrics; `addDevices` counts them. */
  addMany(by: readonly (Json | undefined)[], devices: number): void {
    const group = this.#group(keyOf(by), by)
    if (group === undefined) this.#notShown += devices
    else group.count += devices
  }

  merge(json: SummaryJson): void {
    this.#devices += json.devices
    this.#notShown += json.notShown
    for (const { values, missing, count, metrics } of json.groups) {
      const by = values.map((value, i) => (missing.includes(i) ? undefined : value))
      const group = this.#group(keyOf(by), by)
      if (group === undefined) {
        this.#notShown += count
        continue
      }
      group.count += count
      for (const [i, metric] of metrics.entries())
        this.#exact += (group.metrics[i] as Metric).merge(metric, this.#exact)
    }
  }

  toJSON(): SummaryJson {
    return {
      devices: this.#devices,
      notShown: this.notShown,
      groups: Array.from(this.#groups.values(), ({ by, count, metrics }) => ({
        values: by.map((value) => value ?? null),
        missing: by.flatMap((value, i) => (value === undefined ? [i] : [])),
        count,
        metrics: metrics.map((metric) => metric.toJSON()),
      })),
    }
  }

  /** Largest count first, equal counts by value. */
  groups(): { by: readonly (Json | undefined)[]; count: number; metrics: (Distribution | undefined)[] }[] {
    const sorted = Array.from(this.#groups).sort(([a, x], [b, y]) => y.count - x.count || (a < b ? -1 : 1))
    return sorted.map(([, { by, count, metrics }]) => ({
      by,
      count,
      metrics: metrics.map((metric) => metric.distribution()),
    }))
  }

  /** False: the group is beyond the bound. */
  #addTo(key: string, by: readonly (Json | undefined)[], metrics: readonly (Json | undefined)[]): boolean {
    const group = this.#group(key, by)
    if (group === undefined) return false
    group.count++
    for (let i = 0; i < metrics.length; i++) {
      const value = metrics[i]
      if (typeof value === 'number') this.#exact += (group.metrics[i] as Metric).add(value, this.#exact)
    }
    return true
  }

  #group(key: string, by: readonly (Json | undefined)[]): Group | undefined {
    const known = this.#groups.get(key)
    if (known !== undefined) return known
    if (this.#groups.size >= MAX_GROUPS) return undefined
    const metrics = Array.from({ length: this.#metrics }, () => new Metric())
    const group: Group = { by, count: 0, metrics }
    this.#groups.set(key, group)
    return group
  }
}

function keyOf(by: readonly (Json | undefined)[]): string {
  if (by.length === 0) return ''
  if (by.length === 1 && typeof by[0] === 'string') return `"${by[0]}`
  return JSON.stringify(by.map(partOf))
}

/** Tells a missing field from null in the key of a group. */
function partOf(value: Json | undefined): Json {
  return value === undefined ? [] : [value]
}

interface Group {
  readonly by: readonly (Json | undefined)[]
  count: number
  readonly metrics: readonly Metric[]
}

interface Combination {
  readonly key: string
  readonly by: readonly (Json | undefined)[]
}

/** Combines one element of each list in every way, up to MAX_GROUPS_OF_DEVICE. `whole`: these are all. */
function expand(by: readonly (Json | undefined)[]): { groups: readonly Combination[]; whole: boolean } {
  const lists = by.map((value) => (Array.isArray(value) ? distinct(value) : [value]))
  let groups: Combination[] = [{ key: '', by: [] }]
  for (const elements of lists) {
    // Each element becomes text once, however many groups it is in.
    const parts = elements.map((element) => JSON.stringify(partOf(element)))
    const longer: Combination[] = []
    for (const begun of groups) {
      const prefix = begun.by.length === 0 ? '' : `${begun.key},`
      for (let i = 0; i < parts.length && longer.length < MAX_GROUPS_OF_DEVICE; i++)
        longer.push({ key: prefix + parts[i], by: [...begun.by, elements[i]] })
    }
    groups = longer
  }
  const all = lists.reduce((product, { length }) => product * length, 1)
  // Keys as `keyOf` makes them, since one device's list may be another one's text.
  const keyed = groups.map((group) => ({ ...group, key: by.length === 1 ? keyOf(group.by) : `[${group.key}]` }))
  return { groups: keyed, whole: all === groups.length }
}

/** An empty list is a group of its own. */
function distinct(list: readonly Json[]): Json[] {
  const kept = new Map(list.slice(0, MAX_ELEMENTS).map((element) => [JSON.stringify(element), element]))
  return kept.size === 0 ? [[]] : Array.from(kept.values())
}

/**
 * The unit of sums, so that the sum of many of the largest numbers is finite. As a power of two it changes no digit,
 * except nearer to zero than 1e-288.
 */
const SUM_UNIT = 2 ** 64

class Metric {
  #count = 0
  #min = Number.POSITIVE_INFINITY
  #max = Number.NEGATIVE_INFINITY
  /** In units of SUM_UNIT. */
  #sum = 0
  #exact: number[] | undefined = []
  #bins: Map<number, number> | undefined

  /** `held`: values that all metrics keep. Returns how many more there are now. */
  add(value: number, held: number): number {
    this.#count++
    this.#sum += value / SUM_UNIT
    if (value < this.#min) this.#min = value
    if (value > this.#max) this.#max = value
    return this.#keep(value, held)
  }

  merge(json: MetricJson, held: number): number {
    this.#count += json.count
    this.#sum += json.scaledSum
    if (json.count > 0 && json.min < this.#min) this.#min = json.min
    if (json.count > 0 && json.max > this.#max) this.#max = json.max
    let change = 0
    for (const value of json.exact ?? []) change += this.#keep(value, held + change)
    if (json.exact !== undefined) return change
    change += this.#toBins()
    for (const [bin, count] of json.logBins ?? []) this.#inBin(bin, count)
    return change
  }

  #keep(value: number, held: number): number {
    if (this.#exact === undefined) {
      this.#inBin(binOf(value), 1)
      return 0
    }
    this.#exact.push(value)
    return this.#exact.length > MAX_EXACT || held >= MAX_EXACT_IN_ALL ? 1 + this.#toBins() : 1
  }

  #toBins(): number {
    const exact = this.#exact
    if (exact === undefined) return 0
    this.#exact = undefined
    for (const value of exact) this.#inBin(binOf(value), 1)
    return -exact.length
  }

  #inBin(bin: number, count: number): void {
    this.#bins ??= new Map()
    this.#bins.set(bin, (this.#bins.get(bin) ?? 0) + count)
  }

  toJSON(): MetricJson {
    // JSON has no infinities.
    const head = {
      count: this.#count,
      min: this.#count > 0 ? this.#min : 0,
      max: this.#count > 0 ? this.#max : 0,
      scaledSum: this.#sum,
    }
    return this.#exact === undefined ? { ...head, logBins: this.#sortedBins() } : { ...head, exact: this.#exact }
  }

  distribution(): Distribution | undefined {
    if (this.#count === 0) return undefined
    const exact = this.#exact?.toSorted((a, b) => a - b)
    const bins = this.#sortedBins()
    // Parts of another version may tell of values whose bins are unknown here.
    const known = exact?.length ?? bins.reduce((sum, [, count]) => sum + count, 0)
    const at = (share: number): number => {
      const rank = Math.max(1, Math.ceil(share * known))
      if (exact !== undefined) return exact[rank - 1] as number
      let seen = 0
      for (const [bin, count] of bins) {
        seen += count
        if (seen >= rank) return Math.min(this.#max, Math.max(this.#min, valueOfBin(bin)))
      }
      return this.#max
    }
    return {
      count: this.#count,
      min: this.#min,
      max: this.#max,
      // Rounding may lead past the largest values.
      mean: Math.min(this.#max, Math.max(this.#min, (this.#sum / this.#count) * SUM_UNIT)),
      exact: exact !== undefined,
      percentiles: { p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99) },
    }
  }

  #sortedBins(): [number, number][] {
    return Array.from(this.#bins ?? []).sort(([a], [b]) => a - b)
  }
}

/**
 * The smallest number with all its digits. Smaller ones count as zero, so there are at most 2 × 71,000 bins, and a
 * fleet fills few.
 */
const SMALLEST = 2 ** -1022
const OFFSET = Math.ceil(Math.log(SMALLEST) / LOG_GAMMA)

/** Bins are in the order of their values: zero is bin 0, negative values are below. */
function binOf(value: number): number {
  const size = Math.abs(value)
  if (size <= SMALLEST) return 0
  const bin = Math.ceil(Math.log(size) / LOG_GAMMA) - OFFSET + 1
  return value > 0 ? bin : -bin
}

function valueOfBin(bin: number): number {
  if (bin === 0) return 0
  // Every value of the bin is within ACCURACY of this middle.
  const size = (2 * Math.exp((Math.abs(bin) - 1 + OFFSET) * LOG_GAMMA)) / (Math.exp(LOG_GAMMA) + 1)
  return bin > 0 ? size : -size
}
