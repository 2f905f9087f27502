import { architectures } from '../engine/architecture.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { answerLimitMs } from './plan.ts'
import type { StartedGuest } from './start.ts'

/**
 * Gives the guests of a stack all their processors, where they came up with one: the innermost first, since those of the
 * others would slow that down. Throws `GUEST_TIMEOUT`.
 */
export async function turnOnProcessors(guests: readonly StartedGuest[], signal: AbortSignal): Promise<void> {
  for (const { machine, record } of guests.toReversed()) {
    const { arch, cpus, level, path } = record
    const script = architectures[arch].lateProcessors
    if (script === undefined || cpus === 1) continue
    const options = { timeoutMs: answerLimitMs(level), signal, allowFailure: true }
    const { exit } = await run(machine, ['sh', '-c', script], options)
    if (exit.code !== 0) {
      throw new NestvmError('GUEST_TIMEOUT', `${path}: not all of its ${cpus} processors came up`, { exitStatus: 124 })
    }
  }
}
