import { basename, dirname } from 'node:path'
import { type ContentDirectory, dropPointers, kernelDirectory, listKernels } from '../bundle/manifest.ts'
import { diskUsage } from '../bundle/report.ts'
import { NestvmError } from '../store/error.ts'
import { removeTree } from '../store/write.ts'
import { currentKernel } from './build.ts'
import { builtKernelOf } from './choice.ts'
import { loadProfile, profileNames } from './profile.ts'

export interface ListedKernel {
  /** Absent for a kernel whose profile is gone or was changed since. */
  profile?: string
  arch: string
  description?: string
  /** Why the profile cannot be used, where it cannot. */
  problem?: string
  /** Absent for a profile whose kernel is not there. */
  kernel?: { name: string; release: string; dir: string; bytes: number }
}

/** All profiles with their kernels, then kernels of no profile as it is now. */
export async function listProfiles(): Promise<ListedKernel[]> {
  const kernels = await listKernels()
  const used = new Set<string>()
  const listed: ListedKernel[] = []
  for (const name of await profileNames()) {
    const profile = await loadProfile(name).catch((error: unknown) =>
      error instanceof Error ? error.message : String(error),
    )
    if (typeof profile === 'string') {
      listed.push({ profile: name, arch: '', problem: profile })
      continue
    }
    const kernel = await currentKernel(profile)
    if (kernel) used.add(kernel.dir)
    const { arch, description } = profile
    listed.push({ profile: name, arch, description, kernel: kernel && (await described(kernel)) })
  }
  for (const kernel of kernels.filter(({ dir }) => !used.has(dir))) {
    listed.push({ arch: kernel.manifest.arch, kernel: await described(kernel) })
  }
  return listed
}

/** A kernel by its profile, its name or its directory. Throws `NO_SUCH_KERNEL`, `KERNEL_NOT_BUILT`, `NO_SUCH_PROFILE`. */
export async function findKernel(name: string): Promise<ContentDirectory> {
  const named = (await listKernels()).find(({ dir }) => basename(dir) === name)
  if (named) return named
  if (/^kernel-.*-[0-9a-f]{16}$/.test(basename(name))) return kernelDirectory(basename(name), dirname(name))
  return builtKernelOf(await loadProfile(name), name)
}

/**
 * Removes kernels, by their names, the beginnings of those, or their profiles'. Guests that run from them run on.
 * Returns the bytes that were freed. Throws `NO_SUCH_KERNEL`.
 */
export async function removeKernels(names: readonly string[]): Promise<number> {
  const kernels = await listKernels()
  const found = names.flatMap((name) => {
    const matching = kernels.filter(({ dir, manifest }) => manifest.profile === name || basename(dir).startsWith(name))
    if (matching.length > 0) return matching
    throw new NestvmError('NO_SUCH_KERNEL', `there is no kernel ${name}`, {
      hint: 'nestvm kernel ls',
      details: { kernel: name },
    })
  })
  let freed = 0
  for (const dir of new Set(found.map((kernel) => kernel.dir))) {
    freed += await diskUsage(dir)
    await dropPointers(basename(dir))
    await removeTree(dir)
  }
  return freed
}

async function described({ dir, manifest }: ContentDirectory): Promise<NonNullable<ListedKernel['kernel']>> {
  return { name: basename(dir), release: manifest.kernelRelease ?? '', dir, bytes: await diskUsage(dir) }
}
