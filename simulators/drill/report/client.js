/* global uPlot */
// Runs in the report's page: draws the journal of the drill. Everything is in the page; nothing is fetched.
const { journal } = JSON.parse(document.getElementById('data').textContent)
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()

/** Told apart also by those who do not see all colours, on light and on dark. */
const BANDS = ['#4477aa', '#ee8866', '#228833', '#ccbb44', '#aa3377', '#66ccee', '#99887a', '#bbbbbb']
const instances = [...new Set(journal.holds.map((hold) => hold.instance).filter((name) => name != null))].sort((a, b) =>
  a.localeCompare(b),
)
const bandColour = (instance) => BANDS[instances.indexOf(instance) % BANDS.length]

const samples = journal.samples
const end = Math.max(samples.at(-1)?.at ?? 0, journal.quietAt ?? 0, journal.loadEndedAt) / 1000
const times = samples.map(({ at }) => at / 1000)
const column = (name) => samples.map((sample) => sample[name] ?? null)
const perSecond = (name) => samples.map((sample, i) => (sample[name] * 1000) / Math.max(1, sample.at - (samples[i - 1]?.at ?? 0)))

/** Narrow screens have no room for a wide axis. */
const axisSize = () => (window.innerWidth < 640 ? 44 : 60)
const short = (value) => {
  if (value >= 1e6) return `${+(value / 1e6).toFixed(1)}M`
  return value >= 1e3 ? `${+(value / 1e3).toFixed(1)}k` : String(+value.toFixed(2))
}

/** Vertical lines at the disturbances, and at the end of the load. */
function marks(labelled) {
  return (plot) => {
    const { ctx, bbox } = plot
    const ratio = devicePixelRatio
    ctx.save()
    ctx.lineWidth = ratio
    ctx.font = `${11 * ratio}px system-ui, sans-serif`
    ctx.textBaseline = 'top'
    ctx.textAlign = 'left'
    const all = [
      ...journal.marks.map(({ at, verb, target }) => ({ at, text: `${verb} ${target}`, tone: colour('mark') })),
      ...(journal.failure ? [{ at: journal.failure.at, text: journal.failure.what, tone: colour('bad') }] : []),
      { at: journal.loadEndedAt, text: 'load ends', tone: colour('faint') },
    ]
    const rows = []
    for (const { at, text, tone } of all) {
      const x = Math.round(plot.valToPos(at / 1000, 'x', true))
      ctx.strokeStyle = ctx.fillStyle = tone
      ctx.setLineDash([3 * ratio, 3 * ratio])
      ctx.beginPath()
      ctx.moveTo(x, labelled ? 0 : bbox.top)
      ctx.lineTo(x, bbox.top + bbox.height)
      ctx.stroke()
      if (!labelled) continue
      const width = ctx.measureText(text).width
      const left = Math.min(x + 3 * ratio, bbox.left + bbox.width - width)
      let row = rows.findIndex((right) => right < left)
      if (row === -1) row = rows.length
      if (row >= LABEL_ROWS) continue
      rows[row] = left + width + 8 * ratio
      ctx.fillText(text, left, row * 13 * ratio)
    }
    ctx.restore()
  }
}
const LABEL_ROWS = 4

/** Who held each partition when: a row a partition. */
function bands(plot) {
  const { ctx, bbox } = plot
  ctx.save()
  const row = bbox.height / journal.partitions
  for (let partition = 0; partition < journal.partitions; partition++) {
    const holds = journal.holds.filter((hold) => hold.partition === partition)
    const top = bbox.top + partition * row + row * 0.12
    holds.forEach((hold, i) => {
      const from = plot.valToPos(Math.min(hold.at / 1000, end), 'x', true)
      const to = plot.valToPos(Math.min((holds[i + 1]?.at ?? end * 1000) / 1000, end), 'x', true)
      const height = row * 0.76
      ctx.fillStyle = hold.instance == null ? colour('none') : bandColour(hold.instance)
      // What does not run is thin: it is claimed, or being restored.
      const thin = hold.phase === 'running' ? 1 : 0.3
      ctx.fillRect(from, top + (height * (1 - thin)) / 2, Math.max(1, to - from), height * thin)
    })
  }
  ctx.restore()
}

