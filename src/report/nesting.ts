import { runsUnder } from '../host/checks/hypervisor.ts'
import type { Visit } from './visit.ts'

/** How one guest runs, and what proves it. */
export interface Proof {
  level: number
  machine: string
  on: 'kvm' | 'emulation'
  /** It runs on the KVM of a guest that runs on KVM itself. */
  kvmOnKvm: boolean
  /** What was seen that shows it; absent where nothing was. */
  proof?: string
}

/**
 * The kernel's document asks to prove KVM on KVM, or to name emulation, since the two are confused. The proof is KVM's
 * own counters for that guest, on the level that runs it; a signature in CPUID is what QEMU says.
 */
export function proofs(visits: readonly Visit[]): Proof[] {
  return visits.flatMap((visit) => {
    const { level, machine, record } = visit
    if (!record) return []
    const parent = visits.find((other) => other.record?.id === record.parent && record.parent !== undefined)
    const on = record.accel === 'kvm' ? 'kvm' : 'emulation'
    const kvmOnKvm = on === 'kvm' && parent?.record?.accel === 'kvm'
    return [{ level, machine, on, kvmOnKvm, proof: evidence(level, on, kvmOnKvm ? parent : undefined, visit) }]
  })
}

function evidence(level: number, on: Proof['on'], parent: Visit | undefined, visit: Visit): string | undefined {
  const { counters, signature } = visit
  const sees = signature ? `the guest sees the hypervisor ${signature}` : undefined
  if (on === 'emulation') return sees
  const ran = counters && counters.exits > 0 ? `L${level - 1}'s KVM counts ${counters.exits} exits of it` : undefined
  const nested = parent?.counters?.nestedRun
  const entered = nested
    ? `L${level - 2}'s KVM entered guests of ${parent?.machine} ${nested} times (nested_run)`
    : undefined
  const all = [ran, entered, sees].filter((one) => one !== undefined)
  return all.length > 0 ? all.join('; ') : undefined
}

/** One sentence for each host and guest. */
export function nestingText(visits: readonly Visit[]): string[] {
  const depth = Math.max(...visits.map(({ level }) => level))
  const setUp =
    depth >= 2
      ? `This is a nested setup: ${depth} levels of guests, L1 to L${depth}.`
      : depth === 1
        ? 'One level of guests of nestvm runs here, L1: no guest in a guest.'
        : 'No guest of nestvm runs here.'
  const hosts = visits
    .filter(({ record }) => !record)
    .map(({ facts, machine }) => {
      if (!facts) return `L0 (${machine}): what it runs under is not known.`
      const under = runsUnder(facts)
      return `L0 (${machine}) ${under ? `is itself a guest, under ${under.name}: all levels count from it.` : 'shows no hypervisor: bare metal.'}`
    })
  return [setUp, ...hosts, ...proofs(visits).map((proof) => guestText(proof, visits))]
}

function guestText({ level, machine, on, kvmOnKvm, proof }: Proof, visits: readonly Visit[]): string {
  const name = `L${level} (${machine})`
  const record = visits.find((visit) => visit.machine === machine)?.record
  if (on === 'emulation') {
    return `${name} is emulated by QEMU (TCG) on L${level - 1}, not run on its KVM: ${record?.accelReason}${proof ? `; ${proof}` : ''}.`
  }
  const how = kvmOnKvm
    ? `KVM on KVM: ${name} runs on the KVM of L${level - 1}, which runs on KVM itself`
    : `${name} runs on the KVM of L${level - 1}`
  return `${how}. ${proof ? `Proof: ${proof}` : 'Not proven: no counters of KVM could be read, and the guest did not answer'}.`
}
