import { lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { withLock } from '../store/lock.ts'
import { dataPaths } from '../store/paths.ts'
import { removeLeftovers, removeTree } from '../store/write.ts'
import { directoriesInUse, dropOldGuests, isPointer, parseDirectoryName } from './manifest.ts'
import { workDir } from './setup.ts'

/** What the bundle takes on disk. Sizes are bytes of disk blocks. */
export interface BundleReport {
  directories: {
    path: string
    kind: string
    arch: string
    digest: string
    bytes: number
    /** Whether new guests are started from it. */
    current: boolean
  }[]
  /** What an interrupted set-up has downloaded. */
  downloads?: { path: string; bytes: number }
  totalBytes: number
}

export async function bundleReport(): Promise<BundleReport> {
  const { bundle } = dataPaths()
  const inUse = await directoriesInUse()
  const named = (await namesIn(bundle)).flatMap((name) => {
    const parsed = parseDirectoryName(name)
    return parsed === undefined ? [] : { name, ...parsed }
  })
  const directories = await Promise.all(
    named.map(async ({ name, ...parsed }) => {
      const path = join(bundle, name)
      return { path, ...parsed, bytes: await diskUsage(path), current: inUse.has(name) }
    }),
  )
  const downloads = { path: workDir(), bytes: await diskUsage(workDir()) }
  const totalBytes = [downloads, ...directories].reduce((sum, { bytes }) => sum + bytes, 0)
  return { directories, ...(downloads.bytes > 0 ? { downloads } : {}), totalBytes }
}

/** Removes what no new guest is started from: earlier bundles, and what interrupted set-ups left. */
export async function pruneBundles(signal?: AbortSignal): Promise<void> {
  const { bundle } = dataPaths()
  await exclusively(signal, async () => {
    await dropOldGuests()
    const inUse = await directoriesInUse()
    const names = await namesIn(bundle)
    const unused = names.filter((name) => parseDirectoryName(name) !== undefined && !inUse.has(name))
    for (const name of unused) await removeTree(join(bundle, name))
    await removeLeftovers(bundle)
    await removeTree(workDir())
  })
}

/** Removes everything. The caller sees to it that no guest runs: a guest hypervisor reads its layer from here. */
export async function removeBundles(signal?: AbortSignal): Promise<void> {
  const { bundle } = dataPaths()
  await exclusively(signal, async () => {
    // Without its pointer a directory that is half removed is never taken for a whole one.
    for (const name of (await namesIn(bundle)).filter(isPointer)) await rm(join(bundle, name))
    await removeLeftovers(bundle)
    for (const name of await namesIn(bundle)) {
      if (parseDirectoryName(name) !== undefined) await removeTree(join(bundle, name))
    }
    await removeTree(workDir())
  })
}

/** A set-up that is under way is waited for, not too long. */
async function exclusively(signal: AbortSignal | undefined, fn: () => Promise<void>): Promise<void> {
  await withLock(join(dataPaths().bundle, 'lock'), fn, { signal, timeoutMs: 60_000 })
}

async function namesIn(dir: string): Promise<string[]> {
  return (await readdir(dir).catch(() => [])).sort()
}

/** Bytes of disk blocks of a file or a whole directory; 0 for what is not there. */
export async function diskUsage(path: string): Promise<number> {
  const stats = await lstat(path).catch(() => undefined)
  if (stats === undefined) return 0
  const inside = stats.isDirectory() ? (await namesIn(path)).map((name) => diskUsage(join(path, name))) : []
  return (await Promise.all(inside)).reduce((sum, bytes) => sum + bytes, stats.blocks * 512)
}
