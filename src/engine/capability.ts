import { NestvmError } from '../store/error.ts'

export const engineNames = ['qemu', 'firecracker'] as const

/** The program that runs a guest. */
export type EngineName = (typeof engineNames)[number]

/** What guests and commands may want of an engine, as what it does for them. */
export const capabilities = {
  emulation: 'run guests without KVM',
  'user-network': 'give a level 1 guest a network without rights on the host',
  forwarding: 'lead into a level 1 guest: to published ports, volumes and guests in it',
  'x86-hypervisor': 'let x86-64 guests be hypervisors',
  'arm64-hypervisor': 'let arm64 guests be hypervisors',
  hotplug: 'attach disks while a guest runs',
  'detached-command': 'keep what a detached command writes, and its exit status',
  console: 'offer a console to type at',
  migration: 'send a running guest to another guest hypervisor',
  'many-cpus': 'give a guest more than 32 virtual CPUs',
} as const

export type Capability = keyof typeof capabilities

/** Why an engine lacks something, and what to do about it. */
export interface Lack {
  why: string
  hint: string
}

interface Engine {
  /** As people call it. */
  title: string
  lacks: Partial<Record<Capability, Lack>>
}

const qemuInstead = 'leave out --engine'

/** Facts of Firecracker 1.16: its documentation, SPECIFICATION.md and API description. */
export const engines: Record<EngineName, Engine> = {
  qemu: { title: 'QEMU', lacks: {} },
  firecracker: {
    title: 'Firecracker',
    lacks: {
      emulation: {
        why: 'it runs on KVM only',
        hint: `use --depth 2, where the KVM of an emulated guest hypervisor runs it, or ${qemuInstead}`,
      },
      'user-network': {
        why: 'it knows tap devices only, which take root',
        hint: `use --network bridged as root; or --depth 2, or --on with a guest hypervisor; or ${qemuInstead}`,
      },
      forwarding: {
        why: 'it has no network but the tap device',
        hint: `use --depth 2, or --on with a guest hypervisor, or ${qemuInstead}`,
      },
      'arm64-hypervisor': {
        why: 'only a binary with the option --enable-nv2 does',
        hint: `name another binary by --firecracker, or ${qemuInstead}`,
      },
      hotplug: {
        why: 'all its disks are there from the start',
        hint: 'start that guest hypervisor on QEMU',
      },
      'detached-command': {
        why: 'it has no ports but the serial one, which is for the kernel',
        hint: `start it with -d but no command, and then: nestvm exec MACHINE -- COMMAND; or ${qemuInstead}`,
      },
      console: {
        why: "its serial port is for the kernel's log",
        hint: 'nestvm shell MACHINE, or: nestvm logs --of kernel MACHINE',
      },
      migration: {
        why: 'it writes and reads saved guests only',
        hint: 'stop it, and start it there',
      },
      'many-cpus': { why: 'its API takes 1 to 32', hint: `use --cpus 32, or ${qemuInstead}` },
    },
  },
}

/**
 * Throws `ENGINE_CANNOT` where an engine lacks one of these; `given` are those that a certain binary has nevertheless.
 */
export function checkCapabilities(
  engine: EngineName,
  wanted: readonly Capability[],
  machine: string,
  given: readonly Capability[] = [],
): void {
  for (const capability of wanted) {
    const lack = engines[engine].lacks[capability]
    if (!lack || given.includes(capability)) continue
    throw new NestvmError(
      'ENGINE_CANNOT',
      `${machine}: ${engines[engine].title} cannot ${capabilities[capability]}: ${lack.why}`,
      { hint: lack.hint, details: { machine, engine, capability }, exitStatus: 2 },
    )
  }
}
