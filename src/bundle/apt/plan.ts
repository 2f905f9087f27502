import { NestvmError } from '../../store/error.ts'
import { apt } from './command.ts'
import type { AptState } from './state.ts'

/** One package as the signed lists describe it. */
export interface DebianPackage {
  name: string
  version: string
  arch: string
  sha256: string
  /** Bytes. */
  size: number
  /** The name that apt gives the file. */
  file: string
}

/**
 * The packages named (`NAME` or `NAME/SUITE`) and the libraries that they need.
 * Other dependencies are left out: they serve an installed system (users, PAM, initramfs-tools), and we unpack only.
 */
export async function planWithLibraries(
  state: AptState,
  names: readonly string[],
  signal?: AbortSignal,
): Promise<DebianPackage[]> {
  const plan = await printUris(state, ['install', '-y', ...names], signal)
  const wanted = new Set(names.map((name) => name.split('/')[0]))
  return plan.filter(({ name }) => wanted.has(name) || isLibrary.test(name))
}

/** zlib1g is the one library package without the prefix. */
const isLibrary = /^(lib|zlib)/

/** The packages named (`NAME` or `NAME/SUITE`) and no others. */
export async function planAlone(
  state: AptState,
  names: readonly string[],
  signal?: AbortSignal,
): Promise<DebianPackage[]> {
  return printUris(state, ['download', ...names], signal)
}

/**
 * The packages that hold the kernel that `metaPackage` stands for, without dependencies: an older suite's kernel may
 * want another version of initramfs-tools than the newer suite has. From Linux 7.2 on Debian's kernel is split in
 * linux-binary-*, linux-modules-* and linux-base-*, which linux-image-* depends on.
 */
export async function planKernel(
  state: AptState,
  { package: metaPackage, suite }: { package: string; suite: string },
  signal?: AbortSignal,
): Promise<DebianPackage[]> {
  const names: string[] = []
  const queue = [metaPackage]
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
    const argv = ['apt-cache', 'depends', '--important', `${name}/${suite}`]
    const output = await apt(state.machine, argv, { config: state.config, signal, timeoutMs: 60_000 })
    for (const [, dependency = ''] of output.matchAll(
      /^ +\|?(?:Pre)?Depends: (linux-(?:base|binary|image|modules)-\d\S*)$/gm,
    )) {
      if (names.includes(dependency)) continue
      names.push(dependency)
      queue.push(dependency)
    }
  }
  if (names.length === 0) {
    throw new NestvmError('PACKAGE_UNAVAILABLE', `${metaPackage} of ${suite} names no kernel`, {
      details: { package: metaPackage, suite },
    })
  }
  return planAlone(
    state,
    names.map((name) => `${name}/${suite}`),
    signal,
  )
}

async function printUris(state: AptState, args: readonly string[], signal?: AbortSignal): Promise<DebianPackage[]> {
  const argv = ['apt-get', '-qq', '--print-uris', '-o', `Dir::Cache::archives=${state.noArchives}`, ...args]
  const options = { config: state.config, cwd: state.noArchives, signal, timeoutMs: 60_000 }
  const output = await apt(state.machine, argv, options)
  const packages = output.split('\n').flatMap((line) => parseUri(line) ?? [])
  return packages.sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** `'URI' NAME_VERSION_ARCH.deb SIZE SHA256:HASH`; the version's colon is written %3a. */
export function parseUri(line: string): DebianPackage | undefined {
  const match = /^'.*' (([^\s_]+)_([^\s_]+)_([^\s_]+)\.deb) (\d+) SHA256:([0-9a-f]{64})$/.exec(line)
  if (match === null) return undefined
  const [, file = '', name = '', version = '', arch = '', size = '', sha256 = ''] = match
  return { name, version: decodeURIComponent(version), arch, sha256, size: Number(size), file }
}
