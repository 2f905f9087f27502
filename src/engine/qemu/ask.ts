import { Duplex } from 'node:stream'
import { timeLimit } from '../../machine/limit.ts'
import type { Machine } from '../../machine/machine.ts'
import type { Accel } from '../architecture.ts'
import { Qmp } from './qmp.ts'

/**
 * Asks a QEMU what it offers guests on a machine, with no guest in it: 0.1 s on a host, a second in an emulated guest.
 * `qemu` is the start of a QEMU command there.
 */
export async function askQemu<T>(
  machine: Machine,
  qemu: readonly string[],
  accel: Accel,
  { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
  question: (qmp: Qmp) => Promise<T>,
): Promise<T> {
  const limit = AbortSignal.any([signal, timeLimit(timeoutMs)])
  const bare = ['-nodefaults', '-no-user-config', '-display', 'none', '-machine', 'none', '-qmp', 'stdio']
  const child = await machine.spawn([...qemu, ...bare, '-accel', accel], { signal: limit })
  child.stderr.resume()
  try {
    await using qmp = await Qmp.open(Duplex.from({ readable: child.stdout, writable: child.stdin }))
    return await question(qmp)
  } catch (error) {
    limit.throwIfAborted()
    throw error
  } finally {
    child.kill('SIGKILL')
  }
}
