import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'
import * as z from 'zod'
import type { Arch } from '../host/arch.ts'
import { NestvmError } from '../store/error.ts'
import { dataPaths } from '../store/paths.ts'
import { version } from '../store/version.ts'
import { readJson, removeTree, temporaryName, writeFileAtomic } from '../store/write.ts'
import type { DebianPackage } from './apt/plan.ts'

/**
 * A bundle consists of one directory of each kind: programs of the host's architecture; where guests have another one,
 * the host's emulator for them, by their architecture; what guests boot from. Where guests are to have an Intel
 * processor that is emulated, `bochs` has the emulator and what is particular to its guests. Kernels that were built are
 * directories, too: guest directories are made from them.
 */
const kinds = ['tools', 'emulator', 'guest', 'bochs', 'kernel'] as const
export type Kind = (typeof kinds)[number]

/** A kernel that guests boot: the name of its directory, and what is added to its command line. */
export const kernelSchema = z.object({ name: z.string(), arguments: z.string() })
export type KernelChoice = z.infer<typeof kernelSchema>

const manifestSchema = z.object({
  schema: z.literal(1),
  kind: z.enum(kinds),
  arch: z.string(),
  /** Of everything that went in: the recipe and the packages. */
  digest: z.string(),
  /** Of what nestvm itself put in: tables and scripts. Known without asking apt. */
  recipe: z.string(),
  packages: z.array(z.object({ name: z.string(), version: z.string(), arch: z.string(), sha256: z.string() })),
  files: z.array(z.object({ path: z.string(), size: z.int(), sha256: z.string() })),
  /** `uname -r` of the guest's kernel. */
  kernelRelease: z.string().optional(),
  /** Of a guest directory: the kernel that it has in the place of Debian's. */
  kernel: kernelSchema.optional(),
  /** Of a kernel: its profile's name. */
  profile: z.string().optional(),
  createdBy: z.string(),
})

type Manifest = z.infer<typeof manifestSchema>

const pointerSchema = z.object({
  schema: z.literal(1),
  directory: z.string().refine((name) => parseDirectoryName(name) !== undefined),
})

export interface ContentDirectory {
  dir: string
  manifest: Manifest
}

/** The directory in use, if it is whole and made by this recipe. Of those with a variant, there is one for each. */
export async function currentDirectory(
  kind: Kind,
  arch: Arch,
  recipe: string,
  { bundle = dataPaths().bundle, variant }: { bundle?: string; variant?: string } = {},
): Promise<ContentDirectory | undefined> {
  const pointer = await readJson(pointerPath({ kind, arch, variant }, bundle), pointerSchema).catch(() => undefined)
  if (pointer === undefined) return undefined
  const found = await readWhole(join(bundle, pointer.directory))
  return found?.manifest.recipe === recipe ? found : undefined
}

export interface Inputs {
  kind: Kind
  arch: Arch
  recipe: string
  packages: readonly DebianPackage[]
  kernel?: KernelChoice
  profile?: string
  /** Of a kernel: told in its directory's name. */
  version?: string
}

/** All whole kernels, and whether a profile's pointer names each. */
export async function listKernels(): Promise<(ContentDirectory & { current: boolean })[]> {
  const { bundle } = dataPaths()
  const inUse = await directoriesInUse()
  const names = (await readdir(bundle).catch(() => [])).filter((name) => name.startsWith('kernel-')).sort()
  const found = await Promise.all(names.map((name) => readWhole(join(bundle, name))))
  return found.flatMap((kernel) => (kernel ? [{ ...kernel, current: inUse.has(basename(kernel.dir)) }] : []))
}

/** The directory made from just these inputs, if it is whole. */
export async function findDirectory(inputs: Inputs): Promise<ContentDirectory | undefined> {
  return readWhole(directoryOf(inputs))
}

/** A kernel that was built, by the name of its directory. Throws `NO_SUCH_KERNEL`. */
export async function kernelDirectory(name: string, bundle = dataPaths().bundle): Promise<ContentDirectory> {
  const found = /^kernel-[\w.+~-]+$/.test(name) ? await readWhole(join(bundle, name)) : undefined
  if (found) return found
  throw new NestvmError('NO_SUCH_KERNEL', `there is no kernel ${name} any more`, {
    hint: 'nestvm kernel ls',
    details: { kernel: name },
  })
}

/** One that is there. Throws `BAD_RECORD`. */
export async function readDirectory(dir: string): Promise<ContentDirectory> {
  const found = await readWhole(dir)
  if (found) return found
  throw new NestvmError('BAD_RECORD', `${dir} is not whole`, { hint: 'nestvm setup' })
}

