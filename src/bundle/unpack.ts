import { access, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import type { DebianPackage } from './apt/plan.ts'
import type { Architecture } from './architecture.ts'

/** The unpacked packages of one architecture. */
export interface Unpacked {
  dir: string
  /** Where its shared libraries are. */
  libraryDirs: string[]
  architecture: Architecture
}

/** Unpacks packages next to each other, two at a time: xz uses one core per package. */
export async function unpack(
  machine: Machine,
  { packages, archives, dir, architecture }: UnpackRequest,
  { onBytes, signal }: { onBytes: (done: number) => void; signal?: AbortSignal },
): Promise<Unpacked> {
  // The kernel takes longest: begin with it.
  const queue = [...packages].sort((a, b) => b.size - a.size)
  let done = 0
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      await dpkgDeb(machine, ['-x', join(archives, next.file), dir], signal)
      done += next.size
      onBytes(done)
    }
  }
  const workers = [worker(), worker()]
  // While one still writes, the caller cannot remove the directory.
  await Promise.allSettled(workers)
  await Promise.all(workers)
  const libraryDirs = [`usr/lib/${architecture.triplet}`, `lib/${architecture.triplet}`, 'usr/lib', 'lib']
  return { dir, architecture, libraryDirs: libraryDirs.map((name) => join(dir, name)) }
}

interface UnpackRequest {
  packages: readonly DebianPackage[]
  archives: string
  dir: string
  architecture: Architecture
}

/** Throws `DPKG_DEB_MISSING`. To be asked before anything is downloaded. */
export async function checkDpkgDeb(machine: Machine, signal?: AbortSignal): Promise<void> {
  await dpkgDeb(machine, ['--version'], signal)
}

/** The first of the paths, relative to the packages' root, that is there: Debian moves files between / and /usr. */
export async function locate({ dir }: Unpacked, ...candidates: string[]): Promise<string> {
  for (const candidate of candidates) {
    const path = join(dir, candidate)
    if (
      await access(path).then(
        () => true,
        () => false,
      )
    )
      return path
  }
  throw new NestvmError('PACKAGE_UNAVAILABLE', `none of the packages has ${candidates.join(' or ')}`, {
    details: { files: candidates },
  })
}

/** The one name in a directory. */
export async function onlyName(dir: string): Promise<string> {
  const [name, ...others] = await readdir(dir)
  if (name === undefined || others.length > 0) throw new Error(`${dir} should hold one directory`)
  return name
}

async function dpkgDeb(machine: Machine, args: readonly string[], signal?: AbortSignal): Promise<void> {
  try {
    await run(machine, ['dpkg-deb', ...args], { signal, timeoutMs: 5 * 60_000, env: { LC_ALL: 'C.UTF-8' } })
  } catch (error) {
    if (!(error instanceof NestvmError) || error.code !== 'NOT_FOUND') throw error
    throw new NestvmError(
      'DPKG_DEB_MISSING',
      'dpkg-deb, which unpacks the packages of the bundle, is not on this host',
      {
        hint: 'install dpkg, which most distributions carry, or run nestvm on Debian or Ubuntu',
        cause: error,
      },
    )
  }
}
