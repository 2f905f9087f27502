import { link, mkdir, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Arch } from '../../host/arch.ts'
import type { Machine } from '../../machine/machine.ts'
import { architecture, withoutModules } from '../architecture.ts'
import { cpio, file, symlink } from '../cpio.ts'
import type { KernelChoice } from '../manifest.ts'
import type { Tools } from '../tools.ts'
import type { Unpacked } from '../unpack.ts'
import { baseEntries, containerEntries } from './base.ts'
import { asKernel, type BuiltKernel, decompressor, type Module, readKernel } from './kernel.ts'
import { makeSquashfs, stageLayer } from './layer.ts'
import { formatLayerRecord } from './layer-record.ts'
import { layerLink, moduleDir, moduleIndex } from './module-tree.ts'
import { guestScripts, layerArgv, layerMount } from './scripts.ts'

/** The files that guests of one architecture boot from. */
export interface GuestFiles extends BootFiles {
  dir: string
  /** The kernel as packaged, for loaders that know only the boot protocol. */
  vmlinuz: string
  /** A squashfs with QEMU, the boot files, and modules in /modules: makes a guest a hypervisor. */
  hypervisorLayer: string
  kernelRelease: string
  /** What the kernel's command line has beyond what every guest's has. */
  kernelArguments: string
  /** The kernel in the place of Debian's. */
  kernel?: KernelChoice
  /** The boot files in the layer. */
  inGuest: BootFiles
  /** The whole emulator in a guest that has the layer at `layerMount`; to be followed by its arguments. */
  qemuArgvInGuest: readonly string[]
  /** The emulator for guests in it: on x86 a smaller one, which knows KVM and the machine type microvm only. */
  guestArgvInGuest: readonly string[]
  /** The packet filter's program in such a guest. */
  nftArgvInGuest: readonly string[]
}

export function guestIn(
  dir: string,
  guestArch: Arch,
  { kernelRelease = '', kernel }: { kernelRelease?: string; kernel?: KernelChoice },
  hypervisorLayer = join(dir, 'hypervisor.squashfs'),
): GuestFiles {
  const { emulator, guestEmulators, ...contents } = architecture(guestArch)
  const argv = (program: string) => [...layerArgv(contents, program), '-L', join(layerMount, 'usr/share/qemu')]
  return {
    dir,
    ...bootFilesIn(dir),
    vmlinuz: join(dir, 'vmlinuz'),
    hypervisorLayer,
    ...{ kernelRelease, kernel },
    kernelArguments: kernel ? [builtInSettings, kernel.arguments].join(' ').trim() : '',
    inGuest: bootFilesIn(join(layerMount, 'boot')),
    qemuArgvInGuest: argv(emulator),
    guestArgvInGuest: argv(guestEmulators[0] ?? emulator),
    nftArgvInGuest: layerArgv(contents, 'nft'),
  }
}

/** What scripts would say when they load the module: see src/stack/disk.ts. */
const builtInSettings = 'scsi_mod.scan=manual'

interface BootFiles {
  /** The kernel, to be entered without firmware: on x86 an ELF file (PVH), on arm64 an Image. */
  vmlinux: string
  /** An initramfs: busybox, SSH server, modules, init. Archives may be appended to it. */
  baseInitrd: string
  /** To be appended to it where a container runs: crun, and modules. */
  containerInitrd: string
  /** To be appended to it where volumes are mounted: the modules of the NFS client. */
  volumeInitrd: string
}

function bootFilesIn(dir: string): BootFiles {
  return {
    vmlinux: join(dir, 'vmlinux'),
    baseInitrd: join(dir, 'base.cpio'),
    containerInitrd: join(dir, 'container.cpio'),
    volumeInitrd: join(dir, 'volume.cpio'),
  }
}

export interface GuestBuild {
  machine: Machine
  tools: Tools
  packages: Unpacked
  /** A directory for intermediate files, removed by the caller. */
  scratch: string
  /** Of what the files are made of; see `Inputs`. */
  recipe: string
  digest: string
  /** A kernel in the place of the packages', and its part of the identity. */
  kernel?: BuiltKernel
  choice?: KernelChoice
  signal?: AbortSignal
}

/** Makes the files that `guestIn` names. */
export async function fillGuest(build: GuestBuild, guestArch: Arch, dir: string): Promise<{ kernelRelease: string }> {
  const { machine, tools, scratch, recipe, digest, choice, signal } = build
  const contents = build.kernel ? withoutModules(architecture(guestArch)) : architecture(guestArch)
  const packages = { ...build.packages, architecture: contents }
  const { modules } = contents
  const decompress = decompressor(machine, tools, scratch, signal)
  const kernel = build.kernel ? await asKernel(build.kernel, decompress) : await readKernel(packages, decompress)
  const baseModules = await kernel.modules(Object.values(modules.base).flat())
  const containerModules = without(baseModules, await kernel.modules(modules.container))
  const volumeModules = without([...baseModules, ...containerModules], await kernel.modules(modules.volume))
  const inInitrd = [...baseModules, ...containerModules, ...volumeModules]
  const layerModules = without(
    inInitrd,
    await kernel.modules([...Object.values(modules.kvm), ...Object.values(modules.layer).flat()]),
  )
  const under = moduleDir(kernel.release)
  const moduleEntries = (list: readonly Module[]) => list.map(({ name, data }) => file(`${under}/${name}.ko`, data))
  const baseFiles = [
    ...(await baseEntries(packages)),
    ...guestScripts(contents).map(({ path, text, mode }) => file(path, text, mode)),
    ...moduleEntries(baseModules),
    symlink(`${under}/${layerLink}`, join(layerMount, 'modules')),
    ...[...moduleIndex(inInitrd, layerModules)].map(([name, text]) => file(`${under}/${name}`, text)),
    ...(build.kernel ? [file(`${under}/modules.builtin`, build.kernel.builtIn)] : []),
  ]

  const files = guestIn(dir, guestArch, {})
  const boot = new Map([
    [basename(files.vmlinux), kernel.vmlinux],
    [basename(files.baseInitrd), cpio(baseFiles)],
    [
      basename(files.containerInitrd),
      cpio([...(await containerEntries(packages)), ...moduleEntries(containerModules)]),
    ],
    [basename(files.volumeInitrd), cpio(moduleEntries(volumeModules))],
  ])
  for (const [name, data] of boot) await writeFile(join(dir, name), data)
  if (kernel.vmlinuz === kernel.vmlinux) await link(files.vmlinux, files.vmlinuz)
  else await writeFile(files.vmlinuz, kernel.vmlinuz)

  const staged = join(scratch, 'layer')
  await mkdir(staged)
  const modulesOfLayer = new Map(layerModules.map(({ name, data }) => [`${name}.ko`, data]))
  const release = { kernelRelease: kernel.release, kernel: choice }
  const record = formatLayerRecord({ schema: 1, arch: guestArch, recipe, digest, ...release })
  await stageLayer({ packages, boot, modules: modulesOfLayer, record }, staged)
  await makeSquashfs(machine, tools, { from: staged, to: files.hypervisorLayer, signal })
  return { kernelRelease: kernel.release }
}

function without(present: readonly Module[], modules: readonly Module[]): Module[] {
  const names = new Set(present.map(({ name }) => name))
  return modules.filter(({ name }) => !names.has(name))
}
