import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import { NestvmError } from '../../store/error.ts'
import type { Qmp } from './qmp.ts'

export interface MigrationLimits {
  /** Bytes in a second; as fast as it goes unless said. */
  bandwidth?: number
  /** How long the guest may stand still at the end, in milliseconds. */
  downtimeMs: number
}

/** Bytes: what was sent, and what is left as far as is known; it grows while the guest writes to its memory. */
export interface MigrationProgress {
  sent: number
  left: number
}

const migrationSchema = z.object({
  status: z.string().optional(),
  'error-desc': z.string().optional(),
  downtime: z.number().optional(),
  ram: z.object({ transferred: z.number(), remaining: z.number() }).optional(),
})

/**
 * Sends a running guest to `uri`. At the end it stands still: whoever gets it has to let it run on. Returns for how
 * long it has stood still by then, in milliseconds. Throws `MIGRATION_FAILED` or the signal's reason; then the
 * migration may still be under way.
 */
export async function sendGuest(
  qmp: Qmp,
  uri: string,
  limits: MigrationLimits,
  onProgress: (progress: MigrationProgress) => void,
  signal: AbortSignal,
): Promise<number> {
  // A guest that writes faster than is sent is slowed down.
  await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'auto-converge', state: true }] })
  await qmp.execute('migrate-set-parameters', {
    'max-bandwidth': limits.bandwidth ?? 2 ** 40,
    'downtime-limit': Math.round(limits.downtimeMs),
  })
  await qmp.execute('migrate', { uri })
  for (;;) {
    signal.throwIfAborted()
    const { status, downtime = 0, ram, ...more } = migrationSchema.parse(await qmp.execute('query-migrate'))
    if (ram) onProgress({ sent: ram.transferred, left: ram.remaining })
    if (status === 'completed') return downtime
    if (status === 'failed' || status === 'cancelled') {
      throw new NestvmError('MIGRATION_FAILED', `QEMU did not send the guest: ${more['error-desc'] ?? status}`)
    }
    await sleep(status === 'device' ? 5 : 100, undefined, { signal })
  }
}

/** Opens a QEMU to a guest that is to come. */
export async function expectGuest(qmp: Qmp, uri: string): Promise<void> {
  await qmp.execute('migrate-incoming', { uri })
}

const over = ['completed', 'failed', 'cancelled', 'none', undefined]

/** Lets a guest run on whose migration is given up, whatever has become of that. Throws `QMP_ERROR`. */
export async function runOn(qmp: Qmp): Promise<void> {
  await qmp.execute('migrate_cancel')
  for (let tries = 500; ; tries--) {
    const { status } = migrationSchema.parse(await qmp.execute('query-migrate'))
    try {
      if (over.includes(status) || tries <= 0) return void (await qmp.execute('cont'))
    } catch (error) {
      // What is over is not yet cleared away.
      if (tries <= 0) throw error
    }
    await sleep(20)
  }
}

const statusSchema = z.object({ status: z.string() })

/** Waits until a guest has come; it stands still. Throws `failure`, or what QMP does when QEMU has ended over it. */
export async function guestCame(
  qmp: Qmp,
  failure: 'MIGRATION_FAILED' | 'RESTORE_FAILED',
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const { status } = statusSchema.parse(await qmp.execute('query-status'))
    if (status === 'paused') return
    if (status !== 'inmigrate') throw new NestvmError(failure, `QEMU loaded a guest that is ${status}`)
    await sleep(1, undefined, { signal })
  }
}
