export interface ExecLevel {
  level: number
  /** A program that does nothing, on a connection that is open already. */
  connectedMs: number
  /** The same with a connection of its own. */
  newConnectionMs: number
  /** Of a program's output; not measured at L3, where emulated guests take minutes. */
  megabytesPerSecond?: number
}

export interface ExecResult {
  /** How the outermost level runs. */
  accel: string
  levels: ExecLevel[]
  ratios: ExecRatio[]
}

interface ExecRatio {
  what: string
  value: number
  /** The most that the value should be, or the least. */
  most?: number
  least?: number
  met: boolean
}

/** Takes levels 1, 2 and 3, in this order. */
export function summarizeExec(accel: string, levels: ExecLevel[]): ExecResult {
  const [l1, l2, l3] = levels
  if (!l1 || !l2 || !l3) throw new RangeError('three levels are compared')
  const ratios = [
    atMost(2, "once connected, L3's time over L1's", l3.connectedMs / l1.connectedMs),
    atMost(3, "with a new connection, L3's time over L1's", l3.newConnectionMs / l1.newConnectionMs),
    atLeast(0.5, "throughput of output, L2's over L1's", (l2.megabytesPerSecond ?? 0) / (l1.megabytesPerSecond ?? 1)),
  ]
  return { accel, levels, ratios }
}

/** For people. */
export function tableOfExec({ levels, ratios }: ExecResult): string {
  const rows = levels.map(
    ({ level, connectedMs, newConnectionMs, megabytesPerSecond }) =>
      `  L${level}  ${ms(connectedMs)} connected, ${ms(newConnectionMs)} with a new connection${
        megabytesPerSecond === undefined ? '' : `, ${megabytesPerSecond.toFixed(1)} MB/s`
      }`,
  )
  const lines = ratios.map(({ what, value, most, least, met }) => {
    const target = most === undefined ? `at least ${least}` : `at most ${most}`
    return `  ${what}: ${value.toFixed(2)} (target: ${target}, ${met ? 'met' : 'missed'})`
  })
  return [...rows, ...lines].join('\n')
}

function atMost(most: number, what: string, value: number): ExecRatio {
  return { what, value, most, met: value <= most }
}

function atLeast(least: number, what: string, value: number): ExecRatio {
  return { what, value, least, met: value >= least }
}

function ms(milliseconds: number): string {
  return `${milliseconds.toFixed(1)} ms`
}
