import type { Bundle } from '../bundle/bundle.ts'
import { architectures } from '../engine/architecture.ts'
import { quote } from '../machine/quote.ts'
import type { LevelPlan } from '../stack/plan.ts'

// The plain recipe, as data: QEMU as the manuals start it, a distribution's kernel, an initramfs with busybox and
// modules. Kept in its favour: no default devices, a quiet kernel, no modules and no disks where none are needed.

/** What the innermost guest of the plain recipe says. */
export const firstOutput = 'output of the plain recipe'

/** The files that a level is started from, as the machine that it starts on sees them. */
export interface RecipeFiles {
  vmlinuz: string
  initrd: string
  /** The bundle's layer for guest hypervisors, and a squashfs with the kernel and the initramfs for their guests. */
  disks: readonly [layer: string, boot: string]
}

/** In a guest hypervisor: its own two disks, handed on. */
const filesInGuest: RecipeFiles = {
  vmlinuz: '/mnt/vmlinuz',
  initrd: '/mnt/initrd.gz',
  disks: ['/dev/vda', '/dev/vdb'],
}

/** The arguments after QEMU's own command. */
export function recipeArguments(
  { level, arch, accel, memoryMiB, nested }: LevelPlan,
  files: RecipeFiles,
  counterKhz: number | undefined,
): string[] {
  // The one thing that is not plain. Without it an emulated guest hangs in one boot of four: see counterKhz().
  const { plain, emulatedClock, hypervisorArguments } = architectures[arch]
  const clock = accel === 'tcg' && counterKhz ? emulatedClock?.(counterKhz) : undefined
  const words = ['quiet', 'panic=-1', `level=${level}`, nested ? hypervisorArguments : '', clock]
  const disks = nested ? files.disks : []
  return [
    ...[
      '-M',
      plain.machine(nested),
      '-accel',
      accel,
      '-cpu',
      accel === 'kvm' ? 'host' : 'max',
      '-smp',
      '1',
      '-m',
      `${memoryMiB}M`,
    ],
    ...['-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
    ...['-kernel', files.vmlinuz, '-initrd', files.initrd],
    // The kernel hands `level` to init, as a variable.
    ...['-append', [`console=${plain.console}`, ...words].filter(Boolean).join(' ')],
    ...disks.flatMap((path) => ['-drive', `file=${path},format=raw,if=virtio,readonly=on`]),
  ]
}

/** The start script of every level: starts the next one, or ends the chain. When one QEMU ends, all around it end. */
export function recipeInit({ guest }: Bundle, levels: readonly LevelPlan[]): string {
  const starts = levels.slice(1).map((inner) => {
    const argv = [...guest.qemuArgvInGuest, ...recipeArguments(inner, filesInGuest, undefined)]
    return `  ${inner.level - 1}) hypervisor; exec ${argv.map(quote).join(' ')} < /dev/null ;;\n`
  })
  return `${initHead}case $level in\n${starts.join('')}  *) echo ${quote(firstOutput)}; poweroff -f ;;\nesac\n`
}

const initHead = `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
hypervisor() {
  modprobe -a virtio_ring virtio_pci virtio_blk squashfs
  while [ ! -b /dev/vdb ]; do sleep 0.1; done
  mount -t squashfs -o ro /dev/vda /hypervisor
  mount -t squashfs -o ro /dev/vdb /mnt
  modprobe kvm_amd 2> /dev/null || modprobe kvm_intel
}
`
