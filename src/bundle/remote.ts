import type { Arch } from './architecture.ts'
import { type Bundle, bundleOf } from './bundle.ts'
import { type CopyRequest, ensureCopy } from './copy.ts'
import { readDirectory } from './manifest.ts'

/**
 * The bundle on another host, copied there first where it is not there yet. Its directories are named by digests of
 * what is in them. Throws `COPY_FAILED`, or the signal's reason.
 */
export async function ensureRemoteBundle(
  bundle: Bundle,
  arch: Arch,
  request: Omit<CopyRequest, 'tools'>,
): Promise<Bundle> {
  const copy = async (dir: string) => {
    const { manifest } = await readDirectory(dir)
    const copied = { dir, files: manifest.files, record: 'manifest.json' }
    return { dir: await ensureCopy(copied, { ...request, tools: bundle.tools }), manifest }
  }
  return bundleOf(await copy(bundle.tools.dir), await copy(bundle.guest.dir), arch, arch)
}
