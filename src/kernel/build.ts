import { copyFile, mkdir, rm } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import {
  type ContentDirectory,
  createDirectory,
  currentDirectory,
  findDirectory,
  type Inputs,
  useDirectory,
} from '../bundle/manifest.ts'
import { type PackageRequest, PackageSources } from '../bundle/packages.ts'
import { checkSpace, explainFullDisk } from '../bundle/space.ts'
import { checkDpkgDeb } from '../bundle/unpack.ts'
import type { Arch } from '../host/arch.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { cachePaths, dataPaths, statePaths } from '../store/paths.ts'
import { removeLeftovers, removeTree, temporaryName } from '../store/write.ts'
import { compile } from './compile.ts'
import { kernelFileNames } from './files.ts'
import { kernelInputs, kernelName, recipeOf } from './identity.ts'
import { fetchPrebuilt } from './prebuilt.ts'
import type { Profile } from './profile.ts'
import { compilerSuite, toolchainPackages } from './toolchain.ts'

export interface BuildRequest extends PackageRequest {
  hostArch: Arch
  profile: Profile
  /** Compilers at once; as many as the host has processors unless said. */
  jobs?: number
  /** Ask the mirror for newer packages even though there is a kernel of this profile. */
  refresh?: boolean
  /** Take none that was built elsewhere. */
  fromSource?: boolean
  /** Told why a ready-made kernel was not taken. */
  onNote?: (line: string) => void
}

export interface Built {
  kernel: ContentDirectory
  how: 'present' | 'fetched' | 'built'
}

/**
 * The kernel of a profile, which is got or built where it is not there: that takes minutes to an hour and 2 GB for the
 * while. Safe to call from several processes at once. Throws what `ensureBundle` throws about packages,
 * `UNSUPPORTED_ARCH`, `BAD_PROFILE`, `KERNEL_PATCH`, `KERNEL_CONFIG`, `KERNEL_BUILD_FAILED`, `KERNEL_DIGEST`, or the
 * signal's reason; then nothing is left but downloads in the cache and the log.
 */
export async function buildKernel(request: BuildRequest): Promise<Built> {
  const { profile, hostArch, refresh, progress, signal } = request
  if (profile.arch !== hostArch) {
    throw new NestvmError('UNSUPPORTED_ARCH', `a kernel for ${profile.arch} is built on a host of that architecture`, {
      hint: 'build it there, and take it from there by NESTVM_KERNEL_URL',
      details: { arch: profile.arch, hostArch },
    })
  }
  const present = refresh ? undefined : await currentKernel(profile)
  if (present) return { kernel: present, how: 'present' }
  const onWait = ({ pid }: { pid: number }) =>
    progress?.({ phase: 'wait', label: `another build of a kernel, process ${pid}`, bytesDone: 0 })
  return withLock(lockPath(), () => build(request), { onWait, signal, timeoutMs: 6 * 60 * 60_000 })
}

/** The kernel of a profile, if it is there, whole, and made from the profile as it is now. */
export async function currentKernel(profile: Profile): Promise<ContentDirectory | undefined> {
  return currentDirectory('kernel', profile.arch, recipeOf(profile), { variant: profile.name })
}

/** Where the packages and the build's files are during a build; packages stay for the next one. */
const workDir = () => join(cachePaths().dir, 'kernel-work')
const lockPath = () => join(dataPaths().bundle, 'kernel-lock')

/** Removes what builds have left in the cache, unless one is under way. */
export async function pruneKernelWork(): Promise<void> {
  const remove = () => removeTree(workDir())
  await withLock(lockPath(), remove, { timeoutMs: 0 }).catch((error: unknown) => {
    if (!(error instanceof NestvmError) || error.code !== 'LOCK_TIMEOUT') throw error
  })
}

async function build(request: BuildRequest): Promise<Built> {
  const { profile, hostArch, machine, refresh, progress, signal } = request
  const made = refresh ? undefined : await currentKernel(profile)
  if (made) return { kernel: made, how: 'present' }
  await checkDpkgDeb(machine, signal)
  for (const dir of [workDir(), dirname(workDir()), dataPaths().bundle]) await removeLeftovers(dir)
  const scratch = temporaryName(join(workDir(), 'build'))
  try {
    await mkdir(scratch, { recursive: true, mode: 0o700 })
    await checkSpace('kernel', { bundle: dataPaths().bundle, work: scratch })
    // An apt for each: a compiler and a source of one release could not be had with those of another otherwise.
    const compiler = new PackageSources(request, join(workDir(), compilerSuite), scratch, [compilerSuite])
    const linux = new PackageSources(request, join(workDir(), profile.suite), join(scratch, 'source'), [profile.suite])
    const tools = await compiler.plan(hostArch, toolchainPackages(hostArch))
    const source = await linux.planAlone(hostArch, [profile.source])
    const inputs = kernelInputs(profile, [...source, ...tools])
    const found = await findDirectory(inputs)
    if (found) {
      await useDirectory({ ...found, manifest: { ...found.manifest, profile: profile.name } })
      return { kernel: found, how: 'present' }
    }
    const dir = join(scratch, 'kernel')
    await mkdir(dir)
    const fetched = request.fromSource ? undefined : await fetchPrebuilt({ ...request, inputs, scratch, dir })
    if (fetched) return { kernel: await keep(inputs, dir, fetched.release), how: 'fetched' }

    await mkdir(join(scratch, 'source'))
    await linux.get([{ arch: hostArch, packages: source }])
    await compiler.get([{ arch: hostArch, packages: tools }])
    await mkdir(statePaths().kernelLogs, { recursive: true, mode: 0o700 })
    const log = join(statePaths().kernelLogs, `${kernelName(inputs)}.log`)
    await rm(log, { force: true })
    const { release } = await compile({
      ...{ machine, profile, inputs, scratch, dir, log, progress, signal },
      ...{ source: linux.unpacked(hostArch), tools: compiler.unpacked(hostArch) },
      jobs: request.jobs ?? availableParallelism(),
    })
    return { kernel: await keep(inputs, dir, release), how: 'built' }
  } catch (cause) {
    signal?.throwIfAborted()
    throw explainFullDisk(cause)
  } finally {
    await removeTree(scratch)
  }
}

/** Makes a content directory of the files in `from`, the one in use for its profile. */
async function keep(inputs: Inputs, from: string, kernelRelease: string): Promise<ContentDirectory> {
  const fill = async (dir: string) => {
    for (const name of kernelFileNames) await copyFile(join(from, name), join(dir, name))
    return { kernelRelease }
  }
  // What removes directories that nothing points to holds this lock.
  return withLock(
    join(dataPaths().bundle, 'lock'),
    async () => {
      const kernel = await createDirectory(inputs, fill)
      await useDirectory(kernel)
      return kernel
    },
    { timeoutMs: 60 * 60_000 },
  )
}
