import { statfs } from 'node:fs/promises'
import { listSnapshots, removeSnapshot, snapshotsDir } from './record.ts'

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
