import type { Field } from '../contract/field.ts'
import type { Json } from '../contract/json.ts'
import type { SummaryQuestion } from '../contract/search.ts'
import { Summary } from '../contract/summary.ts'
import {
  attributeGroup,
  countOf,
  LEFT_OUT_COUNTS,
  LISTS,
  PRESENT,
  readCount,
  STATE_COUNTS,
  UNCOUNTED,
} from '../store/index-entries.ts'
import type { ReadCounts } from '../store/partition-index.ts'
import { Matcher } from './language/match.ts'

/** The number of devices with this state and this value of the attribute. A device with a list is in several cells. */
interface Cell {
  readonly state: string
  readonly value: Json | undefined
  readonly devices: number
}

/**
 * Summarizes from the counts of an index alone when the question needs only the state and one attribute. Undefined: the
 * counts do not suffice. Pure.
 */
export function tally({ query, by, metrics, within, from }: SummaryQuestion, counts: ReadCounts): Summary | undefined {
  if (metrics.length > 0 || within !== undefined || from !== undefined) return undefined
  const { fields, test } = new Matcher(query)
  const attributes = new Map([...fields, ...by].filter((field) => !isState(field)).map((field) => [field.name, field]))
  const [attribute] = attributes.values()
  if (attributes.size > 1 || counts.get(LEFT_OUT_COUNTS, 'odd') !== 0) return undefined
  const cells =
    attribute === undefined
      ? byState(counts)
      : byAttribute(
          attribute,
          counts,
          fields.some(({ name }) => name === attribute.name),
        )
  if (cells === undefined) return undefined
  const holds = (cell: Cell): boolean => test(fields.map((field) => valueIn(cell, field)))
  const summary = new Summary(0)
  // Counts each device once. Where there are lists the query asks for the state alone.
  const once = cells.lists ? byState(counts)?.cells : cells.cells
  for (const cell of once ?? []) if (holds(cell)) summary.addDevices(cell.devices)
  for (const cell of cells.cells) {
    if (cell.devices > 0 && holds(cell))
      summary.addMany(
        by.map((field) => valueIn(cell, field)),
        cell.devices,
      )
  }
  // Which groups are shown then depends on the order.
  return summary.notShown > 0 ? undefined : summary
}

interface Cells {
  readonly cells: readonly Cell[]
  readonly lists: boolean
}

function isState({ name }: Field): boolean {
  return name === 'connectivity.state'
}

function valueIn({ state, value }: Cell, field: Field): Json | undefined {
  return isState(field) ? state : value
}

function byState(counts: ReadCounts): Cells | undefined {
  const states = counts.all(STATE_COUNTS)
  if (states === undefined) return undefined
  return { cells: Array.from(states, ([state, devices]) => ({ state, value: undefined, devices })), lists: false }
}

function byAttribute(field: Field, counts: ReadCounts, asked: boolean): Cells | undefined {
  if (field.kind !== 'attribute' || field.path.includes('.')) return undefined
  const states = counts.all(STATE_COUNTS)
  const all = counts.all(attributeGroup(field.path))
  if (states === undefined || all === undefined || counts.get(LEFT_OUT_COUNTS, 'wide') !== 0) return undefined
  const cells: Cell[] = []
  let lists = false
  for (const [count, devices] of all) {
    const [what, state] = readCount(count)
    if (what === UNCOUNTED) return undefined
    if (what === LISTS) lists = true
    else if (what !== PRESENT) cells.push({ state, value: JSON.parse(what) as Json, devices })
  }
  if (lists && asked) return undefined
  for (const [state, devices] of states) {
    cells.push({ state, value: undefined, devices: devices - (all.get(countOf(PRESENT, state)) ?? 0) })
  }
  return { cells, lists }
}
