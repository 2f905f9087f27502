import type { Bundle } from '../bundle/bundle.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import type { Context } from '../stack/context.ts'
import { answerLimitMs } from '../stack/plan.ts'
import { reach } from '../stack/reach.ts'
import { planRun, startStack } from '../stack/run.ts'
import type { StartedGuest } from '../stack/start.ts'
import { destroy } from '../stack/stop.ts'
import { type ExecLevel, type ExecResult, summarizeExec } from './exec-report.ts'
import { benchRequest } from './nestvm.ts'
import { median } from './report.ts'

interface BenchOptions {
  /** How often each time is taken; the median counts. */
  repeat: number
  /** What a command writes to measure the throughput of its output. */
  megabytes: number
}

const depth = 3

/**
 * Times programs in the guests of one running stack: on a connection that is open already, with a new connection for
 * each, and how fast their output comes. `print` gets lines for people on the way.
 */
export async function benchExec(
  context: Context,
  bundle: Bundle,
  options: BenchOptions,
  print: (line: string) => void,
): Promise<ExecResult> {
  const request = benchRequest(depth)
  print(`starting a stack of ${depth} levels`)
  const planned = await planRun(context, bundle, request)
  const started = await startStack(context, bundle, planned, request)
  const [outermost] = started
  if (!outermost) throw new RangeError('a stack has at least one level')
  try {
    const levels: ExecLevel[] = []
    for (const guest of started) {
      print(`measuring L${guest.record.level}`)
      levels.push(await measure(context, guest, options))
    }
    return summarizeExec(outermost.record.accel, levels)
  } finally {
    await destroy(context, outermost.record)
  }
}

async function measure(
  { host, signal }: Context,
  { record, machine }: StartedGuest,
  { repeat, megabytes }: BenchOptions,
): Promise<ExecLevel> {
  const timeoutMs = answerLimitMs(record.level)
  const once = (on: Machine) => run(on, ['true'], { timeoutMs, signal })
  // The first run of a program waits for its file.
  await once(machine)
  const connectedMs = await time(repeat, () => once(machine))
  const newConnectionMs = await time(Math.min(repeat, 5), async () => {
    await using another = await reach(host, record, signal)
    await once(another)
  })
  const times = { level: record.level, connectedMs, newConnectionMs }
  if (record.level > 2) return times
  const outputMs = await time(1, () => swallow(machine, megabytes, signal))
  return { ...times, megabytesPerSecond: (1000 * megabytes) / outputMs }
}

async function time(repeat: number, work: () => Promise<unknown>): Promise<number> {
  const times: number[] = []
  for (let turn = 0; turn < repeat; turn++) {
    const begun = performance.now()
    await work()
    times.push(performance.now() - begun)
  }
  return median(times)
}

async function swallow(machine: Machine, megabytes: number, signal: AbortSignal): Promise<void> {
  // busybox's head would write byte by byte.
  const argv = ['dd', 'if=/dev/zero', 'bs=100000', `count=${megabytes * 10}`]
  const program = await machine.spawn(argv, { noInput: true, signal })
  program.stdout.resume()
  program.stderr.resume()
  await program.exited
}
