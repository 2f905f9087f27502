import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, stat } from 'node:fs/promises'
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
 * processor that is emulated, `bochs` has the emulator and what is particular to its guests.
 */
const kinds = ['tools', 'emulator', 'guest', 'bochs'] as const
export type Kind = (typeof kinds)[number]

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

/** The directory in use, if it is whole and made by this recipe. */
export async function currentDirectory(
  kind: Kind,
  arch: Arch,
  recipe: string,
  bundle = dataPaths().bundle,
): Promise<ContentDirectory | undefined> {
  const pointer = await readJson(pointerPath(kind, arch, bundle), pointerSchema).catch(() => undefined)
  if (pointer === undefined) return undefined
  const found = await readWhole(join(bundle, pointer.directory))
  return found?.manifest.recipe === recipe ? found : undefined
}

export interface Inputs {
  kind: Kind
  arch: Arch
  recipe: string
  packages: readonly DebianPackage[]
}

/** The directory made from just these inputs, if it is whole. */
export async function findDirectory(inputs: Inputs): Promise<ContentDirectory | undefined> {
  return readWhole(directoryOf(inputs))
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
  const pointer = { schema: 1, directory: basename(dir) }
  await writeFileAtomic(pointerPath(manifest.kind, manifest.arch), `${JSON.stringify(pointer)}\n`)
}

/** The names of the directories that pointers name. */
export async function directoriesInUse(): Promise<Set<string>> {
  const { bundle } = dataPaths()
  const pointers = (await readdir(bundle).catch(() => [])).filter(isPointer)
  const read = pointers.map((name) => readJson(join(bundle, name), pointerSchema).catch(() => undefined))
  return new Set((await Promise.all(read)).flatMap((pointer) => pointer?.directory ?? []))
}

export function isPointer(name: string): boolean {
  return /^current-.*\.json$/.test(name)
}

/** Undefined for other files; the digest is cut short. */
export function parseDirectoryName(name: string): { kind: string; arch: string; digest: string } | undefined {
  const [, kind, arch, digest] = /^(tools|emulator|guest|bochs)-(\w+)-([0-9a-f]+)$/.exec(name) ?? []
  return kind && arch && digest ? { kind, arch, digest } : undefined
}

export function sha256(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex')
}

function directoryOf(inputs: Inputs): string {
  return join(dataPaths().bundle, `${inputs.kind}-${inputs.arch}-${digestOf(inputs).slice(0, 16)}`)
}

/** Of all that goes into a directory. */
export function digestOf(inputs: Inputs): string {
  return sha256(JSON.stringify({ recipe: inputs.recipe, packages: packagesOf(inputs) }))
}

function packagesOf(inputs: Inputs): Manifest['packages'] {
  return inputs.packages.map(({ name, version, arch, sha256 }) => ({ name, version, arch, sha256 }))
}

function pointerPath(kind: Kind, arch: string, bundle = dataPaths().bundle): string {
  return join(bundle, `current-${kind}-${arch}.json`)
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
