import { chmod, copyFile, link, mkdir, realpath, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { Machine } from '../../machine/machine.ts'
import { run } from '../../machine/run.ts'
import { hostTools } from '../architecture.ts'
import { libraryClosure } from '../elf.ts'
import { firmwareFiles, locateLoader, type Tools } from '../tools.ts'
import { locate, type Unpacked } from '../unpack.ts'
import { layerRecord } from './layer-record.ts'

/** What a guest needs on top of the base to be a hypervisor: paths as in the image. */
export interface LayerContents {
  packages: Unpacked
  /** Files of /boot, for the guests it starts. */
  boot: ReadonlyMap<string, Buffer>
  /** Files of /modules. */
  modules: ReadonlyMap<string, Buffer>
  /** What it says of itself. */
  record: string
}

/** Lays the files out in `dir`, with the same modes whatever the umask and the packages say. */
export async function stageLayer(contents: LayerContents, dir: string): Promise<void> {
  const files = await filesOf(contents)
  const dirs = new Set([...files.keys()].flatMap(parentsOf))
  for (const path of [...dirs].sort()) {
    await mkdir(join(dir, path), { recursive: true })
    await chmod(join(dir, path), 0o755)
  }
  for (const [path, source] of files) {
    if (typeof source === 'string') await linkOrCopy(source, join(dir, path))
    else await writeFile(join(dir, path), source)
    await chmod(join(dir, path), executable.test(path) ? 0o755 : 0o644)
  }
}

/** A link keeps the space low that a set-up needs at its end; the packages are removed afterwards. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  await link(await realpath(from), to).catch(() => copyFile(from, to))
}

const executable = /^(usr\/bin|usr\/lib|lib)/

/** Path in the image to a file or its content. */
async function filesOf({ packages, boot, modules, record }: LayerContents): Promise<Map<string, string | Buffer>> {
  const { loader, triplet, emulator, guestEmulators, firmware: firmwareNames } = packages.architecture
  const names = [emulator, ...guestEmulators, ...hostTools.programs, 'nft']
  const places = (name: string) => [`usr/bin/${name}`, `usr/sbin/${name}`, `sbin/${name}`]
  const programs = await Promise.all(names.map((name) => locate(packages, ...places(name))))
  const libraries = await libraryClosure(programs, packages.libraryDirs)
  // libc names the loader as a library: it is in the image once, where programs name it.
  libraries.delete(basename(loader))
  const firmware = await firmwareFiles(packages, firmwareNames)
  return new Map<string, string | Buffer>([
    ...programs.map((path) => [`usr/bin/${basename(path)}`, path] as const),
    ...[...libraries].map(([name, path]) => [`usr/lib/${triplet}/${name}`, path] as const),
    [loader.slice(1), await locateLoader(packages)],
    ...firmware.map(([name, path]) => [`usr/share/qemu/${name}`, path] as const),
    ...[...boot].map(([name, data]) => [`boot/${name}`, data] as const),
    ...[...modules].map(([name, data]) => [`modules/${name}`, data] as const),
    [layerRecord, Buffer.from(record)],
  ])
}

/** `.` too. */
function parentsOf(path: string): string[] {
  const parent = dirname(path)
  return parent === '.' ? [parent] : [...parentsOf(parent), parent]
}

/**
 * The same files give the same image: no owners, no times, one order.
 * Of what squashfs offers, fast lz4 is read at half the cost of zstd, and a guest hypervisor reads 50 MB of it under
 * emulation; it is a fifth larger than the smallest zstd, and is made in a quarter of a second rather than ten.
 */
export async function makeSquashfs(
  machine: Machine,
  tools: Tools,
  { from, to, signal }: { from: string; to: string; signal?: AbortSignal },
): Promise<void> {
  const fixed = ['-all-root', '-no-xattrs', '-no-exports', '-reproducible']
  const packed = ['-comp', 'lz4', '-b', '128K', '-noappend', '-no-progress', '-quiet']
  // All times in it. Its options for that are refused where the caller's environment has this variable.
  const env = { SOURCE_DATE_EPOCH: '0' }
  await run(machine, [...tools.argv('mksquashfs'), from, to, ...fixed, ...packed], {
    env,
    signal,
    timeoutMs: 5 * 60_000,
  })
}
