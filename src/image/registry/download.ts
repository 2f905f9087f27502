import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, rename, rm, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { NestvmError } from '../../store/error.ts'
import { withLock } from '../../store/lock.ts'
import { explainWriteError } from '../../store/write.ts'
import { type Descriptor, wrongDigest } from '../manifest.ts'
import { blobPath } from '../paths.ts'
import type { ImageProgress } from '../progress.ts'
import { parseDigest } from '../reference.ts'
import { type RegistryClient, retrying } from './client.ts'

interface DownloadOptions {
  progress?: ImageProgress
  signal?: AbortSignal
}

/**
 * The file of a blob in the cache, which is downloaded if it is not there. What an earlier try has got is gone on with;
 * only what has its size and digest gets the blob's name. Throws `IMAGE_BAD_DIGEST`, `NO_SPACE`, and what the client
 * throws.
 */
export async function downloadBlob(
  client: RegistryClient,
  blob: Descriptor,
  options: DownloadOptions,
): Promise<string> {
  const path = blobPath(blob.digest)
  const label = blob.digest.slice(7, 19)
  const { progress, signal } = options
  const onWait = ({ pid }: { pid: number }) =>
    progress?.({ phase: 'wait', label: `${label}, process ${pid}`, bytesDone: 0 })
  const get = async () => {
    if (await isWhole(path, blob.size)) return path
    await checkSpace(path, blob.size)
    const partial = `${path}.part`
    try {
      await fetchInto(partial, client, blob, options)
      await rename(partial, path)
    } catch (error) {
      if (error instanceof NestvmError && error.code === 'IMAGE_BAD_DIGEST') await rm(partial, { force: true })
      throw explainWriteError(error, path)
    }
    return path
  }
  const found = await withLock(`${path}.lock`, get, { onWait, signal, timeoutMs: 6 * 60 * 60_000 })
  progress?.({ phase: 'download', label, bytesDone: blob.size, bytesTotal: blob.size })
  return found
}

async function fetchInto(
  partial: string,
  client: RegistryClient,
  blob: Descriptor,
  options: DownloadOptions,
): Promise<void> {
  const { progress, signal } = options
  const label = blob.digest.slice(7, 19)
  await using file = await open(partial, 'a', 0o600)
  const state = await resumeFrom(partial, blob)
  let furthest = state.size
  const attempt = async () => {
    if (state.size > blob.size) await restart()
    if (state.size === blob.size) return
    const response = await client.blob(blob.digest, state.size, signal).catch(async (error: unknown) => {
      if (!refusesRange(error)) throw error
      await restart()
      throw broken(client.host, 'it has less than was got before')
    })
    // A server may answer a request for a part with the whole.
    if (state.size > 0 && !startsAt(response.headers.get('content-range'), state.size)) await restart()
    try {
      for await (const chunk of response.body ?? []) {
        await file.writeFile(chunk)
        state.hash.update(chunk)
        state.size += chunk.length
        if (state.size > blob.size) throw tooLong(blob)
        progress?.({ phase: 'download', label, bytesDone: state.size, bytesTotal: blob.size })
      }
    } catch (error) {
      throw asBroken(error, client.host, signal)
    }
    if (state.size < blob.size) throw broken(client.host, `it ended after ${state.size} of ${blob.size} bytes`)
  }
  const restart = async () => {
    await file.truncate(0)
    Object.assign(state, { size: 0, hash: newHash(blob.digest) })
  }
  const progressed = () => {
    const enough = state.size >= furthest + leastProgress
    furthest = Math.max(furthest, state.size)
    return enough
  }
  await retrying(signal, attempt, progressed)
  const found = `${blob.digest.split(':')[0]}:${state.hash.digest('hex')}`
  if (found !== blob.digest) throw wrongDigest(`a blob from ${client.host}`, blob.digest, found)
}

/** Bytes after which a failure counts as the first one again: a server that gives one at a time would keep us for ever. */
const leastProgress = 1 << 16

function refusesRange(error: unknown): boolean {
  return error instanceof NestvmError && error.details.status === 416
}

/** What is on disk already goes into the digest. */
async function resumeFrom(partial: string, blob: Descriptor): Promise<{ size: number; hash: Hash }> {
  const hash = newHash(blob.digest)
  let size = 0
  for await (const chunk of createReadStream(partial)) {
    hash.update(chunk)
    size += chunk.length
  }
  return { size, hash }
}

function newHash(digest: string): Hash {
  return createHash(parseDigest(digest)?.algorithm ?? 'sha256')
}

function startsAt(contentRange: string | null, offset: number): boolean {
  return contentRange?.startsWith(`bytes ${offset}-`) === true
}

async function isWhole(path: string, size: number): Promise<boolean> {
  return stat(path).then(
    (stats) => stats.size === size,
    () => false,
  )
}

/** A size that a manifest claims is refused before anything is written. */
async function checkSpace(path: string, size: number): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const { bavail, bsize } = await statfs(dirname(path))
  if (bavail * bsize >= size) return
  throw new NestvmError('NO_SPACE', `a layer has ${size} bytes, and ${bavail * bsize} are free in ${dirname(path)}`, {
    hint: 'nestvm prune, or set XDG_CACHE_HOME to a directory on a disk with more room',
    details: { path, size, free: bavail * bsize },
  })
}

function tooLong({ digest, size }: Descriptor): NestvmError {
  return wrongDigest('a blob', `${digest} of ${size} bytes`, 'longer')
}

function asBroken(error: unknown, host: string, signal: AbortSignal | undefined): unknown {
  signal?.throwIfAborted()
  const explained = explainWriteError(error, 'the cache')
  if (explained instanceof NestvmError) return explained
  return broken(
    host,
    error instanceof Error ? (error.cause instanceof Error ? error.cause.message : error.message) : '',
  )
}

function broken(host: string, why: string): NestvmError {
  return new NestvmError('REGISTRY_UNREACHABLE', `a download from ${host} broke off: ${why}`, {
    hint: 'try again: it goes on from where it was',
    details: { host },
  })
}
