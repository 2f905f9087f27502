/*
 * What is known of guests that are saved or moved while they run, as data: `migrate`, `snapshot create` and `doctor` say
 * and do what this table says, and the tables in docs/migration.md and docs/snapshots.md are held to it by a test. For
 * each aspect just one rule holds for what there can be.
 */

export const platforms = ['intel', 'amd', 'arm64', 's390x', 'elsewhere'] as const
/** Whose virtualization extension the guest has, or the architecture where that tells. */
export type Platform = (typeof platforms)[number]

export const guestKinds = ['plain', 'hypervisor', 'nesting'] as const
/** No hypervisor; one in which no guest runs now; one with guests that run. */
export type GuestKind = (typeof guestKinds)[number]

export const comparisons = ['same', 'more', 'model', 'fewer', 'maker', 'offered', 'lacking'] as const
/**
 * The processor that the other side offers, against this side's for a guest that has all of it (`-cpu host`): the same
 * one, one with more features, another model, one with fewer features, another maker's. Or against the guest's own named
 * model: it is offered whole, or lacks something.
 */
export type Comparison = (typeof comparisons)[number]

type Version = readonly [major: number, minor: number]
export interface Versions {
  from?: Version
  below?: Version
}

/** What a rule holds for; what is not named may be anything. */
export interface Holds {
  platform?: readonly Platform[]
  /** How the guest runs. */
  accel?: readonly ('kvm' | 'tcg')[]
  guest?: readonly GuestKind[]
  /** Of the machine whose KVM runs it. */
  kernel?: Versions
  qemu?: Versions
  /** Whether that KVM says that it has KVM_CAP_NESTED_STATE. */
  capability?: readonly boolean[]
  /** Whether both sides have one version of QEMU. */
  qemus?: readonly ('same' | 'different')[]
  processor?: readonly Comparison[]
}

export type Aspect = 'nested-state' | 'qemu' | 'processor'

export interface Rule {
  /** Stable: refusals and findings name it. */
  id: string
  aspect: Aspect
  holds: Holds
  /** `untested`: nobody vouches for it, and `--force` does it. `lost`: the guest, or what runs in it, would not survive. */
  verdict: 'safe' | 'untested' | 'lost'
  /** As of a finding of doctor's: the source's own rule, what follows from it, or what others report. */
  sure: 'certain' | 'likely' | 'reported'
  why: string
  wayOut: string
  source: string
}

const kvmDocument = 'Linux, running-nested-guests.rst'
const stopInner = 'stop the guests in it first'
const alike = 'move it to where the processor is the same, or start it anew with --migratable'
const sameQemu = 'use one QEMU on both sides'
const none = ''

