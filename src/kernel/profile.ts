import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { parse } from 'smol-toml'
import * as z from 'zod'
import { type EngineName, engineNames } from '../engine/capability.ts'
import { type Arch, arches } from '../host/arch.ts'
import { errorCode } from '../store/errno.ts'
import { NestvmError } from '../store/error.ts'
import { configPaths } from '../store/paths.ts'

/** A file of a profile, with what is in it. */
export interface ProfileFile {
  path: string
  text: string
}

/** What decides a kernel, read from its file and those that it names. */
export interface Profile {
  name: string
  path: string
  description: string
  arch: Arch
  /** Debian's release, which the compiler comes from too. */
  suite: string
  /** The package of Linux's source: `linux-source-6.1`. */
  source: string
  /** What the fragments are merged into: a target of make, or a file. */
  base: { target: string } | { file: ProfileFile }
  /** In their order: a later one's lines count. */
  fragments: readonly ProfileFile[]
  patches: readonly ProfileFile[]
  /** Added to the guests' kernel command lines; no part of the kernel. */
  arguments: string
  /** The only engine that the kernel is meant for. */
  engine?: EngineName
  /** Where the kernel can be had ready-made; `{name}` stands for its name. */
  prebuilt?: { url: string; sha256?: string }
}

const targets = ['allnoconfig', 'tinyconfig', 'defconfig'] as const

const profileSchema = z.strictObject({
  description: z.string().default(''),
  arch: z.enum(arches),
  suite: z.string().regex(/^[a-z]+(-backports)?$/),
  source: z.string().regex(/^linux-source-\d+\.\d+$/),
  /** Paths are relative to the profile, and have a slash or a dot. */
  base: z.enum(targets).or(z.string().regex(/[./]/)),
  fragments: z.array(z.string()).default([]),
  patches: z.array(z.string()).default([]),
  arguments: z
    .string()
    .regex(/^[^\n]*$/)
    .default(''),
  engine: z.enum(engineNames).optional(),
  prebuilt: z
    .strictObject({
      url: z.url(),
      sha256: z
        .string()
        .regex(/^[0-9a-f]{64}$/)
        .optional(),
    })
    .optional(),
})

/**
 * A profile by its name, the user's own before the built-in ones, or by the path of its file. Throws `NO_SUCH_PROFILE`
 * and `BAD_PROFILE`.
 */
export async function loadProfile(nameOrPath: string): Promise<Profile> {
  const path = isPath(nameOrPath) ? resolve(nameOrPath) : await profilePath(nameOrPath)
  const text = await readFile(path, 'utf8').catch(() => undefined)
  if (text !== undefined) return readProfile(path, text)
  const names = await profileNames()
  throw new NestvmError('NO_SUCH_PROFILE', `there is no kernel profile ${nameOrPath}`, {
    hint: `there are ${names.join(', ')}; your own are files NAME.toml in ${configPaths().profiles}, or named by a path`,
    details: { profile: nameOrPath, profiles: names },
    exitStatus: 2,
  })
}

/** The names of the built-in profiles and of the user's own. */
export async function profileNames(): Promise<string[]> {
  const dirs = [configPaths().profiles, builtInProfiles()]
  const files = (await Promise.all(dirs.map((dir) => readdir(dir).catch(() => [])))).flat()
  const names = files.filter((file) => file.endsWith('.toml')).map((file) => basename(file, '.toml'))
  return [...new Set(names)].sort()
}

const isPath = (text: string) => text.includes('/') || text.endsWith('.toml')

async function profilePath(name: string): Promise<string> {
  const own = join(configPaths().profiles, `${name}.toml`)
  return existsSync(own) ? own : join(builtInProfiles(), `${name}.toml`)
}

/** In the package, beside the directory of the program. */
function builtInProfiles(): string {
  let dir = import.meta.dirname
  while (!existsSync(join(dir, 'package.json')) && dir !== dirname(dir)) dir = dirname(dir)
  return join(dir, 'profiles')
}

async function readProfile(path: string, text: string): Promise<Profile> {
  const name = basename(path, '.toml')
  if (!/^[a-z0-9][a-z0-9._-]*$/.test(name) || name === 'default') {
    throw badProfile(path, 'its name has to be of small letters, digits, dots and hyphens, and not default')
  }
  const result = profileSchema.safeParse(parseToml(path, text))
  if (!result.success) throw badProfile(path, z.prettifyError(result.error))
  const { base, fragments, patches, ...given } = result.data
  const file = (relative: string) => readPart(path, resolve(dirname(path), relative))
  return {
    ...{ name, path, ...given },
    base: targets.some((target) => target === base) ? { target: base } : { file: await file(base) },
    fragments: await Promise.all(fragments.map(file)),
    patches: await Promise.all(patches.map(file)),
  }
}

function parseToml(path: string, text: string): unknown {
  try {
    return parse(text)
  } catch (error) {
    throw badProfile(path, error instanceof Error ? error.message : String(error))
  }
}

async function readPart(profile: string, path: string): Promise<ProfileFile> {
  try {
    return { path, text: await readFile(path, 'utf8') }
  } catch (error) {
    throw badProfile(profile, `${path}, which it names, cannot be read: ${errorCode(error)}`)
  }
}

function badProfile(path: string, why: string): NestvmError {
  return new NestvmError('BAD_PROFILE', `the kernel profile ${path} cannot be used: ${why}`, {
    hint: 'docs/kernels.md says what a profile holds',
    details: { profile: path },
    exitStatus: 2,
  })
}
