import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Arch } from '../host/arch.ts'
import { NestvmError } from '../store/error.ts'
import { cachePaths, dataPaths } from '../store/paths.ts'
import { removeLeftovers, removeTree, temporaryName } from '../store/write.ts'
import { architecture, guestPackages, hostTools } from './architecture.ts'
import { fillGuest } from './guest/guest.ts'
import { builtKernel } from './guest/kernel.ts'
import {
  type ContentDirectory,
  createDirectory,
  currentDirectory,
  digestOf,
  findDirectory,
  type Inputs,
  type KernelChoice,
  type Kind,
  kernelDirectory,
  useDirectory,
} from './manifest.ts'
import { type PackageRequest, PackageSources } from './packages.ts'
import { checkSpace, explainFullDisk } from './space.ts'
import { fillEmulator, fillTools, toolsIn } from './tools.ts'
import { checkDpkgDeb } from './unpack.ts'

export interface SetupRequest extends PackageRequest {
  hostArch: Arch
  guestArch: Arch
  /** Ask the mirror for newer packages even though there is a bundle. */
  refresh?: boolean
  /** A kernel that was built, for the guests to have in the place of Debian's. */
  kernel?: KernelChoice
  /** Leave what was downloaded in the cache, for the next set-up. */
  keepPackages?: boolean
}

/** What nestvm itself puts in, by digest: a directory made by another recipe has to be made again. */
export type Recipes = Record<'tools' | 'emulator' | 'guest', string>

/** Where apt's state and the unpacked packages are during a set-up. */
export function workDir(): string {
  return join(cachePaths().dir, 'bundle-work')
}

/** Makes what is not there yet, and makes it the bundle in use. The caller holds the bundle's lock. */
export async function setUp(request: SetupRequest, recipes: Recipes): Promise<ContentDirectory[]> {
  const space = request.hostArch === request.guestArch ? 'native' : 'foreign'
  return inWorkDir(request, space, (scratch) => makeParts(request, recipes, scratch))
}

/** Makes directories, given one for what is intermediate, and makes them those in use. */
export async function inWorkDir(
  request: Pick<SetupRequest, 'machine' | 'signal' | 'keepPackages'>,
  space: Parameters<typeof checkSpace>[0],
  make: (scratch: string) => Promise<ContentDirectory[]>,
): Promise<ContentDirectory[]> {
  await checkDpkgDeb(request.machine, request.signal)
  for (const dir of [dataPaths().bundle, workDir(), dirname(workDir())]) await removeLeftovers(dir)
  const scratch = temporaryName(join(workDir(), 'build'))
  let keep = request.keepPackages === true
  try {
    await mkdir(scratch, { recursive: true, mode: 0o700 })
    await checkSpace(space, { bundle: dataPaths().bundle, work: scratch })
    const parts = await make(scratch)
    for (const part of parts) await useDirectory(part)
    return parts
  } catch (cause) {
    const error = explainFullDisk(cause)
    keep ||= request.signal?.aborted === true || (error instanceof NestvmError && resumable.has(error.code))
    request.signal?.throwIfAborted()
    throw error
  } finally {
    await removeTree(keep ? scratch : workDir())
  }
}

/** After these, what was downloaded is of use to the next try; after others it is in the way, or not to be trusted. */
const resumable = new Set(['MIRROR_UNREACHABLE', 'DOWNLOAD_CORRUPT', 'DPKG_DEB_MISSING'])

async function makeParts(request: SetupRequest, recipes: Recipes, scratch: string): Promise<ContentDirectory[]> {
  const { hostArch, guestArch, kernel, machine, signal } = request
  const sources = new PackageSources(request, workDir(), scratch)
  const planHost = async (kind: 'tools' | 'emulator', arch: Arch, names: readonly string[]) => {
    const kept = request.refresh ? undefined : await currentDirectory(kind, arch, recipes[kind])
    return kept ?? { kind, arch, recipe: recipes[kind], packages: await sources.plan(hostArch, names) }
  }

  // All plans come before the first download: what parts share is downloaded and unpacked once.
  const { emulatorPackages } = architecture(guestArch)
  const toolsPlan = await planHost('tools', hostArch, [
    ...architecture(hostArch).emulatorPackages,
    ...hostTools.packages,
  ])
  const emulatorPlan = guestArch === hostArch ? undefined : await planHost('emulator', guestArch, emulatorPackages)
  const guestPlan = await planGuest(sources, guestArch, recipes.guest, kernel)
  const plans = [toolsPlan, emulatorPlan, guestPlan].flatMap((plan) => (plan && !('dir' in plan) ? [plan] : []))
  const wanted = (await missing(plans)).map(({ kind, packages }) => {
    return { arch: kind === 'guest' ? guestArch : hostArch, packages }
  })
  await sources.get(wanted)

  const fillToolsDir = async (dir: string) => fillTools(sources.unpacked(hostArch), dir)
  const toolsDir = await findOrCreate(request, toolsPlan, fillToolsDir)
  const fillEmulatorDir = async (dir: string) => fillEmulator(sources.unpacked(hostArch), guestArch, dir)
  const emulatorDir = emulatorPlan && (await findOrCreate(request, emulatorPlan, fillEmulatorDir))
  const tools = toolsIn(toolsDir.dir, hostArch)
  const own = kernel && (await builtKernel(await kernelDirectory(kernel.name)))
  const identity = { recipe: guestPlan.recipe, digest: digestOf(guestPlan), choice: kernel }
  const build = { scratch, signal, ...identity, kernel: own }
  const fillGuestDir = async (dir: string) =>
    fillGuest({ ...build, machine, tools, packages: sources.unpacked(guestArch) }, guestArch, dir)
  const guestDir = await findOrCreate(request, guestPlan, fillGuestDir)
  return [toolsDir, ...(emulatorDir ? [emulatorDir] : []), guestDir]
}

async function planGuest(
  sources: PackageSources,
  arch: Arch,
  recipe: string,
  own: KernelChoice | undefined,
): Promise<Inputs> {
  const { emulatorPackages, kernel } = architecture(arch)
  const names = new Set([...emulatorPackages, ...guestPackages, ...hostTools.packages])
  const programs = await sources.plan(arch, [...names])
  const kernels = own ? [] : await sources.planKernel(arch, kernel)
  return { kind: 'guest', arch, recipe, packages: [...programs, ...kernels], kernel: own }
}

async function missing(plans: readonly Inputs[]): Promise<Inputs[]> {
  const found = await Promise.all(plans.map(findDirectory))
  return plans.filter((_, index) => found[index] === undefined)
}

const labels: Record<Kind, string> = {
  tools: 'host tools',
  emulator: 'emulator',
  guest: 'guest images',
  bochs: 'Bochs and its kernel',
  kernel: 'kernel',
}

export async function findOrCreate(
  { progress, signal }: Pick<SetupRequest, 'progress' | 'signal'>,
  inputs: Inputs | ContentDirectory,
  fill: (dir: string) => Promise<{ kernelRelease?: string }>,
): Promise<ContentDirectory> {
  if ('dir' in inputs) return inputs
  const found = await findDirectory(inputs)
  if (found !== undefined) return found
  signal?.throwIfAborted()
  progress?.({ phase: 'build', label: `${labels[inputs.kind]} for ${inputs.arch}`, bytesDone: 0 })
  return createDirectory(inputs, fill)
}
