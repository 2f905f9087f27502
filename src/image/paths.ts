import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { Arch } from '../host/arch.ts'
import { cachePaths, dataPaths } from '../store/paths.ts'

/** A downloaded layer. The caller has checked that the digest is one. */
export function blobPath(digest: string): string {
  return join(cachePaths().downloads, digest.replace(':', '-'))
}

/** Directories named by keys, each with what was made of the same layers. */
export function contentPaths(key: string) {
  const dir = join(contentsDir(), key)
  return { dir, squashfs: join(dir, 'root.squashfs'), record: join(dir, 'content.json') }
}

export function contentsDir(): string {
  return join(dataPaths().images, 'contents')
}

/** What a reference stood for when it was pulled last. */
export function referencePath(reference: string, arch: Arch): string {
  const name = createHash('sha256').update(`${arch} ${reference}`).digest('hex')
  return join(referencesDir(), `${name}.json`)
}

export function referencesDir(): string {
  return join(dataPaths().images, 'references')
}

/** Held while records come and go, never while anything is downloaded or built. */
export function imagesLock(): string {
  return join(dataPaths().images, 'lock')
}
