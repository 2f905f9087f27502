import { statfs } from 'node:fs/promises'
import type { Bundle } from '../bundle/bundle.ts'
import type { KernelChoice } from '../bundle/manifest.ts'
import type { Arch } from '../host/arch.ts'
import { listSnapshots, removeSnapshot, snapshotsDir } from './record.ts'
import { sameWorld, worldOf } from './world.ts'

/** Most bytes that automatic snapshots may take: 8 GiB, or a tenth of the file system where that is less. */
async function limit(): Promise<number> {
  const { blocks, bsize } = await statfs(await snapshotsDir())
  return Math.min(8 * 2 ** 30, (blocks * bsize) / 10)
}

/** Removes automatic snapshots, those used longest ago first, until the others are within the limit. */
export async function keepWithinLimit(): Promise<void> {
  const all = (await listSnapshots()).filter(({ snapshot }) => snapshot?.automatic !== false)
  const most = await limit()
  let bytes = 0
  for (const [index, { id, bytes: size }] of all.entries()) {
    bytes += size
    if (index > 0 && bytes > most) await removeSnapshot({ id })
  }
}

/**
 * Removes damaged snapshots, and automatic ones that nothing here can restore any more; with `all`, every snapshot.
 * Returns the bytes that were freed.
 */
export async function pruneSnapshots(
  bundleFor: (arch: Arch, kernel?: KernelChoice) => Promise<Bundle | undefined>,
  all: boolean,
): Promise<number> {
  let freed = 0
  for (const { id, snapshot, bytes } of await listSnapshots()) {
    const { world, automatic, guests = [] } = snapshot ?? {}
    const bundle = world && (await bundleFor(world.arch, guests[0]?.kernel))
    const now = bundle && (await worldOf(bundle, world.accelerator))
    const usable = world !== undefined && now !== undefined && sameWorld(world, now)
    if (!all && usable) continue
    if (!all && automatic === false) continue
    await removeSnapshot({ id })
    freed += bytes
  }
  return freed
}
