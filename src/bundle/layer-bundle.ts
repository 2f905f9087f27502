import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Arch } from '../host/arch.ts'
import { type GuestFiles, guestIn } from './guest/guest.ts'
import { readLayerRecord } from './guest/layer-record.ts'
import { type Tools, toolsInLayer } from './tools.ts'

/**
 * A mounted guest-hypervisor layer, which a guest hypervisor has at /hypervisor, as a bundle: it holds all of one, and
 * what it is mounted from is the disk that the guests get which are to be hypervisors. Undefined where `dir` is none,
 * or one of another recipe.
 */
export async function layerBundle(
  dir: string,
  arch: Arch,
  recipe: string,
): Promise<{ digest: string; tools: Tools; guest: GuestFiles } | undefined> {
  const record = await readLayerRecord(dir)
  if (record?.recipe !== recipe || record.arch !== arch) return undefined
  const device = mountSource(await readFile('/proc/self/mountinfo', 'utf8'), dir)
  const guest = guestIn(join(dir, 'boot'), arch, record, device)
  return { digest: record.digest, tools: toolsInLayer(dir, arch), guest }
}

/** What the file system at a mount point is mounted from, by proc_pid_mountinfo(5). */
export function mountSource(mountinfo: string, mountPoint: string): string | undefined {
  const lines = mountinfo.split('\n').filter((line) => line.split(' ')[4] === mountPoint)
  // What was mounted last hides the others.
  const [, source] = lines.at(-1)?.split(' - ')[1]?.split(' ') ?? []
  return source
}
