import { randomBytes } from 'node:crypto'
import type { Bundle } from '../bundle/bundle.ts'
import { run } from '../machine/run.ts'
import type { Context } from '../stack/context.ts'
import { planRun, type RunRequest, startStack } from '../stack/run.ts'
import type { StartedGuest } from '../stack/start.ts'
import { destroy } from '../stack/stop.ts'
import { NestvmError } from '../store/error.ts'
import { type Division, divide, type Marks } from './division.ts'
import { command, firstByte } from './first-byte.ts'

/** What `nestvm run --depth N -- COMMAND` asks for. */
export function benchRequest(depth: number): RunRequest {
  return {
    ...{ depth, on: '', name: `bench-${randomBytes(3).toString('hex')}`, accel: 'auto', cpus: 1, memoryMiB: 512 },
    ...{ nested: false, network: 'user', ports: [], volumes: [], detach: false, command },
  }
}

/** Starts a stack and a command in its innermost guest, tells how long its first output took, and ends all of it. */
export async function timeNestvm(context: Context, bundle: Bundle, depth: number): Promise<Division> {
  const request = benchRequest(depth)
  const begun = performance.now()
  const planned = await planRun(context, bundle, request)
  const started = await startStack(context, bundle, planned, request)
  const [outermost] = started
  const innermost = started.at(-1)
  if (!outermost || !innermost) throw new RangeError('a stack has at least one level')
  try {
    const limits = planned.levels.map(({ limitMs }) => limitMs)
    const answered = await firstByte(innermost.machine, limits.at(-1) ?? 0, context.signal)
    const guests = []
    for (const [index, guest] of started.entries()) {
      const marks = await readMarks(guest, limits[index] ?? 0, context.signal)
      guests.push({ level: guest.record.level, times: guest.times, marks })
    }
    return divide({ begun, guests, answered })
  } finally {
    await destroy(context, outermost.record)
  }
}

/** Waits for the guest's start script to have ended: it writes the marks last. */
const marksScript = 'until [ -s /run/nestvm/marks ]; do sleep 0.05; done; cat /run/nestvm/marks /proc/uptime'

async function readMarks({ machine }: StartedGuest, timeoutMs: number, signal: AbortSignal): Promise<Marks> {
  const { stdout } = await run(machine, ['sh', '-c', marksScript], { timeoutMs, signal, maxOutput: 1000 })
  const uptimeRead = performance.now()
  const numbers = /^([\d.]+) ([\d.]+) [\d.]+\n([\d.]+) /.exec(stdout)
  if (!numbers) throw new NestvmError('BENCH_FAILED', `${machine.name} does not tell how its start went`)
  const [kernel = 0, user = 0, uptime = 0] = numbers.slice(1).map(Number)
  return { kernel, user, uptime, uptimeRead }
}
