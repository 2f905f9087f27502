import { availableParallelism, loadavg } from 'node:os'
import type { Bundle } from '../bundle/bundle.ts'
import type { Context } from '../stack/context.ts'
import { overheadMiB } from '../stack/plan.ts'
import { planRun, type RunRequest, startStack } from '../stack/run.ts'
import type { StartedGuest } from '../stack/start.ts'
import { destroy } from '../stack/stop.ts'
import type { Compared } from './levels-report.ts'
import { benchRequest } from './nestvm.ts'
import { Shell } from './shell.ts'

/** What every benchmark of levels tells. */
export interface LevelsResult {
  /** How the outermost level runs. */
  accel: string
  /** Of the host, and how many programs wanted one in the minute before: on a busy host only ratios are worth much. */
  cpus: number
  load: number
  works: Compared[]
}

/** Guests in each other, outermost first. Disposing it ends them. */
export interface Chain extends AsyncDisposable {
  levels: ChainLevel[]
  host: Omit<LevelsResult, 'works'>
}

export interface ChainLevel {
  level: number
  guest: StartedGuest
  shell: Shell
}

/** What a guest of a chain is given besides. */
export type Given = Partial<Pick<RunRequest, 'nested' | 'network' | 'ports' | 'volumes' | 'image'>>

/**
 * Starts a guest of each level, each with what is to be measured there: unlike the levels of one stack, of which only
 * the innermost has anything.
 */
export async function startChain(
  context: Context,
  bundle: Bundle,
  depth: number,
  given: (level: number) => Given | Promise<Given>,
  print: (line: string) => void,
): Promise<Chain> {
  const levels: ChainLevel[] = []
  const end = async () => {
    const [outermost] = levels
    if (outermost) await destroy(context, outermost.guest.record)
  }
  try {
    for (let level = 1; level <= depth; level++) {
      print(`starting L${level}`)
      const on = levels.at(-1)?.guest.record.path ?? ''
      const request: RunRequest = {
        ...benchRequest(1),
        ...{ on, nested: level < depth, command: undefined },
        memoryMiB: innermostMiB + (depth - level) * overheadMiB,
        ...(level === 1 ? {} : { name: `l${level}` }),
        ...(await given(level)),
      }
      for (const guest of await startStack(context, bundle, await planRun(context, bundle, request), request)) {
        levels.push({ level, guest, shell: await Shell.open(guest, context.signal) })
      }
    }
  } catch (error) {
    await end().catch(() => {})
    throw error
  }
  const accel = levels[0]?.guest.record.accel ?? ''
  const host = { accel, cpus: availableParallelism(), load: loadavg()[0] ?? 0 }
  return { levels, host, [Symbol.asyncDispose]: end }
}

const innermostMiB = 512

/** Measures one level after the other, and before and after each how fast its CPU is. */
export async function measureLevels<T>(
  { levels }: Chain,
  measure: (level: ChainLevel) => Promise<T>,
  print: (line: string) => void,
): Promise<{ cpu: number[]; measured: T[] }> {
  const cpu: number[] = []
  const measured: T[] = []
  for (const each of levels) {
    print(`measuring L${each.level}`)
    const before = await each.shell.time(loop)
    measured.push(await measure(each))
    cpu.push((before + (await each.shell.time(loop))) / 2)
  }
  return { cpu, measured }
}

/** Only computes, without system calls: what the emulation or virtualization of the CPU itself costs. */
const loop = 'i=0; while [ $i -lt 40000 ]; do i=$((i + 1)); done'
