import { randomBytes } from 'node:crypto'
import { open, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { saveState } from '../engine/qemu/state.ts'
import type { Context } from '../stack/context.ts'
import { openQmp } from '../stack/forward.ts'
import { levelLimitMs } from '../stack/plan.ts'
import type { GuestRecord } from '../stack/record.ts'
import { errorCode } from '../store/errno.ts'
import { snapshotFiles } from '../store/paths.ts'
import { bootId } from '../store/process.ts'
import { removeTree } from '../store/write.ts'
import { disarm, prime } from './primed.ts'
import { loadSnapshot, newestSchema, type Snapshot, saveSnapshotRecord, snapshotDir, stateDigest } from './record.ts'
import type { World } from './world.ts'

export interface SaveRequest {
  id: string
  tag?: string
  automatic: boolean
  world: World
  /** Running, outer before inner. */
  guests: readonly GuestRecord[]
  /** Becomes the snapshot. */
  dir: string
  /** In the directory: what containers had written to disks of their own. */
  disks?: Snapshot['disks']
}

/** Lets all guests wait for a restore. What it returns ends that. */
export async function primeAll(
  context: Context,
  guests: readonly GuestRecord[],
): Promise<{ token: string; disarm(): Promise<void> }> {
  const token = randomBytes(16).toString('hex')
  const each = (act: (record: GuestRecord) => Promise<void>) => Promise.allSettled(guests.map(act))
  const end = async () => {
    await each(async (record) => disarm(await context.guest(record), levelLimitMs(record.level, record.accel)))
  }
  const primed = await each(async (record) => {
    const guest = await context.guest(record)
    await prime(guest, token, levelLimitMs(record.level, record.accel), context.signal)
  })
  const failed = primed.find((result) => result.status === 'rejected')
  if (!failed) return { token, disarm: end }
  await end()
  throw failed.reason
}

/**
 * Saves a stack whose level 1 guest has its memory in the directory's file `ram`, and in which no nested guest runs (see
 * freezeNested). That guest is left stopped: what it did further would change the file.
 */
export async function saveShared(context: Context, request: SaveRequest, token: string): Promise<Snapshot> {
  const [base] = request.guests
  if (!base) throw new RangeError('nothing to save')
  await using qmp = await openQmp(context, base)
  await qmp.execute('stop')
  await saveState(qmp, snapshotFiles(request.dir).state, 'apart', context.signal)
  return publish(request, token)
}

/**
 * Describes what lies in the directory, and gives it its name as the last step: there is no half of a snapshot. Returns
 * what has that name then.
 */
export async function publish(
  { dir, id, tag, automatic, world, guests, disks = [] }: SaveRequest,
  token: string,
): Promise<Snapshot> {
  const files = snapshotFiles(dir)
  const { size, mtimeNs } = await stat(files.ram, { bigint: true })
  const snapshot: Snapshot = {
    ...{
      schema: newestSchema,
      id,
      tag,
      automatic,
      machine: guests[0]?.path ?? '',
      createdAt: new Date().toISOString(),
    },
    ...{ world, token, ram: { size: Number(size), mtimeNs: String(mtimeNs) } },
    stateSha256: (await stateDigest(files.state)) ?? '',
    boot: bootId(),
    guests: [...guests],
    disks,
  }
  await saveSnapshotRecord(dir, snapshot)
  try {
    await rename(dir, snapshotDir(snapshot))
  } catch (error) {
    if (errorCode(error) !== 'ENOTEMPTY' && errorCode(error) !== 'EEXIST') throw error
    // Somebody else has saved the same meanwhile, which is as good, and may be restoring it.
    const other = await loadSnapshot(id).catch(() => undefined)
    if (other) return other
    await removeTree(snapshotDir(snapshot))
    await rename(dir, snapshotDir(snapshot))
  }
  return snapshot
}

/** Waits until all of it is on the disk; before, it does not outlive a crash of the host. */
export async function settle(snapshot: Snapshot): Promise<void> {
  const dir = snapshotDir(snapshot)
  const files = [snapshotFiles(dir).ram, snapshotFiles(dir).state, ...snapshot.disks.map(({ file }) => join(dir, file))]
  for (const path of files) {
    await using file = await open(path, 'r')
    await file.sync()
  }
  await saveSnapshotRecord(dir, { ...snapshot, boot: undefined })
}
