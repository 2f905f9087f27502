import { availableParallelism, loadavg } from 'node:os'
import type { Bundle } from '../bundle/bundle.ts'
import { run } from '../machine/run.ts'
import { startWarm, type WarmStart } from '../snapshot/warm.ts'
import type { Context } from '../stack/context.ts'
import { proportionalSetSize } from '../stack/list.ts'
import { levelLimitMs } from '../stack/plan.ts'
import { planRun } from '../stack/run.ts'
import { destroy } from '../stack/stop.ts'
import { firstByte } from './first-byte.ts'
import { benchRequest } from './nestvm.ts'
import { median } from './report.ts'

interface WarmOptions {
  /** The deepest level. */
  depth: number
  /** How often a warm start is measured. */
  repeat: number
  /** How many guests are made of one snapshot. */
  clones: number
}

/** Milliseconds, of whole processes: `nestvm run --depth N -- true` from its start to its end. */
interface DepthResult {
  depth: number
  coldMs: number
  warmMs: { p50: number; p95: number }
  /** How many warm starts take as long as a cold one. */
  faster: number
  /** Medians of what a warm start consists of, once nestvm runs. */
  division: Record<(typeof stages)[number], number>
}

interface ClonesResult {
  depth: number
  count: number
  ramMiB: number
  oneAfterAnotherMs: number
  atOnceMs: number
  /** Of all engines together: pages that they share count once. */
  pssMiB: number
}

export interface WarmResult {
  cpus: number
  load: number
  depths: DepthResult[]
  clones: ClonesResult
}

const stages = ['engine', 'reach', 'output', 'end'] as const

/**
 * Times warm starts against a cold one at each depth, in one run, and what many guests from one snapshot take. What is
 * timed uses and leaves the automatic snapshots of this user. Throws what runs throw.
 */
export async function benchWarm(
  context: Context,
  bundle: Bundle,
  { depth, repeat, clones }: WarmOptions,
  print: (line: string) => void,
): Promise<WarmResult> {
  const host = { cpus: availableParallelism(), load: loadavg()[0] ?? 0 }
  print(`the host has ${host.cpus} CPUs and a load of ${host.load.toFixed(2)} before\n`)
  const depths: DepthResult[] = []
  for (let level = 1; level <= depth; level++) {
    const result = await benchDepth(context, bundle, level, repeat)
    print(describe(result))
    depths.push(result)
  }
  const many = await benchClones(context, bundle, Math.min(depth, 2), clones)
  print(describeClones(many))
  return { ...host, depths, clones: many }
}

async function benchDepth(context: Context, bundle: Bundle, depth: number, repeat: number): Promise<DepthResult> {
  const coldMs = await timeRun(context, depth, ['--no-snapshot'])
  await timeRun(context, depth, [])
  const warm: number[] = []
  for (let turn = 0; turn < repeat; turn++) warm.push(await timeRun(context, depth, []))
  const parts: number[][] = []
  for (let turn = 0; turn < Math.min(repeat, 5); turn++) parts.push(await divide(context, bundle, depth))
  const part = (index: number) => Math.round(median(parts.map((times) => times[index] ?? 0)))
  const warmMs = { p50: percentile(warm, 50), p95: percentile(warm, 95) }
  const division = { engine: part(0), reach: part(1), output: part(2), end: part(3) }
  return { depth, coldMs, warmMs, faster: coldMs / warmMs.p50, division }
}

/** As a user does it. */
async function timeRun({ host, program, signal }: Context, depth: number, options: readonly string[]): Promise<number> {
  const begun = performance.now()
  const timeoutMs = 2 * levelLimitMs(depth, 'tcg')
  const argv = [...program, 'run', '--depth', String(depth), ...options, '--', 'true']
  await run(host, argv, { signal, timeoutMs })
  return Math.round(performance.now() - begun)
}

async function start(context: Context, bundle: Bundle, depth: number): Promise<WarmStart> {
  const request = benchRequest(depth)
  return startWarm(context, bundle, await planRun(context, bundle, request), request)
}

async function divide(context: Context, bundle: Bundle, depth: number): Promise<number[]> {
  const { guests } = await start(context, bundle, depth)
  const [outermost] = guests
  const innermost = guests.at(-1)
  if (!outermost || !innermost) throw new RangeError('a stack has at least one level')
  const { begun, launched, reached } = outermost.times
  const answered = await firstByte(innermost.machine, levelLimitMs(depth, 'tcg'), context.signal)
  const last = performance.now()
  await destroy(context, outermost.record)
  return [launched - begun, reached - launched, answered - reached, performance.now() - last]
}

async function benchClones(context: Context, bundle: Bundle, depth: number, count: number): Promise<ClonesResult> {
  const begun = performance.now()
  const started: WarmStart[] = []
  for (let turn = 0; turn < count; turn++) started.push(await renewed(start(context, bundle, depth)))
  const oneAfterAnotherMs = Math.round(performance.now() - begun)
  const bases = started.flatMap(({ guests }) => guests[0]?.record ?? [])
  const sizes = await Promise.all(bases.map(proportionalSetSize))
  const pss = sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0)
  for (const base of bases) await destroy(context, base)

  const again = performance.now()
  const atOnce = await Promise.all(Array.from({ length: count }, () => renewed(start(context, bundle, depth))))
  const atOnceMs = Math.round(performance.now() - again)
  for (const { guests } of atOnce) if (guests[0]) await destroy(context, guests[0].record)
  const ramMiB = bases[0]?.memoryMiB ?? 0
  return { depth, count, ramMiB, oneAfterAnotherMs, atOnceMs, pssMiB: Math.round(pss / 2 ** 20) }
}

async function renewed(starting: Promise<WarmStart>): Promise<WarmStart> {
  const started = await starting
  await started.renew()
  return started
}

/** The nearest rank. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? 0
}

function describe({ depth, coldMs, warmMs, faster, division }: DepthResult): string {
  const parts = stages.map((stage) => `${stage} ${division[stage]}`).join(', ')
  return `depth ${depth}: cold ${coldMs} ms, warm ${warmMs.p50} ms (p95 ${warmMs.p95}), ${faster.toFixed(1)} times faster
  in ms: ${parts}; the rest is nestvm's own start\n`
}

function describeClones({ depth, count, ramMiB, oneAfterAnotherMs, atOnceMs, pssMiB }: ClonesResult): string {
  const each = (ms: number) => `${Math.round(ms / count)} ms each`
  return `${count} guests of depth ${depth} from one snapshot: one after another ${each(oneAfterAnotherMs)}, at once ${each(atOnceMs)};
  ${pssMiB} MiB in all, ${Math.round(pssMiB / count)} MiB each of ${ramMiB} MiB`
}