/** Makes the directory of these inputs: `fill` gets an empty one, which shows under its name only when it is whole. */
export async function createDirectory(
  inputs: Inputs,
  fill: (dir: string) => Promise<{ kernelRelease?: string }>,
): Promise<ContentDirectory> {
  const { kind, arch, recipe } = inputs
  const dir = directoryOf(inputs)
  const staged = temporaryName(dir)
  try {
    await mkdir(staged, { recursive: true, mode: 0o700 })
    const { kernelRelease } = await fill(staged)
    const manifest: Manifest = {
      schema: 1,
      kind,
      arch,
      digest: digestOf(inputs),
      recipe,
      packages: packagesOf(inputs),
      files: await listFiles(staged),
      kernelRelease,
      ...(inputs.kernel ? { kernel: inputs.kernel } : {}),
      ...(inputs.profile ? { profile: inputs.profile } : {}),
      createdBy: `nestvm ${version}`,
    }
    await writeFileAtomic(join(staged, 'manifest.json'), `${JSON.stringify(manifest, undefined, 1)}\n`)
    // One that is there is not whole.
    await removeTree(dir)
    await rename(staged, dir)
    return { dir, manifest }
  } catch (error) {
    await removeTree(staged)
    throw error
  }
}

/** Makes it the one that `currentDirectory` gives. */
export async function useDirectory({ dir, manifest }: ContentDirectory): Promise<void> {
  const { kind, arch, kernel, profile } = manifest
  const pointer = { schema: 1, directory: basename(dir) }
  const variant = profile ?? (kernel && kernelVariant(kernel))
  await writeFileAtomic(pointerPath({ kind, arch, variant }), `${JSON.stringify(pointer)}\n`)
}

/** The variant of guest directories with this kernel. */
export function kernelVariant(kernel: KernelChoice): string {
  return sha256(JSON.stringify(kernel)).slice(0, 12)
}

/** The names of the directories that pointers name. */
export async function directoriesInUse(): Promise<Set<string>> {
  return new Set((await pointers()).map(({ directory }) => directory))
}

/** Removes the pointers to a directory, so that nothing new is started from it. */
export async function dropPointers(directory: string): Promise<void> {
  const named = (await pointers()).filter((pointer) => pointer.directory === directory)
  for (const { path } of named) await rm(path, { force: true })
}

/** Removes the pointers to guest directories with a kernel that no pointer names. */
export async function dropOldGuests(): Promise<void> {
  const inUse = await directoriesInUse()
  for (const { path, directory } of await pointers()) {
    const kernel = (await readWhole(join(dataPaths().bundle, directory)))?.manifest.kernel
    if (kernel && !inUse.has(kernel.name)) await rm(path, { force: true })
  }
}

async function pointers(): Promise<{ path: string; directory: string }[]> {
  const { bundle } = dataPaths()
  const paths = (await readdir(bundle).catch(() => [])).filter(isPointer).map((name) => join(bundle, name))
  const read = paths.map(async (path) => {
    const pointer = await readJson(path, pointerSchema).catch(() => undefined)
    return pointer ? [{ path, directory: pointer.directory }] : []
  })
  return (await Promise.all(read)).flat()
}

export function isPointer(name: string): boolean {
  return /^current-.*\.json$/.test(name)
}

/** Undefined for other files; the digest is cut short. */
export function parseDirectoryName(name: string): { kind: string; arch: string; digest: string } | undefined {
  const [, kind, arch, digest] =
    /^(tools|emulator|guest|bochs|kernel)(?:-[\w.+~-]+)?-(\w+)-([0-9a-f]+)$/.exec(name) ?? []
  return kind && arch && digest ? { kind, arch, digest } : undefined
}

export function sha256(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex')
}

function directoryOf(inputs: Inputs): string {
  return join(dataPaths().bundle, directoryName(inputs))
}

/** Tells what is in it: kind, version where there is one, architecture and the beginning of the digest. */
export function directoryName(inputs: Inputs): string {
  const { kind, version, arch } = inputs
  return [kind, ...(version ? [version] : []), arch, digestOf(inputs).slice(0, 16)].join('-')
}

/** Of all that goes into a directory. */
export function digestOf(inputs: Inputs): string {
  return sha256(JSON.stringify({ recipe: inputs.recipe, packages: packagesOf(inputs), kernel: inputs.kernel }))
}

function packagesOf(inputs: Inputs): Manifest['packages'] {
  return inputs.packages.map(({ name, version, arch, sha256 }) => ({ name, version, arch, sha256 }))
}

function pointerPath(
  { kind, arch, variant }: { kind: Kind; arch: string; variant?: string },
  bundle = dataPaths().bundle,
): string {
  return join(bundle, `current-${[kind, arch, ...(variant ? [variant] : [])].join('-')}.json`)
}

/**
 * Undefined unless every file has its size. After a loss of power a file may be shorter than it was: rename orders
 * nothing, and to sync a hundred megabytes would slow every set-up.
 */
async function readWhole(dir: string): Promise<ContentDirectory | undefined> {
  const manifest = await readJson(join(dir, 'manifest.json'), manifestSchema).catch(() => undefined)
  if (manifest === undefined) return undefined
  const sizes = await Promise.all(manifest.files.map(({ path }) => sizeOf(join(dir, path))))
  return manifest.files.every(({ size }, index) => sizes[index] === size) ? { dir, manifest } : undefined
}

async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    ({ size }) => size,
    () => undefined,
  )
}

async function listFiles(dir: string): Promise<Manifest['files']> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true })
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
  const files = paths.sort().map(async (path) => {
    const data = await readFile(path)
    return { path: relative(dir, path), size: data.length, sha256: sha256(data) }
  })
  return Promise.all(files)
}
