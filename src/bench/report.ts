import type { Division, LevelDivision } from './division.ts'

/** What was measured at one depth. Totals are medians; the division is that of the run next to the median. */
export interface DepthResult {
  depth: number
  plainMs: number
  nestvmMs: number
  /** nestvm's time over the plain recipe's. */
  ratio: number
  /** The most that it should be. Absent where none is set. */
  target: number | undefined
  met: boolean | undefined
  division: Division
  plainRunsMs: number[]
  nestvmRuns: Division[]
}

const targets: Record<number, number> = { 1: 0.7, 2: 0.6, 3: 0.5 }

/** Each list holds one entry or more. */
export function summarize(depth: number, plainRunsMs: number[], nestvmRuns: Division[]): DepthResult {
  const plainMs = Math.round(median(plainRunsMs))
  const nestvmMs = Math.round(median(nestvmRuns.map(({ totalMs }) => totalMs)))
  const division = nearest(nestvmRuns, nestvmMs)
  const ratio = Math.round((nestvmMs / plainMs) * 1000) / 1000
  const target = targets[depth]
  const met = target === undefined ? undefined : ratio <= target
  return { depth, plainMs, nestvmMs, ratio, target, met, division, plainRunsMs, nestvmRuns }
}

/** Of several runs, not none, the one that took nearest to this time. */
export function nearest(runs: readonly Division[], milliseconds: number): Division {
  const distance = ({ totalMs }: Division) => Math.abs(totalMs - milliseconds)
  return runs.reduce((best, other) => (distance(other) < distance(best) ? other : best))
}

/** For people, in seconds. */
export function tableOf({ depth, plainMs, nestvmMs, ratio, target, met, division }: DepthResult): string {
  const goal = target === undefined ? '' : ` (target: at most ${target.toFixed(2)}, ${met ? 'met' : 'missed'})`
  return [
    `depth ${depth}: plain ${seconds(plainMs)} s, nestvm ${seconds(nestvmMs)} s, ratio ${ratio.toFixed(2)}${goal}`,
    ...divisionLines(division),
  ].join('\n')
}

/** Where the time of a start went, in seconds. */
export function divisionLines(division: Division): string[] {
  const titles = columns.map(([title]) => title)
  const rows = division.levels.map((level) => ({
    head: `L${level.level}`,
    cells: columns.map(([, key]) => level[key]),
  }))
  return [
    line('', titles),
    ...rows.map(({ head, cells }) => line(head, cells.map(seconds))),
    `  plan ${seconds(division.planMs)}, command ${seconds(division.commandMs)}`,
  ]
}

const columns: readonly (readonly [title: string, key: Exclude<keyof LevelDivision, 'level'>])[] = [
  ['engine start', 'engineMs'],
  ['firmware', 'firmwareMs'],
  ['kernel', 'kernelMs'],
  ['user space', 'userSpaceMs'],
  ['SSH', 'sshMs'],
  ['together', 'totalMs'],
]

function line(head: string, cells: readonly string[]): string {
  const padded = cells.map((cell, index) => cell.padStart(Math.max(6, columns[index]?.[0].length ?? 0)))
  return `  ${[head.padEnd(3), ...padded].join('  ')}`
}

export function seconds(milliseconds: number): string {
  return (milliseconds / 1000).toFixed(2)
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.slice(Math.floor((sorted.length - 1) / 2), Math.floor(sorted.length / 2) + 1)
  return middle.reduce((sum, value) => sum + value, 0) / middle.length
}
