import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import { NestvmError } from '../../store/error.ts'
import { dropMirrors } from './mirror.ts'
import type { Qmp } from './qmp.ts'

export interface MigrationLimits {
  /** Bytes in a second; as fast as it goes unless said. */
  bandwidth?: number
  /** How long the guest may stand still at the end, in milliseconds. */
  downtimeMs: number
  /** For a guest that QEMU may not stop by itself: brings it into a state in which it can be stopped. */
  hold?: () => Promise<AsyncDisposable>
  /** What is to be done once the guest stands still, before the other side may have it. */
  beforeEnd?: () => Promise<void>
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
  ram: z.object({ transferred: z.number(), remaining: z.number(), 'dirty-sync-count': z.number() }).optional(),
})

/**
 * Sends a running guest to `uri`. At the end it stands still: whoever gets it has to let it run on. Returns since
 * when it has stood still, as `performance.now()` tells time. Throws `MIGRATION_FAILED`, also when nothing more is taken for
 * `stallMs`, or the signal's reason; then the migration may still be under way.
 */
export async function sendGuest(
  qmp: Qmp,
  uri: string,
  limits: MigrationLimits & { stallMs: number },
  onProgress: (progress: MigrationProgress) => void,
  signal: AbortSignal,
): Promise<number> {
  const capabilities = [
    // A guest that writes faster than is sent is slowed down.
    { capability: 'auto-converge', state: true },
    // One that was restored from a snapshot shares its memory with others, which the other side does not have.
    { capability: 'x-ignore-shared', state: false },
    { capability: waiting, state: limits.beforeEnd !== undefined },
  ]
  await qmp.execute('migrate-set-capabilities', { capabilities })
  const { bandwidth = 2 ** 40, downtimeMs, hold, beforeEnd, stallMs } = limits
  const end = hold && new HeldEnd(qmp, { bandwidth, downtimeMs, hold })
  await pace(qmp, bandwidth, end ? 0 : downtimeMs)
  await qmp.execute('migrate', { uri })
  let goesOn = false
  let last = { sent: 0, at: performance.now() }
  for (;;) {
    signal.throwIfAborted()
    const { status, downtime = 0, ram, ...more } = migrationSchema.parse(await qmp.execute('query-migrate'))
    if (ram) onProgress({ sent: ram.transferred, left: ram.remaining })
    if (status === 'completed' && end && end.since === undefined) {
      throw new NestvmError('MIGRATION_FAILED', 'QEMU stopped the guest before the guests in it stood still: try again')
    }
    if (status === 'completed') return end?.since ?? performance.now() - downtime
    if (status === 'active' && ram) await end?.follow(ram)
    // It may be seen for a while after it is over.
    if (status === 'pre-switchover' && !goesOn) {
      goesOn = true
      await beforeEnd?.()
      await qmp.execute('migrate-continue', { state: status })
      last.at = performance.now()
    }
    if (status === 'failed' || status === 'cancelled') {
      throw new NestvmError('MIGRATION_FAILED', `QEMU did not send the guest: ${more['error-desc'] ?? status}`)
    }
    if (ram && ram.transferred !== last.sent) last = { sent: ram.transferred, at: performance.now() }
    if (performance.now() - last.at > stallMs) {
      const seconds = Math.round(stallMs / 1000)
      throw new NestvmError('MIGRATION_FAILED', `the other side has taken nothing for ${seconds} s`)
    }
    await sleep(status === 'device' || end?.near ? 5 : 100, undefined, { signal })
  }
}

/** QEMU's capability to wait until it is told to go on once the guest stands still. */
const waiting = 'pause-before-switchover'

/** Bytes in a second, and milliseconds. */
async function pace(qmp: Qmp, bandwidth: number, downtimeMs: number): Promise<void> {
  await qmp.execute('migrate-set-parameters', {
    'max-bandwidth': Math.round(bandwidth),
    'downtime-limit': Math.round(downtimeMs),
  })
}

type Ram = NonNullable<z.infer<typeof migrationSchema>['ram']>

/**
 * The end of sending a guest that QEMU may not stop by itself. QEMU is allowed no downtime, so that it goes on sending
 * what the guest changes until little is left; then it is slowed down while the guest is held, and stopped. Were
 * nothing left at all it would stop the guest by itself, for which a guest has to be quite idle.
 */
class HeldEnd {
  /** Whether little is left. */
  near = false
  /** From when the guest stands still, on the clock of performance.now(); undefined while it was not held. */
  since: number | undefined
  private readonly qmp: Qmp
  private readonly limits: { bandwidth: number; downtimeMs: number; hold: () => Promise<AsyncDisposable> }
  /** Bytes in a millisecond, at full speed. */
  private fastest = 0
  private last: { sent: number; at: number } | undefined

  constructor(qmp: Qmp, limits: HeldEnd['limits']) {
    this.qmp = qmp
    this.limits = limits
  }

  async follow({ remaining, transferred, 'dirty-sync-count': rounds }: Ram): Promise<void> {
    if (this.since !== undefined) return
    const now = { sent: transferred, at: performance.now() }
    const { last } = this
    if (!this.near && last) this.fastest = Math.max(this.fastest, (now.sent - last.sent) / (now.at - last.at))
    this.last = now
    const { bandwidth, downtimeMs } = this.limits
    if (rounds > 1 && remaining <= this.fastest * downtimeMs) return this.hold()
    const near = remaining < nearBytes
    if (near !== this.near) await pace(this.qmp, near ? Math.min(slow, bandwidth) : bandwidth, 0)
    this.near = near
  }

  private async hold(): Promise<void> {
    const { bandwidth, hold } = this.limits
    await pace(this.qmp, Math.min(slowest, bandwidth), 0)
    this.since = performance.now()
    const held = await hold()
    await this.qmp.execute('stop')
    // It takes effect once the guest runs again.
    held[Symbol.asyncDispose]().then(undefined, () => {})
    await pace(this.qmp, bandwidth, longestDowntimeMs)
  }
}

const nearBytes = 32e6
/** Bytes in a second: while little is left, and while the guest is held. */
const slow = 8e6
const slowest = 1e6
/** The most that QEMU takes. */
const longestDowntimeMs = 2_000_000

/** Opens a QEMU to a guest that is to come. */
export async function expectGuest(qmp: Qmp, uri: string): Promise<void> {
  await qmp.execute('migrate-incoming', { uri })
}

const over = ['completed', 'failed', 'cancelled', 'none', undefined]

/** Lets a guest run on whose migration is given up, whatever has become of that. Throws `QMP_ERROR`. */
export async function runOn(qmp: Qmp): Promise<void> {
  await qmp.execute('migrate_cancel')
  // First, as what the guest writes waits for them.
  await dropMirrors(qmp).catch(() => {})
  await letGo(qmp)
  // Whoever saves it does not know of it.
  await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: waiting, state: false }] })
}

async function letGo(qmp: Qmp): Promise<void> {
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
