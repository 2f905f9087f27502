import { copyFile, mkdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { type Arch, type Architecture, architecture, hostTools } from './architecture.ts'
import { libraryClosure } from './elf.ts'
import { layerArgv } from './guest/scripts.ts'
import { locate, type Unpacked } from './unpack.ts'

/** Programs for the host, which run with their own libraries and dynamic loader whatever the host has. */
export interface Tools {
  /** Its directory `bin` has the programs. */
  dir: string
  /** To be followed by the program's arguments. */
  argv(program: string): string[]
  /** The emulator for guests, with its firmware; to be followed by its arguments. */
  qemuArgv(): string[]
}

export function toolsIn(dir: string, hostArch: Arch): Tools {
  const { emulator, loader } = architecture(hostArch)
  const lib = join(dir, 'lib')
  const argv = (program: string) => [join(lib, basename(loader)), '--library-path', lib, join(dir, 'bin', program)]
  return { dir, argv, qemuArgv: () => [...argv(emulator), '-L', join(dir, 'share/qemu')] }
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
  const { architecture } = packages
  for (const name of ['bin', 'lib', 'share/qemu']) await mkdir(join(dir, name), { recursive: true, mode: 0o700 })

  const programs = [architecture.emulator, ...hostTools.programs].map((name) =>
    locate(packages, `usr/bin/${name}`, `usr/sbin/${name}`, `sbin/${name}`),
  )
  for (const path of await Promise.all(programs)) await copyFile(path, join(dir, 'bin', basename(path)))

  const libraries = await libraryClosure(await Promise.all(programs), packages.libraryDirs)
  for (const [name, path] of libraries) await copyFile(path, join(dir, 'lib', name))
  await copyFile(await locateLoader(packages), join(dir, 'lib', basename(architecture.loader)))

  for (const [name, path] of await firmwareFiles(packages)) await copyFile(path, join(dir, 'share/qemu', name))
  return {}
}

/** Name to file. */
export async function firmwareFiles(packages: Unpacked): Promise<[string, string][]> {
  const find = async (name: string): Promise<[string, string]> => [
    name,
    await locate(packages, `usr/share/qemu/${name}`, `usr/share/seabios/${name}`),
  ]
  return Promise.all(packages.architecture.firmware.map(find))
}

export async function locateLoader(packages: Unpacked): Promise<string> {
  const { loader, triplet }: Architecture = packages.architecture
  return locate(packages, `usr/lib/${triplet}/${basename(loader)}`, `usr${loader}`, loader)
}
