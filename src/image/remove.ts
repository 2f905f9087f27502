import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { diskUsage } from '../bundle/report.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { cachePaths, dataPaths } from '../store/paths.ts'
import { removeLeftovers, removeTree } from '../store/write.ts'
import { contentsDir, imagesLock } from './paths.ts'
import { listReferences, type ReferenceRecord, removeReference } from './record.ts'
import { formatReference, parseReference } from './reference.ts'

/**
 * Removes images by their names, or by the beginning of a digest, for all architectures; what no other name shares goes
 * too. A machine that runs keeps the file that it has open. Throws `IMAGE_NOT_FOUND`, and removes nothing then.
 */
export async function removeImages(names: readonly string[], signal?: AbortSignal): Promise<{ bytes: number }> {
  return exclusively(signal, async () => {
    const records = await listReferences()
    const doomed = names.flatMap((name) => matching(records, name))
    for (const record of doomed) await removeReference(record)
    return { bytes: await removeUnnamed(records.filter((record) => !doomed.includes(record))) }
  })
}

/** Removes what no name leads to, and all downloads; with `all`, every image. Gives the bytes of disk blocks. */
export async function pruneImages(all: boolean, signal?: AbortSignal): Promise<{ bytes: number }> {
  return exclusively(signal, async () => {
    const records = await listReferences()
    if (all) for (const record of records) await removeReference(record)
    const bytes = (await removeUnnamed(all ? [] : records)) + (await removeDownloads())
    await removeLeftovers(dataPaths().images)
    return { bytes }
  })
}

function matching(records: readonly ReferenceRecord[], name: string): ReferenceRecord[] {
  const byDigest = /^(sha256:)?[0-9a-f]{8,64}$/.test(name)
  const hex = name.replace(/^sha256:/, '')
  const digests = records.filter(
    ({ key, manifestDigest }) => key.startsWith(hex) || manifestDigest.slice(7).startsWith(hex),
  )
  if (byDigest && digests.length > 0) return digests
  const reference = formatReference(parseReference(name))
  const found = records.filter((record) => record.reference === reference)
  if (found.length > 0) return found
  throw new NestvmError('IMAGE_NOT_FOUND', `${reference} is not on this host`, {
    hint: 'nestvm image ls',
    details: { reference },
  })
}

async function removeUnnamed(records: readonly ReferenceRecord[]): Promise<number> {
  const named = new Set(records.map(({ key }) => key))
  await removeLeftovers(contentsDir())
  const names = await readdir(contentsDir()).catch(() => [])
  return removeAll(
    names.filter((name) => /^[0-9a-f]{64}$/.test(name) && !named.has(name)).map((name) => join(contentsDir(), name)),
  )
}

/** Those that a pull has its lock on are left alone. */
async function removeDownloads(): Promise<number> {
  const { downloads } = cachePaths()
  await removeLeftovers(downloads)
  const names = await readdir(downloads).catch(() => [])
  const blobs = new Set(names.flatMap((name) => /^(sha\d+-[0-9a-f]+)(\.part)?$/.exec(name)?.[1] ?? []))
  let bytes = 0
  for (const blob of blobs) {
    const path = join(downloads, blob)
    const remove = async () => {
      bytes += await removeAll([path, `${path}.part`])
    }
    await withLock(`${path}.lock`, remove, { timeoutMs: 0 }).catch((error: unknown) => {
      if (!(error instanceof NestvmError && error.code === 'LOCK_TIMEOUT')) throw error
    })
  }
  return bytes
}

async function removeAll(paths: readonly string[]): Promise<number> {
  let bytes = 0
  for (const path of paths) {
    bytes += await diskUsage(path)
    await removeTree(path)
  }
  return bytes
}

async function exclusively<T>(signal: AbortSignal | undefined, fn: () => Promise<T>): Promise<T> {
  return withLock(imagesLock(), fn, { signal, timeoutMs: 60_000 })
}
