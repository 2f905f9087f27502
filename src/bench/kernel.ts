import { availableParallelism, loadavg } from 'node:os'
import type { Bundle } from '../bundle/bundle.ts'
import type { Context } from '../stack/context.ts'
import { planRun } from '../stack/run.ts'
import type { Division } from './division.ts'
import { benchRequest, timeNestvm } from './nestvm.ts'
import { divisionLines, median, nearest, seconds } from './report.ts'
import { readOnce } from './start.ts'

/** Cold starts with two kernels at one depth. Totals are medians. */
interface KernelResult {
  depth: number
  debianMs: number
  ownMs: number
  /** The own kernel's time over that of Debian's. */
  ratio: number
  debianRuns: Division[]
  ownRuns: Division[]
}

interface BenchResult {
  accel: string
  accelReason: string
  /** `uname -r` of each. */
  kernels: { debian: string; own: string }
  cpus: number
  load: number
  depths: KernelResult[]
}

/**
 * Times cold starts with Debian's kernel and with one that was built, by turns, at each depth. `print` gets lines for
 * people on the way. Throws what `startStack` throws, and `BENCH_FAILED`.
 */
export async function benchKernel(
  context: Context,
  bundles: { debian: Bundle; own: Bundle },
  { depth, repeat }: { depth: number; repeat: number },
  print: (line: string) => void,
): Promise<BenchResult> {
  const { debian, own } = bundles
  const { levels } = await planRun(context, debian, benchRequest(depth))
  const { accel = '', accelReason = '' } = levels[0] ?? {}
  const host = { cpus: availableParallelism(), load: loadavg()[0] ?? 0 }
  const kernels = { debian: debian.guest.kernelRelease, own: own.guest.kernelRelease }
  print(`the outermost level runs on ${accel}: ${accelReason}`)
  print(`the host has ${host.cpus} CPUs and a load of ${host.load.toFixed(2)} before`)
  print(`kernels: ${kernels.debian} and ${kernels.own}\n`)
  await readOnce([debian.tools.dir, debian.guest.dir, own.guest.dir])
  const depths: KernelResult[] = []
  for (let level = 1; level <= depth; level++) {
    const debianRuns: Division[] = []
    const ownRuns: Division[] = []
    for (let turn = 1; turn <= repeat; turn++) {
      debianRuns.push(await timeNestvm(context, debian, level))
      ownRuns.push(await timeNestvm(context, own, level))
    }
    const result = summarize(level, debianRuns, ownRuns)
    print(`${tableOf(result)}\n`)
    depths.push(result)
  }
  return { accel, accelReason, kernels, ...host, depths }
}

function summarize(depth: number, debianRuns: Division[], ownRuns: Division[]): KernelResult {
  const [debianMs, ownMs] = [medianMs(debianRuns), medianMs(ownRuns)]
  return { depth, debianMs, ownMs, ratio: Math.round((ownMs / debianMs) * 1000) / 1000, debianRuns, ownRuns }
}

const medianMs = (runs: readonly Division[]) => Math.round(median(runs.map(({ totalMs }) => totalMs)))

function tableOf({ depth, debianMs, ownMs, ratio, debianRuns, ownRuns }: KernelResult): string {
  return [
    `depth ${depth}: Debian's kernel ${seconds(debianMs)} s, the other ${seconds(ownMs)} s, ratio ${ratio.toFixed(2)}`,
    ...divisionLines(nearest(debianRuns, debianMs)),
    ...divisionLines(nearest(ownRuns, ownMs)),
  ].join('\n')
}
