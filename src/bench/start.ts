import { readdir, readFile } from 'node:fs/promises'
import { availableParallelism, loadavg } from 'node:os'
import { join } from 'node:path'
import type { Bundle } from '../bundle/bundle.ts'
import type { Context } from '../stack/context.ts'
import { planRun } from '../stack/run.ts'
import { cachePaths } from '../store/paths.ts'
import { removeLeftovers, removeTree, temporaryName } from '../store/write.ts'
import type { Division } from './division.ts'
import { benchRequest, timeNestvm } from './nestvm.ts'
import { preparePlain, timePlain } from './plain.ts'
import { type DepthResult, summarize, tableOf } from './report.ts'

interface BenchOptions {
  /** The deepest level. */
  depth: number
  /** How often each is measured. */
  repeat: number
}

interface BenchResult {
  /** How the outermost level runs, of both kinds. */
  accel: string
  accelReason: string
  /** Of the host, and how many programs wanted one in the minute before: on a busy host no number is worth much. */
  cpus: number
  load: number
  depths: DepthResult[]
}

/**
 * Times cold starts of nestvm and of a plain QEMU recipe to the innermost command's first output, by turns, at each
 * depth. `print` gets lines for people on the way. Throws what `startStack` throws, `BENCH_FAILED` and `TIMEOUT`.
 */
export async function benchStart(
  context: Context,
  bundle: Bundle,
  { depth, repeat }: BenchOptions,
  print: (line: string) => void,
): Promise<BenchResult> {
  // This also answers, before any clock runs, what is asked once and kept: whether KVM works here.
  const { levels } = await planRun(context, bundle, benchRequest(depth))
  const { accel = '', accelReason = '' } = levels[0] ?? {}
  const host = { cpus: availableParallelism(), load: loadavg()[0] ?? 0 }
  print(`the outermost level runs on ${accel}: ${accelReason}`)
  print(`the host has ${host.cpus} CPUs and a load of ${host.load.toFixed(2)} before\n`)
  await readOnce([bundle.tools.dir, bundle.guest.dir])
  const depths: DepthResult[] = []
  for (let level = 1; level <= depth; level++) {
    const result = await benchDepth(context, bundle, level, repeat, print)
    print(`${tableOf(result)}\n`)
    depths.push(result)
  }
  return { accel, accelReason, ...host, depths }
}

async function benchDepth(
  context: Context,
  bundle: Bundle,
  depth: number,
  repeat: number,
  print: (line: string) => void,
): Promise<DepthResult> {
  await removeLeftovers(cachePaths().dir)
  const dir = temporaryName(join(cachePaths().dir, 'bench'))
  const plainRunsMs: number[] = []
  const nestvmRuns: Division[] = []
  try {
    const { levels } = await planRun(context, bundle, benchRequest(depth))
    const plain = await preparePlain(context, bundle, levels, dir)
    for (let turn = 1; turn <= repeat; turn++) {
      const which = repeat > 1 ? `, ${turn} of ${repeat}` : ''
      print(`depth ${depth}: starting the plain recipe${which}`)
      plainRunsMs.push(Math.round(await timePlain(context.host, plain, context.signal)))
      print(`depth ${depth}: starting nestvm${which}`)
      nestvmRuns.push(await timeNestvm(context, bundle, depth))
    }
  } finally {
    await removeTree(dir)
  }
  return summarize(depth, plainRunsMs, nestvmRuns)
}

/** Brings files into the host's cache, lest whoever is measured first waits for the disk. */
export async function readOnce(dirs: readonly string[]): Promise<void> {
  for (const dir of dirs) {
    const entries = await readdir(dir, { recursive: true, withFileTypes: true })
    for (const entry of entries) if (entry.isFile()) await readFile(join(entry.parentPath, entry.name))
  }
}
