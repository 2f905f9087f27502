import type { Arch } from '../host/arch.ts'
import { type Bundle, bundleOf } from './bundle.ts'
import { type CopyRequest, ensureCopy } from './copy.ts'
import { type ContentDirectory, readDirectory } from './manifest.ts'

/**
 * The bundle on another host of this host's architecture, copied there first where it is not there yet. Its directories
 * are named by digests of what is in them. Throws `COPY_FAILED`, or the signal's reason.
 */
export async function ensureRemoteBundle(
  bundle: Bundle,
  hostArch: Arch,
  request: Omit<CopyRequest, 'tools'>,
): Promise<Bundle> {
  const parts: ContentDirectory[] = []
  for (const dir of bundle.dirs) {
    const { manifest } = await readDirectory(dir)
    const copied = { dir, files: manifest.files, record: 'manifest.json' }
    parts.push({ dir: await ensureCopy(copied, { ...request, tools: bundle.tools }), manifest })
  }
  return bundleOf(parts, hostArch, bundle.arch)
}
