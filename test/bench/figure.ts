/** One measured number, with its limit if the project has set one. */
export interface Figure {
  readonly what: string
  readonly value: number
  readonly unit: string
  readonly limit?: { readonly atLeast: number } | { readonly atMost: number }
  /** A peer measured in the same run, and how the value relates to it. */
  readonly peer?: { readonly what: string; readonly value: number }
  readonly note?: string
}

/** Undefined when there is no limit. */
export function passes(figure: Figure): boolean | undefined {
  const { limit, value } = figure
  if (limit === undefined) return undefined
  return 'atLeast' in limit ? value >= limit.atLeast : value <= limit.atMost
}

export function table(figures: readonly Figure[]): string {
  const rows = [['what', 'value', 'limit', '', 'peer in the same run'], ...figures.map(row)]
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((cells) => cells[column]?.length ?? 0)))
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) =>
        column === 1 || column === 2 ? cell.padStart(widths[column] as number) : cell.padEnd(widths[column] ?? 0),
      )
      .join('  ')
  return `${rows.map((cells) => line(cells).trimEnd()).join('\n')}\n`
}

function row(figure: Figure): string[] {
  const { what, value, unit, limit, peer, note } = figure
  const pass = passes(figure)
  const bound =
    limit === undefined ? '' : 'atLeast' in limit ? `>= ${format(limit.atLeast)}` : `<= ${format(limit.atMost)}`
  const aside = [
    peer === undefined
      ? ''
      : `${peer.what}: ${format(peer.value)} (this is ${Math.round((value / peer.value) * 100)} % of it)`,
    note ?? '',
  ]
  return [
    what,
    `${format(value)} ${unit}`,
    bound,
    pass === undefined ? '' : pass ? 'pass' : 'MISS',
    aside.filter((text) => text !== '').join('; '),
  ]
}

function format(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString('en-US') : String(Math.round(value * 100) / 100)
}

export interface Percentiles {
  readonly p50: number
  readonly p95: number
  readonly p99: number
}

/** The values below which 50, 95 and 99 % of `samples` lie. */
export function percentiles(samples: readonly number[]): Percentiles {
  const sorted = samples.toSorted((a, b) => a - b)
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}
