/** The same piece of work, done at each level. */
export interface Measurement {
  what: string
  /** Whether less is better, as with milliseconds, or more. */
  unit: 'ms' | 'MB/s'
  /** Of L1, L2 and so on; undefined where there is nothing to measure. */
  values: readonly (number | undefined)[]
}

/** A measurement at one level, against the outermost level that has it. */
interface ComparedLevel {
  level: number
  value: number
  /** How many times as long it takes. */
  slowdown: number
  /** The same, divided by the slow-down of a loop that only computes. */
  beyondCpu: number
  /** The most that it should be beyond the CPU's. Absent where none is set. */
  most: number | undefined
  met: boolean | undefined
}

export interface Compared {
  what: string
  unit: Measurement['unit']
  levels: ComparedLevel[]
}

/** `cpu` is the loop that only computes; `mosts` has the targets by level. */
export function compareLevels(
  cpu: readonly number[],
  measurements: readonly Measurement[],
  mosts: Readonly<Record<number, number>> = {},
): Compared[] {
  const loop: Measurement = { what: 'loop that only computes', unit: 'ms', values: cpu }
  return [compare(loop, [], {}), ...measurements.map((each) => compare(each, cpu, mosts))]
}

function compare(
  { what, unit, values }: Measurement,
  cpu: readonly number[],
  mosts: Readonly<Record<number, number>>,
): Compared {
  const first = values.findIndex((value) => value !== undefined)
  const levels = values.flatMap((value, index): ComparedLevel[] => {
    if (value === undefined) return []
    const slowdown = slower(unit, values[first] ?? value, value)
    // Where the loop ran faster than at the outermost level, it explains nothing.
    const beyondCpu = slowdown / Math.max(1, (cpu[index] ?? 1) / (cpu[first] ?? 1))
    const most = mosts[index + 1]
    return [
      { level: index + 1, value, slowdown, beyondCpu, most, met: most === undefined ? undefined : beyondCpu <= most },
    ]
  })
  return { what, unit, levels }
}

function slower(unit: Measurement['unit'], outermost: number, value: number): number {
  return unit === 'ms' ? value / outermost : outermost / value
}

/** For people. A star marks what misses its target. */
export function tableOfLevels(compared: readonly Compared[]): string {
  const depth = Math.max(...compared.flatMap(({ levels }) => levels.map(({ level }) => level)))
  const all = Array.from({ length: depth }, (_, index) => index + 1)
  const inner = all.slice(1)
  const width = Math.max(...compared.map(({ what }) => what.length))
  const line = (what: string, cells: readonly string[]) =>
    [what.padEnd(width), ...cells.map((cell) => cell.padStart(11))].join('').trimEnd()
  const titles = [...all.map((level) => `L${level}`), ...inner.flatMap((level) => [`L${level} slower`, 'beyond CPU'])]
  const rows = compared.map(({ what, unit, levels }, index) => {
    const at = (level: number) => levels.find((each) => each.level === level)
    const values = all.map((level) => amount(at(level)?.value, unit))
    const ratios = inner.flatMap((level) => {
      const { slowdown, beyondCpu, met } = at(level) ?? {}
      return [times(slowdown), index === 0 ? '' : `${times(beyondCpu)}${met === false ? '*' : ''}`]
    })
    return line(what, [...values, ...ratios])
  })
  const mosts = new Map(compared.flatMap(({ levels }) => levels.map(({ level, most }) => [level, most])))
  const targets = [...mosts].flatMap(([level, most]) => (most === undefined ? [] : [`${most} at L${level}`]))
  return [line('', titles), ...rows, ...(targets.length > 0 ? [`target: at most ${targets.join(', ')}`] : [])].join(
    '\n',
  )
}

function amount(value: number | undefined, unit: Measurement['unit']): string {
  return value === undefined ? '' : `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${unit}`
}

function times(ratio: number | undefined): string {
  return ratio === undefined ? '' : ratio.toFixed(2)
}
