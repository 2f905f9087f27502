import type { Bundle } from '../bundle/bundle.ts'
import type { Machine } from '../machine/machine.ts'

/** What an engine finds on the machine that it starts a guest on. Paths are of that machine. */
export interface Place<M = Machine> {
  machine: M
  /** The start of a QEMU command. */
  qemu: readonly string[]
  kernel: string
  baseInitrd: string
  /** The guest-hypervisor layer: a squashfs, given on as a disk to guests that are hypervisors. */
  layer: string
  /** The rate of the clock that an emulator there shows its guests, where known. */
  counterKhz: number | undefined
}

/** A host with the bundle on its disk. */
export function hostPlace<M>(machine: M, bundle: Bundle, counterKhz: number | undefined): Place<M> {
  return {
    machine,
    qemu: bundle.tools.qemuArgv(),
    kernel: bundle.guest.vmlinux,
    baseInitrd: bundle.guest.baseInitrd,
    layer: bundle.guest.hypervisorLayer,
    counterKhz,
  }
}

/** A guest hypervisor: its start script mounted the layer, which is its first disk. */
export function guestPlace<M>(machine: M, bundle: Bundle): Place<M> {
  return {
    machine,
    qemu: bundle.guest.microvmArgvInGuest,
    kernel: '/hypervisor/boot/vmlinux',
    baseInitrd: '/hypervisor/boot/base.cpio',
    layer: '/dev/vda',
    counterKhz: undefined,
  }
}
