import { mkdir, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Machine } from '../../machine/machine.ts'
import { type Arch, architecture } from '../architecture.ts'
import { cpio, file } from '../cpio.ts'
import type { Tools } from '../tools.ts'
import type { Unpacked } from '../unpack.ts'
import { baseEntries, crunEntries } from './base.ts'
import { decompressor, moduleFiles, readKernel } from './kernel.ts'
import { makeSquashfs, stageLayer } from './layer.ts'

/** The files that guests of one architecture boot from. */
export interface GuestFiles extends BootFiles {
  dir: string
  /** The kernel as packaged, for loaders that know only the boot protocol. */
  vmlinuz: string
  /** A squashfs with QEMU, the boot files, and modules in /modules: makes a guest a hypervisor. */
  hypervisorLayer: string
  kernelRelease: string
  /** The boot files in the layer. */
  inGuest: BootFiles
  /** The whole emulator in a guest that has the layer at `layerMount`; to be followed by its arguments. */
  qemuArgvInGuest: readonly string[]
  /** The smaller emulator, which knows KVM and the machine type microvm only, without user-mode networking. */
  microvmArgvInGuest: readonly string[]
}

/** Where a guest hypervisor has the layer mounted. */
const layerMount = '/hypervisor'

export function guestIn(dir: string, guestArch: Arch, kernelRelease: string): GuestFiles {
  const { loader, triplet, emulator, guestEmulators } = architecture(guestArch)
  const argv = (program: string) => [
    join(layerMount, loader),
    ...['--library-path', join(layerMount, 'usr/lib', triplet)],
    ...[join(layerMount, 'usr/bin', program), '-L', join(layerMount, 'usr/share/qemu')],
  ]
  return {
    dir,
    ...bootFilesIn(dir),
    vmlinuz: join(dir, 'vmlinuz'),
    hypervisorLayer: join(dir, 'hypervisor.squashfs'),
    kernelRelease,
    inGuest: bootFilesIn(join(layerMount, 'boot')),
    qemuArgvInGuest: argv(emulator),
    microvmArgvInGuest: argv(guestEmulators[0] ?? emulator),
  }
}

interface BootFiles {
  /** The kernel as an ELF file, to be entered without firmware (PVH). */
  vmlinux: string
  /** An initramfs: busybox, SSH server, modules, init. Archives may be appended to it. */
  baseInitrd: string
  /** Appended to it where containers run. */
  crunInitrd: string
  /** Appended to it where volumes are mounted: the modules of the NFS client, in the order of /modules/order.volume. */
  volumeInitrd: string
}

function bootFilesIn(dir: string): BootFiles {
  return {
    vmlinux: join(dir, 'vmlinux'),
    baseInitrd: join(dir, 'base.cpio'),
    crunInitrd: join(dir, 'crun.cpio'),
    volumeInitrd: join(dir, 'volume.cpio'),
  }
}

export interface GuestBuild {
  machine: Machine
  tools: Tools
  packages: Unpacked
  /** A directory for intermediate files, removed by the caller. */
  scratch: string
  signal?: AbortSignal
}

/** Makes the files that `guestIn` names. */
export async function fillGuest(build: GuestBuild, guestArch: Arch, dir: string): Promise<{ kernelRelease: string }> {
  const { machine, tools, packages, scratch, signal } = build
  const { modules } = architecture(guestArch)
  const kernel = await readKernel(packages, decompressor(machine, tools, scratch, signal))
  const baseModules = await moduleFiles(kernel, modules.base)
  const volumeModules = await moduleFiles(kernel, { volume: modules.volume }, new Set(baseModules.keys()))
  const layerModules = await moduleFiles(kernel, modules.layer, new Set(baseModules.keys()))
  const archived = (files: Map<string, Buffer>) => [...files].map(([name, data]) => file(`modules/${name}`, data))

  const files = guestIn(dir, guestArch, kernel.release)
  const boot = new Map([
    [basename(files.vmlinux), kernel.vmlinux],
    [basename(files.baseInitrd), cpio([...(await baseEntries(packages)), ...archived(baseModules)])],
    [basename(files.crunInitrd), cpio(await crunEntries(packages))],
    [basename(files.volumeInitrd), cpio(archived(volumeModules))],
  ])
  for (const [name, data] of boot) await writeFile(join(dir, name), data)
  await writeFile(files.vmlinuz, kernel.vmlinuz)

  const staged = join(scratch, 'layer')
  await mkdir(staged)
  await stageLayer({ packages, boot, modules: layerModules }, staged)
  await makeSquashfs(machine, tools, { from: staged, to: files.hypervisorLayer, signal })
  return { kernelRelease: kernel.release }
}
