import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import { NestvmError } from '../../store/error.ts'
import { expectGuest, guestCame } from './migration.ts'
import type { Qmp } from './qmp.ts'

/** Whether a state goes with a file that holds the guest's memory, or holds it itself. */
export type Memory = 'apart' | 'within'

const migrationSchema = z.object({ status: z.string().optional(), 'error-desc': z.string().optional() })

/**
 * Writes a stopped guest's state to a file: with its memory in a shared file of its own, some 70 KB in a few
 * milliseconds. It stays stopped. Throws `SAVE_FAILED` or `QMP_ERROR`.
 */
export async function saveState(qmp: Qmp, path: string, memory: Memory, signal: AbortSignal): Promise<void> {
  await setUp(qmp, memory)
  await qmp.execute('migrate', { uri: `file:${path}` })
  for (;;) {
    const { status, 'error-desc': why } = migrationSchema.parse(await qmp.execute('query-migrate'))
    if (status === 'completed') return
    if (status === 'failed' || status === 'cancelled') {
      throw new NestvmError('SAVE_FAILED', `QEMU cannot save the machine: ${why ?? status}`)
    }
    await sleep(2, undefined, { signal })
  }
}

/** Loads a state into a QEMU that was started for it. The guest is stopped then. Throws `RESTORE_FAILED`. */
export async function loadState(qmp: Qmp, path: string, memory: Memory, signal: AbortSignal): Promise<void> {
  await setUp(qmp, memory)
  await expectGuest(qmp, `file:${path}`)
  await guestCame(qmp, 'RESTORE_FAILED', signal)
}

/** Both sides must agree. Memory that is written into a state is not to be held back. */
async function setUp(qmp: Qmp, memory: Memory): Promise<void> {
  const capabilities = [{ capability: 'x-ignore-shared', state: memory === 'apart' }]
  await qmp.execute('migrate-set-capabilities', { capabilities })
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40, 'downtime-limit': 60_000 })
}
