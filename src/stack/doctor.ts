import type { Bundle } from '../bundle/bundle.ts'
import type { Arch } from '../host/arch.ts'
import { collectFacts } from '../host/facts/collect.ts'
import type { Facts } from '../host/facts/schema.ts'
import { kvmAnswer } from '../host/kvm.ts'
import type { Machine } from '../machine/machine.ts'
import { isHostUrl } from '../machine/ssh-settings.ts'
import { machinePaths } from '../store/paths.ts'
import type { Context } from './context.ts'
import { thisHost } from './host.ts'
import { answerLimitMs, overheadMiB } from './plan.ts'
import { type GuestRecord, lineage, listRecords, runningRecord } from './record.ts'

export interface Examination {
  /** A guest's path, an `ssh://` address, or '' for this host. */
  on: string
  /** For guests of an architecture, the host's unless said; got only where there is a KVM to be tried. */
  bundle: (arch?: Arch) => Promise<Bundle>
  /** Ask KVM again rather than repeat the answer of this boot. */
  refresh?: boolean
  /** Told before each machine is looked at. */
  onMachine?: (name: string) => void
}

/**
 * The facts of a machine, after those of all that it runs in. One machine after the other: trying KVM is a matter of
 * time. Throws `NO_SUCH_MACHINE`, `NOT_RUNNING`, and what connecting throws.
 */
export async function examine(context: Context, examination: Examination): Promise<Facts[]> {
  const chain: Facts[] = []
  for (const patient of await patients(context, examination.on)) {
    examination.onMachine?.(patient.name)
    chain.push(await examineOne(context, await patient.connect(), patient, examination))
  }
  return chain
}

/** What guests take with the memory that they have unless told otherwise. */
export function neededMiB(depth: number): number {
  return 512 + (depth - 1) * overheadMiB
}

/** A machine to be looked at. */
export interface Patient {
  name: string
  level: number
  /** Of a guest. */
  arch?: Arch
  connect: () => Promise<Machine>
  qemu: (bundle: Bundle) => readonly string[]
  /** Where KVM's answer is kept, where that is not with the others. */
  probePath?: string
}

async function patients(context: Context, on: string): Promise<Patient[]> {
  const isHost = on === '' || isHostUrl(on)
  const guests = isHost ? [] : lineage(await runningRecord(on), await listRecords())
  const name = guests[0]?.host ?? (on || thisHost)
  return [hostPatient(context, name), ...guests.map((record) => guestPatient(context, record))]
}

export function hostPatient(context: Context, name: string): Patient {
  return {
    ...{ name, level: 0 },
    connect: async () => (await context.hostNamed(name)).machine,
    qemu: ({ tools }) => tools.qemuArgv(),
  }
}

export function guestPatient(context: Context, record: GuestRecord): Patient {
  return {
    ...{ name: record.path, level: record.level, arch: record.arch },
    connect: () => context.guest(record),
    // The smaller one has no device to report through.
    qemu: ({ guest }: Bundle) => guest.qemuArgvInGuest,
    probePath: machinePaths(record.id).kvmProbe,
  }
}

/** The facts of one machine; why its KVM was not tried is one of them. */
export async function examineOne(
  { signal }: Pick<Context, 'signal'>,
  machine: Machine,
  { level, arch, qemu, probePath }: Patient,
  { bundle, refresh }: Pick<Examination, 'bundle' | 'refresh'>,
): Promise<Facts> {
  const facts = await collectFacts(machine, { level, timeoutMs: answerLimitMs(level), signal })
  const { device } = facts.kvm
  const open = device?.readable && device.writable
  try {
    const { key: _, ...probe } = await kvmAnswer(machine, open ? qemu(await bundle(arch)) : [], {
      ...{ refresh, signal, path: probePath },
    })
    return { ...facts, probe }
  } catch (error) {
    signal.throwIfAborted()
    return { ...facts, probeError: error instanceof Error ? error.message : String(error) }
  }
}
