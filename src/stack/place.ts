import { join } from 'node:path'
import type { BochsBundle } from '../bundle/bochs.ts'
import type { Bundle } from '../bundle/bundle.ts'
import type { Machine } from '../machine/machine.ts'

/** What an engine finds on the machine that it starts a guest on. Paths are of that machine. */
export interface Place<M = Machine> {
  machine: M
  /** The start of a QEMU command. */
  qemu: readonly string[]
  kernel: string
  /** Added to its command line. */
  kernelArguments: string
  baseInitrd: string
  /** Appended to it where a container runs. */
  containerInitrd: string
  /** And where volumes are mounted. */
  volumeInitrd: string
  /** Always appended, behind the container's, where the machine has devices of its own. */
  machineInitrd?: string
  /** Where guests run on Bochs. */
  bochs?: BochsBundle
  /** The rate of the clock that an emulator there shows its guests, where known. */
  counterKhz: number | undefined
}

/** A host with the bundle on its disk. */
export function hostPlace<M>(machine: M, bundle: Bundle, counterKhz: number | undefined): Place<M> {
  return {
    machine,
    qemu: bundle.tools.qemuArgv(),
    kernel: bundle.guest.vmlinux,
    kernelArguments: bundle.guest.kernelArguments,
    baseInitrd: bundle.guest.baseInitrd,
    containerInitrd: bundle.guest.containerInitrd,
    volumeInitrd: bundle.guest.volumeInitrd,
    counterKhz,
  }
}

/** A host for a guest on Bochs, which has another kernel. */
export function bochsPlace<M>(machine: M, { tools, guest }: Bundle, bochs: BochsBundle): Place<M> {
  return {
    machine,
    // In the network of such a guest it loads a library.
    qemu: [...tools.argv('qemu-system-x86_64', bochs.libraries), '-L', join(tools.dir, 'share/qemu')],
    kernel: bochs.vmlinux,
    kernelArguments: '',
    baseInitrd: guest.baseInitrd,
    machineInitrd: bochs.machineInitrd,
    containerInitrd: guest.containerInitrd,
    volumeInitrd: bochs.volumeInitrd,
    bochs,
    counterKhz: undefined,
  }
}

/** A guest hypervisor: its start script mounted the layer. */
export function guestPlace<M>(machine: M, bundle: Bundle): Place<M> {
  return {
    machine,
    qemu: bundle.guest.guestArgvInGuest,
    kernel: bundle.guest.inGuest.vmlinux,
    kernelArguments: bundle.guest.kernelArguments,
    baseInitrd: bundle.guest.inGuest.baseInitrd,
    containerInitrd: bundle.guest.inGuest.containerInitrd,
    volumeInitrd: bundle.guest.inGuest.volumeInitrd,
    counterKhz: undefined,
  }
}
