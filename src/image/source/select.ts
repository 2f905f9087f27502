import { NestvmError } from '../../store/error.ts'
import { parseConfig } from '../config.ts'
import { type Descriptor, type Document, type Index, type Manifest, parseManifest } from '../manifest.ts'
import { choosePlatform, matches, noPlatform } from '../platform.ts'
import type { Source, SourceLayer, SourceRequest } from './source.ts'

export interface Selected {
  manifest: Manifest
  digest: string
}

/** Goes down from an index to the manifest for the architecture. Throws `IMAGE_NO_PLATFORM`. */
export async function selectManifest(
  start: Document,
  get: (descriptor: Descriptor) => Promise<Document>,
  { arch, name }: SourceRequest,
): Promise<Selected> {
  let document = start
  // Indexes in indexes are allowed; more than a few are no image.
  for (let depth = 0; depth < 4; depth++) {
    const parsed = parseManifest(document)
    if ('manifest' in parsed) return { manifest: parsed.manifest, digest: document.digest }
    const chosen = choosePlatform(parsed.index.manifests, arch) ?? unnamed(parsed.index)
    if (chosen === undefined)
      throw noPlatform(
        name,
        arch,
        parsed.index.manifests.flatMap(({ platform }) => platform ?? []),
      )
    document = await get(chosen)
  }
  throw new NestvmError('IMAGE_BAD_MANIFEST', `${name} has indexes in indexes without end`)
}

/** Entries need not say what they are for: a single one is tried, and its config tells. */
function unnamed({ manifests }: Index): Descriptor | undefined {
  const [only, ...others] = manifests.filter(({ platform }) => !platform)
  return others.length === 0 ? only : undefined
}

/** Brings manifest and config together. Throws `IMAGE_NO_PLATFORM`, `IMAGE_BAD_MANIFEST`. */
export function toSource(
  { manifestDigest, config }: { manifestDigest: string; config: Buffer },
  layers: readonly Omit<SourceLayer, 'diffId'>[],
  { arch, name }: SourceRequest,
): Source {
  const { platform, diffIds } = parseConfig(config)
  if (!matches(platform, arch)) throw noPlatform(name, arch, [platform])
  if (diffIds.length !== layers.length) {
    throw new NestvmError(
      'IMAGE_BAD_MANIFEST',
      `${name} has ${layers.length} layers, but its config describes ${diffIds.length}`,
    )
  }
  return { manifestDigest, config, layers: layers.map((layer, index) => ({ ...layer, diffId: diffIds[index] ?? '' })) }
}
