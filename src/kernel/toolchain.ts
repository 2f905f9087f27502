import { mkdir, rename, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { architecture } from '../bundle/architecture.ts'
import { locate, type Unpacked } from '../bundle/unpack.ts'
import type { Arch } from '../host/arch.ts'
import { quote } from '../machine/quote.ts'

/**
 * What builds kernels: Debian's compiler, from packages that are only unpacked. Of the host it takes what every Debian
 * has (sh, sed, awk, grep, find, tar, gzip, perl), so that the same inputs give the same kernel everywhere.
 */
const version = '12'
/** Debian's release that it comes from, whatever release Linux's source is of: it compiles newer ones, too. */
export const compilerSuite = 'bookworm'

const packages = [
  ...['binutils', 'binutils-common', 'make', 'flex', 'bison', 'm4', 'bc', 'patch'],
  ...['libc6-dev', 'linux-libc-dev', 'libelf-dev', 'libssl-dev', 'zlib1g-dev', 'pkgconf-bin', 'xz-utils'],
]

/** Names of packages for a host. */
export function toolchainPackages(hostArch: Arch): string[] {
  const { triplet } = architecture(hostArch)
  return [`gcc-${version}`, `cpp-${version}`, `binutils-${triplet.replaceAll('_', '-')}`, ...packages]
}

const programs = [
  ...['ar', 'as', 'bc', 'bison', 'flex', 'ld', 'ld.bfd', 'm4', 'make', 'nm', 'objcopy', 'objdump', 'patch'],
  ...['ranlib', 'readelf', 'size', 'strings', 'strip', 'xz'],
]

/** The variables for commands that are to find it. */
export type ToolEnvironment = Record<string, string>

/**
 * Makes an unpacked compiler run: each program gets a script, first in PATH, that starts it with its own dynamic loader
 * and libraries, whatever the host has. What the kernel's build compiles for itself is linked statically (`makeArguments`).
 */
export async function prepareToolchain(root: Unpacked, dir: string): Promise<ToolEnvironment> {
  const { loader, triplet } = root.architecture
  const start = [
    await locate(root, `lib/${triplet}/${basename(loader)}`, `usr/lib/${triplet}/${basename(loader)}`),
    ...['--library-path', root.libraryDirs.join(':')],
  ]
  const script = async (path: string, ...argv: string[]) =>
    writeFile(path, `#!/bin/sh\nexec ${[...start, ...argv].map(quote).join(' ')} "$@"\n`, { mode: 0o755 })
  await mkdir(dir, { recursive: true })
  for (const name of programs) await script(join(dir, name), await locate(root, `usr/bin/${name}`))
  await script(join(dir, 'pkg-config'), await locate(root, 'usr/bin/pkgconf'), '--static')
  await script(join(dir, 'gcc'), await locate(root, `usr/bin/${triplet}-gcc-${version}`), `--sysroot=${root.dir}`)
  // The compiler starts these by their places beside it.
  for (const name of ['cc1', 'collect2']) {
    const path = await locate(root, `usr/lib/gcc/${triplet}/${version}/${name}`)
    const moved = join(dirname(path), `${name}.elf`)
    await rename(path, moved)
    await script(path, moved)
  }
  return {
    PATH: `${dir}:${process.env.PATH || '/usr/bin:/bin'}`,
    BISON_PKGDATADIR: join(root.dir, 'usr/share/bison'),
    M4: join(dir, 'm4'),
    PKG_CONFIG_LIBDIR: join(root.dir, `usr/lib/${triplet}/pkgconfig`),
    LC_ALL: 'C',
    TZ: 'UTC',
  }
}
