import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { NestvmError } from '../store/error.ts'
import { cachePaths, dataPaths } from '../store/paths.ts'
import { removeLeftovers, removeTree, temporaryName } from '../store/write.ts'
import { type Arch, architecture, guestPackages, hostTools } from './architecture.ts'
import { fillGuest } from './guest/guest.ts'
import {
  type ContentDirectory,
  createDirectory,
  currentDirectory,
  digestOf,
  findDirectory,
  type Inputs,
  useDirectory,
} from './manifest.ts'
import { type PackageRequest, PackageSources } from './packages.ts'
import { checkSpace, explainFullDisk } from './space.ts'
import { fillTools, toolsIn } from './tools.ts'
import { checkDpkgDeb } from './unpack.ts'

export interface SetupRequest extends PackageRequest {
  hostArch: Arch
  guestArch: Arch
  /** Ask the mirror for newer packages even though there is a bundle. */
  refresh?: boolean
  /** Leave what was downloaded in the cache, for the next set-up. */
  keepPackages?: boolean
}

/** What nestvm itself puts in, by digest: a directory made by another recipe has to be made again. */
export interface Recipes {
  tools: string
  guest: string
}

interface Parts {
  tools: ContentDirectory
  guest: ContentDirectory
}

/** Where apt's state and the unpacked packages are during a set-up. */
export function workDir(): string {
  return join(cachePaths().dir, 'bundle-work')
}

/** Makes what is not there yet, and makes it the bundle in use. The caller holds the bundle's lock. */
export async function setUp(request: SetupRequest, recipes: Recipes): Promise<Parts> {
  await checkDpkgDeb(request.machine, request.signal)
  for (const dir of [dataPaths().bundle, workDir(), dirname(workDir())]) await removeLeftovers(dir)
  const scratch = temporaryName(join(workDir(), 'build'))
  let keep = request.keepPackages === true
  try {
    await mkdir(scratch, { recursive: true, mode: 0o700 })
    await checkSpace({ bundle: dataPaths().bundle, work: scratch })
    const parts = await makeParts(request, recipes, scratch)
    await useDirectory(parts.tools)
    await useDirectory(parts.guest)
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

async function makeParts(request: SetupRequest, recipes: Recipes, scratch: string): Promise<Parts> {
  const { hostArch, guestArch, machine, signal } = request
  const sources = new PackageSources(request, workDir(), scratch)

  // Both plans come before the first download: what two parts share is downloaded and unpacked once.
  const kept = request.refresh ? undefined : await currentDirectory('tools', hostArch, recipes.tools)
  const toolsPlan = kept ?? (await planTools(sources, hostArch, recipes.tools))
  const guestPlan = await planGuest(sources, guestArch, recipes.guest)
  await sources.get(await missing('dir' in toolsPlan ? [guestPlan] : [toolsPlan, guestPlan]))

  const fillToolsDir = async (dir: string) => fillTools(sources.unpacked(hostArch), dir)
  const toolsDir = 'dir' in toolsPlan ? toolsPlan : await findOrCreate(request, toolsPlan, fillToolsDir)
  const tools = toolsIn(toolsDir.dir, hostArch)
  const build = { scratch, signal, recipe: guestPlan.recipe, digest: digestOf(guestPlan) }
  const fillGuestDir = async (dir: string) =>
    fillGuest({ ...build, machine, tools, packages: sources.unpacked(guestArch) }, guestArch, dir)
  return { tools: toolsDir, guest: await findOrCreate(request, guestPlan, fillGuestDir) }
}

async function planTools(sources: PackageSources, arch: Arch, recipe: string): Promise<Inputs> {
  const names = [...architecture(arch).emulatorPackages, ...hostTools.packages]
  return { kind: 'tools', arch, recipe, packages: await sources.plan(arch, names) }
}

async function planGuest(sources: PackageSources, arch: Arch, recipe: string): Promise<Inputs> {
  const { emulatorPackages, kernel } = architecture(arch)
  const names = new Set([...emulatorPackages, ...guestPackages, ...hostTools.packages])
  const programs = await sources.plan(arch, [...names])
  return { kind: 'guest', arch, recipe, packages: [...programs, ...(await sources.planKernel(arch, kernel))] }
}

async function missing(plans: readonly Inputs[]): Promise<Inputs[]> {
  const found = await Promise.all(plans.map(findDirectory))
  return plans.filter((_, index) => found[index] === undefined)
}

const labels = { tools: 'host tools', guest: 'guest images' }

async function findOrCreate(
  { progress, signal }: SetupRequest,
  inputs: Inputs,
  fill: (dir: string) => Promise<{ kernelRelease?: string }>,
): Promise<ContentDirectory> {
  const found = await findDirectory(inputs)
  if (found !== undefined) return found
  signal?.throwIfAborted()
  progress?.({ phase: 'build', label: `${labels[inputs.kind]} for ${inputs.arch}`, bytesDone: 0 })
  return createDirectory(inputs, fill)
}