function axes(values) {
  const common = { stroke: colour('faint'), grid: { stroke: colour('line'), width: 1 }, ticks: { stroke: colour('line') } }
  return [
    { ...common, size: 34, values: (_, splits) => splits.map((split) => `${split} s`) },
    { ...common, size: axisSize(), values: values ?? ((_, splits) => splits.map(short)), grid: values ? { show: false } : common.grid },
  ]
}

const CHARTS = [
  { id: 'rate', height: 190, data: [column('sent'), column('acknowledged'), column('applied')], names: ['sent/s', 'acknowledged/s', 'applied/s'] },
  { id: 'lag', height: 130, data: [column('lag')], names: ['records not yet applied'] },
  { id: 'stale', height: 130, data: [column('staleMs')], names: ['oldest answer, ms'] },
  { id: 'failed', height: 130, data: [perSecond('reads'), perSecond('failures')], names: ['reads/s', 'failed/s'], tones: ['a', 'bad'] },
]
const TONES = ['a', 'b', 'c']

let plots = []
function draw() {
  for (const plot of plots) plot.destroy()
  const width = document.getElementById('bands').clientWidth - 8
  const cursor = { sync: { key: 'drill' }, drag: { x: true, y: false, setScale: true } }
  const scales = { x: { time: false, range: (_, min, max) => (min === max || max === times.at(-1) || max === end ? [0, end] : [min, max]) } }
  const top = new uPlot(
    {
      width,
      height: 56 + journal.partitions * 18 + 40,
      padding: [56, 12, 0, 0],
      cursor: { ...cursor, y: false, points: { show: false } },
      legend: { show: false },
      scales: { ...scales, y: { range: [0, journal.partitions] } },
      series: [{}, { show: true, stroke: 'transparent' }],
      axes: axes(() => []),
      hooks: { draw: [bands, numbers, marks(true)] },
    },
    [[0, end], [0, 0]],
    document.getElementById('bands'),
  )
  plots = [top]
  for (const { id, height, data, names, tones = TONES } of CHARTS) {
    const series = names.map((label, i) => ({
      label,
      stroke: colour(tones[i]),
      width: 1.5,
      points: { show: false },
      value: (_, value) => (value == null ? '' : short(value)),
    }))
    const options = {
      width,
      height,
      padding: [8, 12, 0, 0],
      cursor,
      scales: { ...scales, y: { range: (_, min, max) => [0, Math.max(1, max * 1.05)] } },
      series: [{ label: 's', value: (_, value) => (value == null ? '' : value.toFixed(2)) }, ...series],
      axes: axes(),
      hooks: { draw: [marks(false)] },
    }
    plots.push(new uPlot(options, [times, ...data], document.getElementById(id)))
  }
}

/** The partitions' numbers beside their rows. */
function numbers(plot) {
  const { ctx, bbox } = plot
  ctx.save()
  ctx.fillStyle = colour('faint')
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`
  ctx.textAlign = 'right'
  ctx.textBaseline = 'middle'
  const row = bbox.height / journal.partitions
  for (let partition = 0; partition < journal.partitions; partition++) {
    ctx.fillText(String(partition), bbox.left - 8 * devicePixelRatio, bbox.top + (partition + 0.5) * row)
  }
  ctx.restore()
}

const key = document.getElementById('key')
const swatch = (text, tone) => {
  const span = document.createElement('span')
  span.textContent = text
  span.style.setProperty('--swatch', tone)
  key.append(span)
}
for (const instance of instances) swatch(instance, bandColour(instance))
swatch('nobody', 'var(--none)')

draw()
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw)
let drawnAt = window.innerWidth
addEventListener('resize', () => {
  if (window.innerWidth === drawnAt) return
  drawnAt = window.innerWidth
  draw()
})
