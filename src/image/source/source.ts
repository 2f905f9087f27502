import type { Arch } from '../../host/arch.ts'
import type { Reading } from '../layer/compression.ts'
import type { ImageProgress } from '../progress.ts'
import { formatReference, type Reference } from '../reference.ts'
import { openArchive } from './archive.ts'
import { openDirectory } from './directory.ts'
import { openDockerArchive } from './docker-archive.ts'
import { openLayout } from './layout.ts'
import { openRegistry } from './registry.ts'

/** One layer, as the manifest and the config name it. */
export interface SourceLayer {
  /** Digest of the unpacked tar. */
  diffId: string
  /** Bytes to be got. */
  size: number
  /** Gets it and gives its file, whose content is what the manifest says. */
  file(signal: AbortSignal): Promise<string>
}

/** An image that is about to be got: its documents are there and checked, its layers are not. */
export interface Source {
  manifestDigest: string
  /** The config document. */
  config: Buffer
  layers: SourceLayer[]
}

export interface SourceRequest extends Reading {
  arch: Arch
  /** For messages. */
  name: string
  progress?: ImageProgress
}

/** Calls `use` with the image while it can be got from where the reference says. */
export async function withSource<T>(
  reference: Reference,
  request: Omit<SourceRequest, 'name'>,
  use: (source: Source) => Promise<T>,
): Promise<T> {
  const named = { ...request, name: formatReference(reference) }
  switch (reference.kind) {
    case 'registry': {
      await using registry = await openRegistry(reference, named)
      return await use(registry.source)
    }
    case 'oci':
      return use(await openLayout(openDirectory(reference.path), reference.name, named))
    case 'oci-archive': {
      await using files = await openArchive(reference.path, named)
      return await use(await openLayout(files, reference.name, named))
    }
    case 'docker-archive': {
      await using files = await openArchive(reference.path, named)
      return await use(await openDockerArchive(files, reference.name, named))
    }
  }
}
