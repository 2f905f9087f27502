import { stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Bundle } from '../bundle/bundle.ts'
import type { QemuDisk, QemuSpec } from '../engine/qemu/argv.ts'
import { Qmp } from '../engine/qemu/qmp.ts'
import { loadState, type Memory } from '../engine/qemu/state.ts'
import type { Context } from '../stack/context.ts'
import { engineEnd, lastWords } from '../stack/death.ts'
import { fromStart, hostDisk, isNothing, plug } from '../stack/disk.ts'
import type { Host } from '../stack/host.ts'
import { type Launched, launchRestored } from '../stack/launch.ts'
import { hostPlace } from '../stack/place.ts'
import type { GuestRecord } from '../stack/record.ts'
import { errorCode } from '../store/errno.ts'
import { NestvmError } from '../store/error.ts'

/** A QEMU that holds a saved guest, which is stopped. */
export interface Resumed extends AsyncDisposable {
  launched: Launched
  qmp: Qmp
}

/** A disk that a guest got while it ran, under a number of the bus. */
interface Attached {
  lun: number
  disk: QemuDisk
}

/** Starts a QEMU and loads a state into it. When that fails, none is left. Throws `RESTORE_FAILED`. */
export async function resume(
  context: Context,
  bundle: Bundle,
  spec: QemuSpec,
  attached: readonly Attached[],
  { path, memory }: { path: string; memory: Memory },
  signal: AbortSignal,
): Promise<Resumed> {
  const launched = await launchRestored(hostPlace(context.host, bundle, undefined), spec)
  const died = engineEnd(launched, 'while it was restored')
  const failed = new AbortController()
  try {
    const opened = openQmp(context, spec, AbortSignal.any([signal, failed.signal]))
    const qmp = await Promise.race([opened, died])
    for (const { lun, disk } of attached) await plug(qmp, disk, lun)
    await Promise.race([loadState(qmp, path, memory, signal), died])
    return { launched, qmp, [Symbol.asyncDispose]: () => qmp[Symbol.asyncDispose]() }
  } catch (error) {
    failed.abort()
    launched.process.kill('SIGKILL')
    signal.throwIfAborted()
    const why = error instanceof Error ? error.message : String(error)
    const { said } = await lastWords({ machine: context.host }, spec.files)
    throw new NestvmError(
      'RESTORE_FAILED',
      `the saved machine does not come back: ${[why, said].filter(Boolean).join('; ')}`,
      { cause: error },
    )
  }
}

/** QEMU makes its sockets while it starts. */
async function openQmp({ host }: Context, { files }: QemuSpec, signal: AbortSignal): Promise<Qmp> {
  for (;;) {
    try {
      return await Qmp.open(await host.connect({ unix: files.qmpSocket }, signal))
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof NestvmError) || !['ENOENT', 'ECONNREFUSED'].includes(errorCode(error.cause) ?? ''))
        throw error
      await sleep(3, undefined, { signal })
    }
  }
}

/**
 * The disks of a level 1 guest by what is on them: those that it had from its start, and those that were attached to it
 * later. Throws `SNAPSHOT_MISMATCH` when one is no longer there.
 */
export async function disksOf(
  { disks }: GuestRecord,
  bundle: Bundle,
  host: Pick<Host, 'disksDir'>,
): Promise<{ first: QemuDisk[]; attached: Attached[] }> {
  const first: QemuDisk[] = []
  const attached: Attached[] = []
  for (const [index, seen] of disks.entries()) {
    if (isNothing(seen)) continue
    const { path, readOnly } = hostDisk(seen.content, bundle, host)
    if (!(await stat(path).catch(() => undefined))) {
      throw new NestvmError(
        'SNAPSHOT_MISMATCH',
        `${path}, which the saved machine has as a disk, is not there any more`,
      )
    }
    const disk = { path, readOnly, device: path.startsWith('/dev/') }
    if (fromStart(seen)) first.push(disk)
    else attached.push({ lun: index + 1, disk })
  }
  return { first, attached }
}
