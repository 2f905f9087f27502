import { copyFile, mkdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Arch } from '../host/arch.ts'
import { type Architecture, architecture, hostTools } from './architecture.ts'
import { libraryClosure } from './elf.ts'
import { layerArgv } from './guest/scripts.ts'
import { locate, type Unpacked } from './unpack.ts'

/** Programs for the host, which run with their own libraries and dynamic loader whatever the host has. */
export interface Tools {
  /** Its directory `bin` has the programs. */
  dir: string
  /** To be followed by the program's arguments. It finds libraries that it loads later in `libraries`, too. */
  argv(program: string, libraries?: string): string[]
  /** The emulator for guests, with its firmware; to be followed by its arguments. */
  qemuArgv(): string[]
}

/** They have the emulator for guests of the host's architecture; that for others is in a directory of its own. */
export function toolsIn(dir: string, hostArch: Arch, guestArch = hostArch, emulatorDir = dir): Tools {
  const { emulator } = architecture(guestArch)
  const qemu = programIn(emulatorDir, hostArch, emulator)
  return {
    dir,
    argv: (program, libraries) => programIn(dir, hostArch, program, libraries),
    qemuArgv: () => [...qemu, '-L', join(emulatorDir, 'share/qemu')],
  }
}

/** A program of a directory as `fill` lays one out. */
export function programIn(dir: string, hostArch: Arch, program: string, libraries?: string): string[] {
  const lib = join(dir, 'lib')
  const { loader } = architecture(hostArch)
  const path = libraries === undefined ? lib : `${lib}:${libraries}`
  return [join(lib, basename(loader)), '--library-path', path, join(dir, 'bin', program)]
}

/** The same of a guest-hypervisor layer, which holds them all. */
export function toolsInLayer(layer: string, hostArch: Arch): Tools {
  const contents = architecture(hostArch)
  const argv = (program: string) => layerArgv(contents, program, layer)
  const qemuArgv = () => [...argv(contents.emulator), '-L', join(layer, 'usr/share/qemu')]
  return { dir: join(layer, 'usr'), argv, qemuArgv }
}

/** Picks from the unpacked packages what `toolsIn` promises. */
export async function fillTools(packages: Unpacked, dir: string): Promise<object> {
  const { emulator, firmware } = packages.architecture
  return fill(packages, dir, [emulator, ...hostTools.programs], firmware)
}

/** The emulator alone, for guests of another architecture than the packages. */
export async function fillEmulator(packages: Unpacked, guestArch: Arch, dir: string): Promise<object> {
  const { emulator, firmware } = architecture(guestArch)
  return fill(packages, dir, [emulator], firmware)
}

async function fill(
  packages: Unpacked,
  dir: string,
  programNames: readonly string[],
  firmware: readonly string[],
): Promise<object> {
  await fillPrograms(packages, dir, programNames)
  await mkdir(join(dir, 'share/qemu'), { recursive: true, mode: 0o700 })
  for (const [name, path] of await firmwareFiles(packages, firmware))
    await copyFile(path, join(dir, 'share/qemu', name))
  return {}
}

/** Programs with the libraries that they, and files which they load at run time, need. */
export async function fillPrograms(
  packages: Unpacked,
  dir: string,
  names: readonly string[],
  loaded: readonly string[] = [],
): Promise<void> {
  for (const name of ['bin', 'lib']) await mkdir(join(dir, name), { recursive: true, mode: 0o700 })
  const places = (name: string) => [`usr/bin/${name}`, `usr/sbin/${name}`, `sbin/${name}`]
  const programs = await Promise.all(names.map((name) => locate(packages, ...places(name))))
  for (const path of programs) await copyFile(path, join(dir, 'bin', basename(path)))
  const libraries = await libraryClosure([...programs, ...loaded], packages.libraryDirs)
  for (const [name, path] of libraries) await copyFile(path, join(dir, 'lib', name))
  await copyFile(await locateLoader(packages), join(dir, 'lib', basename(packages.architecture.loader)))
}

/** Name to file. */
export async function firmwareFiles(packages: Unpacked, names: readonly string[]): Promise<[string, string][]> {
  const find = async (name: string): Promise<[string, string]> => [
    name,
    await locate(packages, `usr/share/qemu/${name}`, `usr/share/seabios/${name}`),
  ]
  return Promise.all(names.map(find))
}

export async function locateLoader(packages: Unpacked): Promise<string> {
  const { loader, triplet }: Architecture = packages.architecture
  return locate(packages, `usr/lib/${triplet}/${basename(loader)}`, `usr${loader}`, loader)
}
