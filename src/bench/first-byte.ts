import { once } from 'node:events'
import { timeLimit } from '../machine/limit.ts'
import type { Machine } from '../machine/machine.ts'
import { NestvmError } from '../store/error.ts'

/** What is run in the innermost guest. */
export const command = ['echo', 'output of nestvm']

/** When the command's first output came. */
export async function firstByte(machine: Machine, limitMs: number, signal: AbortSignal): Promise<number> {
  const limit = timeLimit(limitMs)
  const stop = AbortSignal.any([signal, limit])
  try {
    const program = await machine.spawn(command, { signal: stop, noInput: true })
    await once(program.stdout, 'data', { signal: stop })
    return performance.now()
  } catch (error) {
    signal.throwIfAborted()
    if (!limit.aborted) throw error
    const what = `${command[0]} on ${machine.name} gave no output within ${limitMs / 1000} s`
    throw new NestvmError('TIMEOUT', what, { cause: error, exitStatus: 124 })
  }
}
