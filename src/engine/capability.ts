import { NestvmError } from '../store/error.ts'

/** Those that run a guest at any level. */
export const innermostEngines = ['qemu', 'firecracker'] as const
export type InnermostEngine = (typeof innermostEngines)[number]

/** Bochs emulates level 1 where an Intel processor is asked for. */
export const engineNames = [...innermostEngines, 'bochs'] as const

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
  migration: 'send a running guest elsewhere',
  'several-cpus': 'give a guest several virtual CPUs',
  'many-cpus': 'give a guest more than 32 virtual CPUs',
  'much-memory': 'give a guest more than 2048 MiB',
  'named-processor': 'give a guest a processor model by its name',
  'writable-disk': 'keep what a container writes on a disk',
  snapshot: 'save a level 1 guest with all that runs in it',
  'bridged-network': 'put a level 1 guest on a bridge of the host',
  'remote-host': 'run level 1 on a host that is reached over ssh',
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

const vendorOut = 'leave out --cpu-vendor'
const noVirtio = 'it has no virtio'

/**
 * Facts of Firecracker 1.16: its documentation, SPECIFICATION.md and API description; of Bochs 3.0: its documentation,
 * and Debian's build of it.
 */
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
      'named-processor': {
        why: 'it gives guests the processor that there is',
        hint: 'leave out --migratable, or --engine',
      },
      'many-cpus': { why: 'its API takes 1 to 32', hint: `use --cpus 32, or ${qemuInstead}` },
      snapshot: { why: 'QEMU saves level 1', hint: qemuInstead },
    },
  },
  bochs: {
    title: 'Bochs',
    lacks: {
      'arm64-hypervisor': { why: 'it emulates x86 processors', hint: vendorOut },
      hotplug: {
        why: 'all its disks are there from the start',
        hint: 'start all levels at once: nestvm run --cpu-vendor intel --depth 2 IMAGE',
      },
      'detached-command': {
        why: `${noVirtio}, whose ports that takes`,
        hint: 'start it with -d but no command, and then: nestvm exec MACHINE -- COMMAND',
      },
      console: { why: noVirtio, hint: 'nestvm shell MACHINE, or: nestvm logs --of kernel MACHINE' },
      migration: { why: 'it saves and loads guests that stand still', hint: 'move a guest in it' },
      'several-cpus': {
        why: 'it runs its processors in turn, so several are slower than one',
        hint: `use --cpus 1, or ${vendorOut}`,
      },
      'many-cpus': { why: 'it has one here', hint: `use --cpus 1, or ${vendorOut}` },
      'much-memory': {
        why: 'its machine has no memory above that',
        hint: `use a smaller --memory or --depth, or ${vendorOut}`,
      },
      'named-processor': { why: 'it has one that is made for hypervisors', hint: 'leave out --migratable' },
      'writable-disk': { why: 'its disks are CD-ROMs', hint: 'leave out --disk: what is written is kept in RAM' },
      snapshot: { why: 'stacks are saved as QEMU saves them', hint: 'leave it running: nestvm run -d' },
      'bridged-network': { why: 'its network ends in a process of its own', hint: 'leave out --network' },
      'remote-host': { why: 'its programs are not copied there', hint: `run nestvm on that host, or ${vendorOut}` },
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
