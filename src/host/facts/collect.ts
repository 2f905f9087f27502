import { randomBytes } from 'node:crypto'
import type { Machine } from '../../machine/machine.ts'
import { run } from '../../machine/run.ts'
import { parseFacts } from './parse.ts'
import type { Facts } from './schema.ts'
import { factsScript } from './script.ts'

/**
 * Everything that the checks need of a machine, got by one command on it, but for the answer of a tiny guest, which
 * needs a QEMU: see `kvmAnswer`. Throws `FACTS_INCOMPLETE`, and what `run` throws.
 */
export async function collectFacts(
  machine: Machine,
  { level, timeoutMs = 60_000, signal }: { level: number; timeoutMs?: number; signal?: AbortSignal },
): Promise<Facts> {
  const mark = randomBytes(12).toString('hex')
  // What runs in a guest is not trusted, and none of this is long.
  const limits = { timeoutMs, signal, maxOutput: 1 << 20 }
  const { stdout } = await run(machine, ['sh', '-c', factsScript, 'sh', mark], limits)
  return parseFacts(stdout, mark, machine.name, level)
}
