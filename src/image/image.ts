import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Arch } from '../host/arch.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { contentKey, ensureContent } from './build.ts'
import { parseConfig } from './config.ts'
import type { Reading } from './layer/compression.ts'
import { imagesLock } from './paths.ts'
import type { ImageProgress } from './progress.ts'
import { findImage, type Image, readContent, writeReference } from './record.ts'
import { formatReference, parseReference, type Reference } from './reference.ts'
import { type Source, withSource } from './source/source.ts'

export interface ImageRequest extends Reading {
  /** As a user writes it; see `parseReference`. */
  reference: string
  arch: Arch
  /** `missing` (unless said): get it if it is not there; `always`: ask whether there is a newer one. */
  pull?: 'missing' | 'always' | 'never'
  progress?: ImageProgress
}

/**
 * An image as one squashfs, got first where need be. Safe to call from several processes at once: what one gets or
 * makes, the others wait for. A kill leaves nothing but downloads in the cache, which the next call goes on with.
 * Throws `IMAGE_...`, `REGISTRY_...`, `BAD_AUTH_FILE`, `BAD_REGISTRIES_CONF`, `CREDENTIAL_HELPER_FAILED`, `NO_SPACE`,
 * or the signal's reason.
 */
export async function ensureImage(request: ImageRequest): Promise<Image> {
  const { arch, pull = 'missing', progress } = request
  const reference = parseReference(request.reference)
  const name = formatReference(reference)
  const stamp = await stampOf(reference)
  const found = pull === 'always' ? undefined : await findImage(name, arch)
  if (found && (pull === 'never' || found.stamp === stamp)) return found
  if (pull === 'never') throw absent(name, arch)

  progress?.({ phase: 'resolve', label: name, bytesDone: 0 })
  return withSource(reference, request, async (source) => {
    const key = await contentKey(source, request.tools)
    // Between making and naming it, somebody may remove what nothing names.
    for (let tries = 0; tries < 3; tries++) {
      await ensureContent(key, source, { ...request, name })
      const image = await nameContent({ name, arch, key, stamp }, source, request.signal)
      if (image) return image
    }
    throw new NestvmError('IMAGE_NOT_FOUND', `${name} is being removed by another process`)
  })
}

async function nameContent(
  { name, arch, key, stamp }: { name: string; arch: Arch; key: string; stamp: string | undefined },
  source: Source,
  signal: AbortSignal | undefined,
): Promise<Image | undefined> {
  const { config, created } = parseConfig(source.config)
  const { manifestDigest } = source
  const pulledAt = new Date().toISOString()
  const record = { schema: 1 as const, reference: name, arch, key, manifestDigest, config, created, pulledAt, stamp }
  const write = async () => {
    if ((await readContent(key)) === undefined) return undefined
    await writeReference(record)
    // As it will be read: the same whether it was just made or not.
    return findImage(name, arch)
  }
  return withLock(imagesLock(), write, { signal, timeoutMs: 60_000 })
}

/** What changes when a local image does; undefined for images of registries, whose tags are asked only on demand. */
async function stampOf(reference: Reference): Promise<string | undefined> {
  if (reference.kind === 'registry') return undefined
  const file = reference.kind === 'oci' ? join(reference.path, 'index.json') : reference.path
  const stats = await stat(file).catch(() => undefined)
  return stats && `${stats.dev} ${stats.ino} ${stats.size} ${stats.mtimeMs} ${stats.ctimeMs}`
}

function absent(name: string, arch: Arch): NestvmError {
  return new NestvmError('IMAGE_NOT_FOUND', `${name} for ${arch} is not on this host, and is not to be pulled`, {
    hint: `nestvm image pull ${name}`,
    details: { reference: name, arch },
  })
}