export const rules: readonly Rule[] = [
  {
    ...{ id: 'plain-guest', aspect: 'nested-state', verdict: 'safe', sure: 'certain' },
    holds: { guest: ['plain'] },
    why: 'a guest that is no hypervisor has no nested state',
    wayOut: none,
    source: `${kvmDocument}: moving an L2 guest is always expected to succeed`,
  },
  {
    ...{ id: 'emulated', aspect: 'nested-state', verdict: 'safe', sure: 'certain' },
    holds: { accel: ['tcg'], platform: ['intel', 'amd'], guest: ['hypervisor', 'nesting'] },
    why: "all state is the emulator's",
    wayOut: none,
    source: 'QEMU, target/i386/machine.c; test/vm/snapshot.test.ts',
  },
  {
    ...{ id: 'emulated-arm64', aspect: 'nested-state', verdict: 'lost', sure: 'likely' },
    holds: { accel: ['tcg'], platform: ['arm64'], guest: ['hypervisor', 'nesting'] },
    why: 'of an emulated arm64 processor at EL2, QEMU does not save the timers',
    wayOut: 'leave it running, or start it without --nested',
    source:
      'QEMU, vmstate_arm_cpu in target/arm/machine.c, which names the timers of EL1; a restored stack stood still',
  },
  {
    ...{ id: 'idle-hypervisor', aspect: 'nested-state', verdict: 'safe', sure: 'certain' },
    holds: { accel: ['kvm'], platform: ['intel', 'amd'], guest: ['hypervisor'] },
    why: 'a guest hypervisor without guests has no nested state in use',
    wayOut: none,
    source: `${kvmDocument}: expected to function normally even on AMD systems`,
  },
  {
    ...{ id: 'idle-arm64', aspect: 'nested-state', verdict: 'untested', sure: 'likely' },
    holds: { accel: ['kvm'], platform: ['arm64'], guest: ['hypervisor'] },
    why: "a guest hypervisor's kernel runs at EL2 there, and nobody is known to have moved or saved one",
    wayOut: 'leave it running',
    source: 'Linux, KVM_CAP_ARM_EL2 in virt/kvm/api.rst, which does not speak of it',
  },
  {
    ...{ id: 'intel-live', aspect: 'nested-state', verdict: 'safe', sure: 'certain' },
    holds: {
      accel: ['kvm'],
      platform: ['intel'],
      guest: ['nesting'],
      kernel: { from: [5, 3] },
      qemu: { from: [4, 2] },
    },
    why: 'KVM and QEMU save the state of VMX',
    wayOut: none,
    source: `${kvmDocument}; QEMU commit ebbfef2f34cf`,
  },
  {
    ...{ id: 'intel-backport', aspect: 'nested-state', verdict: 'untested', sure: 'reported' },
    holds: {
      ...{ accel: ['kvm'], platform: ['intel'], guest: ['nesting'] },
      ...{ kernel: { below: [5, 3] }, qemu: { from: [4, 2] }, capability: [true] },
    },
    why: 'the kernel says that it saves the state of VMX, but is older than the first that is known to',
    wayOut: `${stopInner}, or use Linux 5.3 or newer`,
    source: 'KVM_CAP_NESTED_STATE, as distributions have it in older kernels',
  },
  {
    ...{ id: 'intel-old-kernel', aspect: 'nested-state', verdict: 'lost', sure: 'certain' },
    holds: {
      ...{ accel: ['kvm'], platform: ['intel'], guest: ['nesting'] },
      ...{ kernel: { below: [5, 3] }, qemu: { from: [4, 2] }, capability: [false] },
    },
    why: 'Linux before 5.3 cannot save the state of VMX',
    wayOut: `${stopInner}, or use Linux 5.3 or newer`,
    source: kvmDocument,
  },
  {
    ...{ id: 'intel-old-qemu', aspect: 'nested-state', verdict: 'lost', sure: 'certain' },
    holds: { accel: ['kvm'], platform: ['intel'], guest: ['nesting'], qemu: { below: [4, 2] } },
    why: 'QEMU before 4.2 cannot save the state of VMX',
    wayOut: `${stopInner}, or use QEMU 4.2 or newer`,
    source: `${kvmDocument}; QEMU commit ebbfef2f34cf`,
  },
  {
    ...{ id: 'amd-live', aspect: 'nested-state', verdict: 'untested', sure: 'reported' },
    holds: { accel: ['kvm'], platform: ['amd'], guest: ['nesting'], kernel: { from: [5, 8] }, qemu: { from: [5, 2] } },
    why: 'KVM saves the state of SVM, but its document calls it undefined, and restores were still being mended in 2026',
    wayOut: stopInner,
    source: `${kvmDocument}; Linux commit cc440cdad5b7; QEMU commit b16c0e20c742`,
  },
  {
    ...{ id: 'amd-old-kernel', aspect: 'nested-state', verdict: 'lost', sure: 'certain' },
    holds: { accel: ['kvm'], platform: ['amd'], guest: ['nesting'], kernel: { below: [5, 8] }, qemu: { from: [5, 2] } },
    why: 'Linux before 5.8 cannot save the state of SVM: a guest that has been saved with guests in it is to be trusted no more',
    wayOut: `${stopInner}, or use Linux 5.8 or newer`,
    source: `${kvmDocument}; Linux commit cc440cdad5b7`,
  },
  {
    ...{ id: 'amd-old-qemu', aspect: 'nested-state', verdict: 'lost', sure: 'likely' },
    holds: { accel: ['kvm'], platform: ['amd'], guest: ['nesting'], qemu: { below: [5, 2] } },
    why: 'QEMU before 5.2 is not relied on to save the state of SVM',
    wayOut: `${stopInner}, or use QEMU 5.2 or newer`,
    source: 'QEMU commit b16c0e20c742, first in 5.1',
  },
  {
    ...{ id: 'arm64-live', aspect: 'nested-state', verdict: 'lost', sure: 'likely' },
    holds: { accel: ['kvm'], platform: ['arm64'], guest: ['nesting'] },
    why: 'KVM on arm64 has no state of nested guests that could be saved',
    wayOut: stopInner,
    source: 'Linux, KVM_GET_NESTED_STATE in virt/kvm/api.rst: x86 only',
  },
  {
    ...{ id: 's390x', aspect: 'nested-state', verdict: 'safe', sure: 'certain' },
    holds: { platform: ['s390x'], guest: ['hypervisor', 'nesting'] },
    why: 'moving a guest with guests in it works there, on older versions too',
    wayOut: none,
    source: kvmDocument,
  },
  {
    ...{ id: 'elsewhere', aspect: 'nested-state', verdict: 'lost', sure: 'likely' },
    holds: { platform: ['elsewhere'], guest: ['hypervisor', 'nesting'] },
    why: 'nothing is written of saving nested guests on this platform',
    wayOut: stopInner,
    source: `${kvmDocument}, which speaks of Intel, AMD and s390x`,
  },
  {
    ...{ id: 'same-qemu', aspect: 'qemu', verdict: 'safe', sure: 'certain' },
    holds: { qemus: ['same'] },
    why: 'one QEMU makes the same devices on both sides',
    wayOut: none,
    source: 'QEMU, migration compatibility',
  },
  {
    ...{ id: 'other-qemu', aspect: 'qemu', verdict: 'untested', sure: 'likely' },
    holds: { qemus: ['different'] },
    why: 'QEMU keeps machine types alike only where they have versions, which those of these guests have not',
    wayOut: sameQemu,
    source: 'QEMU, migration compatibility; its machine type microvm',
  },
  {
    ...{ id: 'same-processor', aspect: 'processor', verdict: 'safe', sure: 'certain' },
    holds: { processor: ['same'] },
    why: 'both sides offer the same processor',
    wayOut: none,
    source: 'QEMU, CPU models: host passthrough',
  },
  {
    ...{ id: 'more-features', aspect: 'processor', verdict: 'untested', sure: 'likely' },
    holds: { processor: ['more'] },
    why: 'the guest would be on a processor with features that it has not seen',
    wayOut: alike,
    source: 'QEMU, CPU models: with host passthrough the processor is not known to stay as it is',
  },
  {
    ...{ id: 'other-model', aspect: 'processor', verdict: 'untested', sure: 'likely' },
    holds: { processor: ['model'] },
    why: 'the guest would be on another model',
    wayOut: alike,
    source: 'QEMU, CPU models: with host passthrough the processor is not known to stay as it is',
  },
  {
    ...{ id: 'fewer-features', aspect: 'processor', verdict: 'lost', sure: 'certain' },
    holds: { processor: ['fewer'] },
    why: 'the guest would miss instructions that it may be using',
    wayOut: alike,
    source: 'QEMU, CPU models: host passthrough',
  },
  {
    ...{ id: 'other-maker', aspect: 'processor', verdict: 'lost', sure: 'certain' },
    holds: { processor: ['maker'] },
    why: "a guest's kernel is set up for the processor of one maker",
    wayOut: 'move it to where the processor is of the same maker',
    source: 'QEMU, CPU models',
  },
  {
    ...{ id: 'model-offered', aspect: 'processor', verdict: 'safe', sure: 'certain' },
    holds: { processor: ['offered'] },
    why: 'the guest has a named model, which the other side offers whole',
    wayOut: none,
    source: "QEMU, CPU models: named models isolate guests from the host's processor",
  },
  {
    ...{ id: 'model-lacking', aspect: 'processor', verdict: 'lost', sure: 'certain' },
    holds: { processor: ['lacking'] },
    why: 'the guest has a named model, which the other side cannot offer whole',
    wayOut: 'move it to where the model is offered, or start it anew with one that both do: --migratable=MODEL',
    source: 'QEMU, query-cpu-definitions: unavailable-features',
  },
]
