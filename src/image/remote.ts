import { basename } from 'node:path'
import { type CopyRequest, ensureCopy } from '../bundle/copy.ts'
import { contentPaths } from './paths.ts'
import type { Image } from './record.ts'

/**
 * The path of an image's squashfs on another host, copied there first where it is not there yet: into the images of a
 * nestvm of that host, which may use it too. Throws `COPY_FAILED`, or the signal's reason.
 */
export async function ensureRemoteImage(
  { digest, size }: Pick<Image, 'digest' | 'size'>,
  request: CopyRequest,
): Promise<string> {
  const { dir, squashfs, record } = contentPaths(digest)
  const files = [{ path: basename(squashfs), size }]
  const there = await ensureCopy({ dir, files, record: basename(record) }, request)
  return `${there}/${basename(squashfs)}`
}
