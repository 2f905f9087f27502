import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MigrationProgress } from '../engine/qemu/migration.ts'
import { endMirrors, mirrorDisk, mirrored, offerDisks, withdrawDisks } from '../engine/qemu/mirror.ts'
import { stallLimit } from '../machine/limit.ts'
import { NestvmError } from '../store/error.ts'
import { listenOnce, type Way } from './way.ts'

/** Disks that are alike on both sides from now on. */
export interface Mirror extends Disposable {
  /** What they hold, in bytes. */
  sent: number
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
    const sent = await untilAlike({ from, to }, stallMs, signal, onProgress)
    const end = async () => {
      await endMirrors(from.qmp, signal)
      await withdrawDisks(to.qmp)
    }
    return { sent, end, [Symbol.dispose]: close }
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

async function untilAlike(
  { from, to }: Way,
  stallMs: number,
  stop: AbortSignal,
  onProgress: (progress: MigrationProgress) => void,
): Promise<number> {
  const seconds = Math.round(stallMs / 1000)
  const late = new NestvmError('MIGRATION_FAILED', `the other side has taken nothing of the disks for ${seconds} s`)
  using stall = stallLimit(stallMs, late)
  const signal = AbortSignal.any([stop, stall.signal])
  for (let last = -1; ; ) {
    signal.throwIfAborted()
    const { done, sent, left } = await Promise.race([mirrored(from.qmp), to.qmp.ended])
    onProgress({ sent, left })
    if (done) return sent
    if (sent !== last) stall.restart()
    last = sent
    await sleep(50, undefined, { signal })
  }
}
