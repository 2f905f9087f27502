import { basename } from 'node:path'
import type { ContentDirectory, KernelChoice } from '../bundle/manifest.ts'
import { type EngineName, engines } from '../engine/capability.ts'
import type { Arch } from '../host/arch.ts'
import { NestvmError } from '../store/error.ts'
import { currentKernel } from './build.ts'
import { loadProfile, type Profile } from './profile.ts'

/**
 * The kernel of a profile for guests of an architecture, undefined for `default`, which is Debian's. Throws
 * `KERNEL_NOT_BUILT`, `UNSUPPORTED_ARCH`, `UNSUPPORTED` for another engine, `NO_SUCH_PROFILE`, `BAD_PROFILE`.
 */
export async function chosenKernel(name: string, arch: Arch, engine?: EngineName): Promise<KernelChoice | undefined> {
  if (name === 'default') return undefined
  const profile = await loadProfile(name)
  if (profile.arch !== arch) {
    throw new NestvmError('UNSUPPORTED_ARCH', `the kernel profile ${name} is for ${profile.arch}, not for ${arch}`, {
      hint: `add --arch ${profile.arch}, or name another profile`,
      details: { profile: profile.path, arch },
      exitStatus: 2,
    })
  }
  if (profile.engine !== undefined && engine !== undefined && profile.engine !== engine) {
    throw new NestvmError('UNSUPPORTED', `the kernel profile ${name} is for ${engines[profile.engine].title}`, {
      hint: `add --engine ${profile.engine}, or name another profile`,
      details: { profile: profile.path, engine },
      exitStatus: 2,
    })
  }
  const { dir } = await builtKernelOf(profile, name)
  return { name: basename(dir), arguments: profile.arguments }
}

/** Throws `KERNEL_NOT_BUILT`. */
export async function builtKernelOf(profile: Profile, called: string): Promise<ContentDirectory> {
  const kernel = await currentKernel(profile)
  if (kernel) return kernel
  throw new NestvmError('KERNEL_NOT_BUILT', `the kernel of the profile ${called}, as it is now, is not there`, {
    hint: `nestvm kernel build ${called}`,
    details: { profile: profile.path },
  })
}
