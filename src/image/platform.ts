import type { Arch } from '../host/arch.ts'
import { NestvmError } from '../store/error.ts'
import type { Descriptor, Platform } from './manifest.ts'

/** Go's names, which images use. */
const architectures: Record<Arch, string> = { x86_64: 'amd64', arm64: 'arm64' }

/** Whether it runs on every CPU of the architecture comes first, then the next lower demand. */
const variants: Record<Arch, readonly string[]> = {
  x86_64: ['', 'v1', 'v2', 'v3', 'v4'],
  arm64: ['', 'v8', 'v8.0', 'v8.1', 'v8.2', 'v8.3', 'v8.4', 'v8.5', 'v9', 'v9.0'],
}

/** The image for an architecture among those of an index; attestations and artifacts are passed over. */
export function choosePlatform(manifests: readonly Descriptor[], arch: Arch): Descriptor | undefined {
  const rank = ({ platform }: Descriptor) => variants[arch].indexOf(platform?.variant ?? '')
  return manifests
    .filter(({ platform }) => platform && matches(platform, arch))
    .sort((a, b) => rank(a) - rank(b))
    .at(0)
}

export function matches({ os, architecture, variant }: Platform, arch: Arch): boolean {
  return os === 'linux' && architecture === architectures[arch] && variants[arch].includes(variant ?? '')
}

function formatPlatform({ os, architecture, variant }: Platform): string {
  return `${os}/${architecture}${variant ? `/${variant}` : ''}`
}

/** Throws nothing: gives `IMAGE_NO_PLATFORM`, which lists what there is. */
export function noPlatform(reference: string, arch: Arch, found: readonly Platform[]): NestvmError {
  const listed = [...new Set(found.map(formatPlatform))].filter((name) => name !== 'unknown/unknown')
  const other = found.some((platform) => matches(platform, arch === 'x86_64' ? 'arm64' : 'x86_64'))
  const has = listed.length > 0 ? `it has ${listed.join(', ')}` : 'it has none that says what it is for'
  return new NestvmError('IMAGE_NO_PLATFORM', `${reference} has no image for linux/${architectures[arch]}: ${has}`, {
    hint: other ? `use --arch ${arch === 'x86_64' ? 'arm64' : 'x86_64'}` : undefined,
    details: { reference, arch, platforms: listed },
  })
}
