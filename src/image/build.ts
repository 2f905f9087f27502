import { createHash } from 'node:crypto'
import { mkdir, open, readFile, rename, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Tools } from '../bundle/tools.ts'
import { withLock } from '../store/lock.ts'
import { explainWriteError, removeLeftovers, removeTree, temporaryName, writeFileAtomic } from '../store/write.ts'
import type { Reading } from './layer/compression.ts'
import { contentSize, mergedTar } from './layer/merge.ts'
import { type LayerFile, scanLayers } from './layer/scan.ts'
import { builder, writeSquashfs } from './layer/squashfs.ts'
import type { Inode } from './layer/tree.ts'
import { imageLimits } from './limits.ts'
import { contentPaths } from './paths.ts'
import type { ImageProgress } from './progress.ts'
import { type Content, readContent } from './record.ts'
import type { Source } from './source/source.ts'

export interface BuildRequest extends Reading {
  /** For progress. */
  name: string
  progress?: ImageProgress
}

/** The key of the squashfs: all that goes into it. The program counts by its bytes, as packages are updated. */
export async function contentKey(source: Source, tools: Tools): Promise<string> {
  const program = createHash('sha256')
    .update(await readFile(join(tools.dir, 'bin/mksquashfs')))
    .digest('hex')
  const inputs = { builder, program, layers: source.layers.map(({ diffId }) => diffId) }
  return createHash('sha256').update(JSON.stringify(inputs)).digest('hex')
}

/** Gets the layers and makes the squashfs, if it is not there. One process does, others wait for it. */
export async function ensureContent(key: string, source: Source, request: BuildRequest): Promise<void> {
  if ((await readContent(key)) !== undefined) return
  const { dir } = contentPaths(key)
  const { progress, signal, name } = request
  const onWait = ({ pid }: { pid: number }) =>
    progress?.({ phase: 'wait', label: `${name}, process ${pid}`, bytesDone: 0 })
  const make = async () => {
    if ((await readContent(key)) === undefined) await makeContent(dir, source, request)
  }
  await withLock(`${dir}.lock`, make, { onWait, signal, timeoutMs: 6 * 60 * 60_000 })
}

/** The directory gets its name when all in it is there. */
async function makeContent(dir: string, source: Source, request: BuildRequest): Promise<void> {
  await removeLeftovers(dirname(dir))
  const staged = temporaryName(dir)
  try {
    await mkdir(staged, { recursive: true, mode: 0o700 })
    const content = await fill(join(staged, 'root.squashfs'), source, request)
    await writeFileAtomic(join(staged, 'content.json'), `${JSON.stringify(content, undefined, 1)}\n`)
    // One that is there is not whole, or of another version.
    await removeTree(dir)
    await rename(staged, dir)
  } catch (error) {
    await removeTree(staged)
    throw explainWriteError(error, dir)
  }
}

async function fill(squashfs: string, source: Source, request: BuildRequest): Promise<Content> {
  const { name, progress } = request
  const stop = new AbortController()
  const signal = request.signal ? AbortSignal.any([request.signal, stop.signal]) : stop.signal
  const files = inParallel(source.layers, 3, signal)
  try {
    const onLayer = (index: number) =>
      progress?.({ phase: 'check', label: `layer ${index + 1} of ${files.length}`, bytesDone: 0 })
    const tree = await scanLayers(files, { ...request, signal, limits: imageLimits(), onLayer })
    const unpackedBytes = contentSize(tree)
    const accounts = {
      passwd: account(tree.open(['etc', 'passwd'])?.inode),
      group: account(tree.open(['etc', 'group'])?.inode),
    }
    const keep = new Set([accounts.passwd, accounts.group].filter((inode) => inode !== undefined))
    const texts = new Map<Inode, string>()
    const onFile = (inode: Inode, data: Buffer) => texts.set(inode, data.toString('utf8'))
    const tar = mergedTar(tree, await Promise.all(files), { ...request, keep, onFile })
    const watched = async function* () {
      let bytesDone = 0
      for await (const chunk of tar) {
        bytesDone += chunk.length
        progress?.({
          phase: 'build',
          label: name,
          bytesDone: Math.min(bytesDone, unpackedBytes),
          bytesTotal: unpackedBytes,
        })
        yield chunk
      }
    }
    await writeSquashfs(squashfs, watched(), tree.root.inode, request)
    await synced(squashfs)
    const textOf = (inode: Inode | undefined) => (inode && texts.get(inode)) ?? ''
    return {
      ...{ schema: 1, revision: builder.revision, size: (await stat(squashfs)).size, unpackedBytes },
      ...{ passwd: textOf(accounts.passwd), group: textOf(accounts.group) },
    }
  } finally {
    stop.abort()
    await Promise.allSettled(files)
  }
}

/** Larger ones are no lists of accounts. */
function account(inode: Inode | undefined): Inode | undefined {
  return inode?.type === 'file' && inode.size <= 1 << 20 ? inode : undefined
}

/** So many are got at once; those that have not begun when the signal comes do not. */
function inParallel(layers: Source['layers'], most: number, signal: AbortSignal): Promise<LayerFile>[] {
  const lanes: Promise<unknown>[] = Array.from({ length: most }, () => Promise.resolve())
  return layers.map(({ diffId, file }, index) => {
    const got = (lanes[index % most] ?? Promise.resolve()).then(async () => {
      signal.throwIfAborted()
      return { path: await file(signal), diffId }
    })
    // Whoever waits for it learns why it failed; that may be after another has failed.
    lanes[index % most] = got.catch(() => {})
    return got
  })
}

/** Machines read it long after: a loss of power must not leave holes in it. */
async function synced(path: string): Promise<void> {
  await using file = await open(path, 'r+')
  await file.sync()
}
