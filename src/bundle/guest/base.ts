import { readFile } from 'node:fs/promises'
import { NestvmError } from '../../store/error.ts'
import { type CpioEntry, characterDevice, directory, file, symlink } from '../cpio.ts'
import { libraryClosure } from '../elf.ts'
import { locateLoader } from '../tools.ts'
import { locate, type Unpacked } from '../unpack.ts'
import { containerScript } from './scripts.ts'

/** What every guest boots with, but for its kernel's modules. */
export async function baseEntries(packages: Unpacked): Promise<CpioEntry[]> {
  const busybox = await readFile(await locate(packages, 'usr/bin/busybox', 'bin/busybox'))
  const links = appletNames(busybox).map((name) => symlink(`bin/${name}`, 'busybox'))
  return [
    symlink('init', 'bin/busybox'),
    file('bin/busybox', busybox, 0o755),
    ...links,
    symlink('sbin', 'bin'),
    // For scripts that begin with #!/usr/bin/env.
    symlink('usr/bin/env', '../../bin/busybox'),
    ...emptyDirectories.map((path) => directory(path, 0o755)),
    directory('root', 0o700),
    directory('tmp', 0o1777),
    // What a devtmpfs lacks; copied there in one go.
    directory('etc/nestvm/dev/pts', 0o755),
    directory('etc/nestvm/dev/shm', 0o1777),
    symlink('etc/nestvm/dev/fd', '/proc/self/fd'),
    ...['stdin', 'stdout', 'stderr'].map((name, fd) => symlink(`etc/nestvm/dev/${name}`, `/proc/self/fd/${fd}`)),
    // The kernel opens the console before the start script has mounted a devtmpfs.
    characterDevice('dev/console', 5, 1),
    characterDevice('dev/null', 1, 3, 0o666),
    ...(await programEntries(packages, basePrograms)),
  ]
}

/** crun with its libraries, without those that the base has, and the script that sets the container's files up. */
export async function containerEntries(packages: Unpacked): Promise<CpioEntry[]> {
  const base = new Set((await programEntries(packages, basePrograms)).map(({ path }) => path))
  const entries = await programEntries(packages, [{ path: 'usr/bin/crun', from: ['usr/bin/crun'] }])
  return [
    ...entries.filter(({ path }) => !base.has(path)),
    file('etc/nestvm/container', containerScript(packages.architecture)),
  ]
}

interface Program {
  /** In the guest. */
  path: string
  /** In the packages. */
  from: readonly string[]
}

const basePrograms: readonly Program[] = [
  { path: 'usr/sbin/dropbear', from: ['usr/sbin/dropbear'] },
  // Debian's dropbear starts it by this path.
  { path: 'usr/lib/sftp-server', from: ['usr/lib/openssh/sftp-server'] },
]

const emptyDirectories = ['dev', 'etc', 'hypervisor', 'mnt', 'proc', 'run/nestvm', 'sys', 'var/tmp']

async function programEntries(packages: Unpacked, programs: readonly Program[]): Promise<CpioEntry[]> {
  const { loader, triplet } = packages.architecture
  const sources = await Promise.all(programs.map(({ from }) => locate(packages, ...from)))
  const libraries = await libraryClosure(sources, packages.libraryDirs)
  const loaderName = loader.slice(loader.lastIndexOf('/') + 1)
  libraries.delete(loaderName)
  const entries = programs.map(async ({ path }, index) => file(path, await readFile(sources[index] ?? ''), 0o755))
  const copies = [...libraries].map(async ([name, path]) => file(`lib/${triplet}/${name}`, await readFile(path), 0o755))
  const loaderEntry = file(loader.slice(1), await readFile(await locateLoader(packages)), 0o755)
  return [...(await Promise.all(entries)), ...(await Promise.all(copies)), loaderEntry]
}

/**
 * The names that a busybox answers to, from its own table: sorted, NUL-separated, beginning with `[` and `[[`.
 * Asking it would need a machine of its architecture.
 */
export function appletNames(busybox: Buffer): string[] {
  // `[` and `[[` stand in the shell's table of built-in commands too, but with a digit before each.
  const start = busybox.indexOf('[\0[[\0', 0, 'latin1')
  const names: string[] = []
  for (let at = start; start >= 0 && at < busybox.length; ) {
    const end = busybox.indexOf(0, at)
    const name = busybox.toString('latin1', at, end)
    if (!/^[a-z0-9[_.-]+$/.test(name) || name <= (names.at(-1) ?? '')) break
    names.push(name)
    at = end + 1
  }
  if (!names.includes('sh')) throw new NestvmError('BAD_BUSYBOX', 'the packaged busybox does not name its applets')
  return names.filter((name) => name !== 'busybox')
}
