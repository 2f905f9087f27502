import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MigrationProgress } from '../engine/qemu/migration.ts'
import {
  dropMirrors,
  endMirrors,
  type MirrorState,
  mirrorDisk,
  mirrorState,
  offerDisks,
  withdrawDisks,
} from '../engine/qemu/mirror.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import { NestvmError } from '../store/error.ts'
import { listenOnce, type Way } from './way.ts'

/** Disks that are alike on both sides from now on. */
export interface Mirror extends Disposable {
  /** What they hold, in bytes. */
  sent: number
  /** Rejects with `MIGRATION_FAILED` when one cannot be written to any more. */
  failed: Promise<never>
  /** The guest stands still: what is left is sent, and the other side has its disks for itself. */
  end(): Promise<void>
}

interface MirrorLimits {
  /** Bytes in a second. */
  bandwidth?: number
  stallMs: number
}

/**
 * Sends what is on disks, which the other side has empty, while the guest goes on writing to them. When it breaks, whoever
 * lets the guest run on ends QEMU's part of it. Throws `MIGRATION_FAILED`, or the signal's reason.
 */
export async function mirrorDisks(
  { from, to }: Way,
  nodes: readonly string[],
  { bandwidth, stallMs }: MirrorLimits,
  signal: AbortSignal,
  onProgress: (progress: MigrationProgress) => void,
): Promise<Mirror> {
  const socket = `${to.socketDir}/disks`
  const ways: Disposable[] = []
  const close = () => {
    for (const way of ways) way[Symbol.dispose]()
  }
  try {
    await offerDisks(to.qmp, socket, nodes)
    for (const node of nodes) {
      const incoming = await to.machine.connect({ unix: socket }, signal)
      ways.push({ [Symbol.dispose]: () => incoming.destroy() })
      const { address, connection, cancel } = await listenOnce(from, node, signal)
      ways.push(join(connection, incoming, cancel))
      await mirrorDisk(from.qmp, node, address, bandwidth)
    }
    const follow = (until: 'ready' | 'over') => followMirrors({ from, to }, until, stallMs, signal, onProgress)
    const sent = await follow('ready')
    const over = new AbortController()
    const end = async () => {
      over.abort()
      await endMirrors(from.qmp)
      await follow('over')
      await dropMirrors(from.qmp)
      await withdrawDisks(to.qmp)
    }
    const dispose = () => {
      over.abort()
      close()
    }
    return { sent, end, failed: untilFailed(from.qmp, over.signal), [Symbol.dispose]: dispose }
  } catch (error) {
    close()
    throw error
  }
}

/** What breaks is told of by QEMU. */
function join(connection: Promise<Duplex>, incoming: Duplex, cancel: () => void): Disposable {
  const joined = connection.then((outgoing) =>
    Promise.all([pipeline(outgoing, incoming), pipeline(incoming, outgoing)]),
  )
  joined.catch(() => {})
  return {
    [Symbol.dispose]: () => {
      cancel()
      connection.then((outgoing) => outgoing.destroy())
    },
  }
}

/** Never settles once the signal is aborted. */
function untilFailed(qmp: Qmp, signal: AbortSignal): Promise<never> {
  const failed = new Promise<never>((_, reject) => {
    const look = async () => {
      for (;;) {
        await sleep(500, undefined, { signal })
        await mirrorState(qmp)
      }
    }
    look().catch((error: unknown) => signal.aborted || reject(error))
  })
  failed.catch(() => {})
  return failed
}

/** Until all disks are that far; returns what they hold. */
async function followMirrors(
  { from, to }: Way,
  until: MirrorState['state'],
  stallMs: number,
  signal: AbortSignal,
  onProgress: (progress: MigrationProgress) => void,
): Promise<number> {
  for (let last = { sent: -1, at: performance.now() }; ; ) {
    signal.throwIfAborted()
    const { state, sent, left } = await Promise.race([mirrorState(from.qmp), to.qmp.ended])
    onProgress({ sent, left })
    if (state === until) return sent
    if (sent !== last.sent) last = { sent, at: performance.now() }
    // When all is sent the other side may have much to write to its disk.
    const limitMs = left > 0 ? stallMs : 10 * stallMs
    if (performance.now() - last.at > limitMs) {
      const seconds = Math.round(limitMs / 1000)
      throw new NestvmError('MIGRATION_FAILED', `the other side has taken nothing of the disks for ${seconds} s`)
    }
    await sleep(until === 'over' ? 5 : 50, undefined, { signal })
  }
}
