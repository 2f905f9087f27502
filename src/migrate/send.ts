import { pipeline } from 'node:stream/promises'
import { expectGuest, type MigrationLimits, type MigrationProgress, sendGuest } from '../engine/qemu/migration.ts'
import { timeLimit, unlessAborted } from '../machine/limit.ts'
import { NestvmError } from '../store/error.ts'
import { listenOnce, type Way } from './way.ts'

/**
 * Sends a guest. Returns since when it has stood still, as `performance.now()` tells time; it does so on both sides then.
 * Throws `MIGRATION_FAILED`.
 */
export async function send(
  { from, to }: Way,
  limits: MigrationLimits & { stallMs: number },
  signal: AbortSignal,
  onProgress: (progress: MigrationProgress) => void,
): Promise<number> {
  const socket = `${to.socketDir}/incoming`
  await expectGuest(to.qmp, `unix:${socket}`)
  const incoming = await to.machine.connect({ unix: socket }, signal)
  const { address, connection, cancel } = await listenOnce(from, 'outgoing', signal)
  const uri = address.type === 'unix' ? `unix:${address.path}` : `tcp:${address.host}:${address.port}`
  try {
    incoming.resume()
    const piped = connection
      .then((outgoing) => pipeline(outgoing, incoming, { signal }))
      .catch((error: unknown) => {
        const why = error instanceof Error ? error.message : error
        throw new NestvmError('MIGRATION_FAILED', `the way to the other side broke: ${why}`, { cause: error })
      })
    // QEMU says what breaks the way too, but may wait long for it; and what cannot be written does not tell of an end.
    const broken = piped.then(() => new Promise<never>(() => {}))
    broken.catch(() => {})
    const sent = sendGuest(from.qmp, uri, limits, onProgress, signal)
    const since = await Promise.race([sent, broken, to.qmp.ended])
    const late = new NestvmError('MIGRATION_FAILED', 'the other side does not take the end of what was sent')
    await unlessAborted(piped, timeLimit(limits.stallMs, late))
    return since
  } finally {
    cancel()
    incoming.destroy()
    connection.then((outgoing) => outgoing.destroy())
  }
}
