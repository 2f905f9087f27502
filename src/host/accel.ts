import type { Machine } from '../machine/machine.ts'
import { readText } from '../machine/read.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { type Arch, hostArch } from './arch.ts'
import { checkAlone } from './checks/judge.ts'
import type { Facts } from './facts/schema.ts'
import { type KvmAnswer, kvmAnswer } from './kvm.ts'
import { type CpuVendor, vendorOf } from './vendor.ts'

export interface AccelChoice {
  accel: 'kvm' | 'tcg'
  /** A sentence for people. */
  reason: string
}

/**
 * Chooses how the outermost level runs. `auto` takes KVM when a tiny guest ran through it and, where guests are to
 * nest, when it offers nesting, and where `vendor` is given, when the processor is of that; explicit `kvm` throws instead of falling back: `KVM_ABSENT`, `KVM_PERMISSION`,
 * `KVM_UNUSABLE` or `NESTED_DISABLED`.
 */
export async function chooseAccel(
  wanted: 'auto' | 'kvm' | 'tcg',
  machine: Machine,
  qemu: readonly string[],
  { nested, arch, vendor, signal }: { nested: boolean; arch: Arch; vendor?: CpuVendor; signal?: AbortSignal },
): Promise<AccelChoice> {
  if (wanted === 'tcg') return { accel: 'tcg', reason: 'emulation was asked for' }
  if (arch !== hostArch()) return emulated(wanted, otherArchitecture(arch))
  const other = vendor && otherVendor(vendor, await vendorId(machine))
  if (other) return emulated(wanted, other)
  const kvm = await kvmAnswer(machine, qemu, { signal })
  const refusal = kvm.usable ? nested && (await nestingRefusal(machine, kvm)) : kvm
  return refusal ? emulated(wanted, refusal) : { accel: 'kvm', reason: kvm.reason }
}

interface Refusal {
  code: string
  reason: string
  hint?: string
}

function emulated(wanted: 'auto' | 'kvm', refusal: Refusal): AccelChoice {
  if (wanted === 'auto') return { accel: 'tcg', reason: `KVM is not used: ${refusal.reason}` }
  throw new NestvmError(refusal.code, `--accel kvm cannot be had: ${refusal.reason}`, {
    hint: refusal.hint ?? '--accel auto emulates where KVM does not work',
    details: { reason: refusal.reason },
  })
}

function otherArchitecture(arch: Arch): Refusal {
  return { code: 'KVM_UNUSABLE', reason: `the processor is ${hostArch()}, and the guests are ${arch}` }
}

function otherVendor(vendor: CpuVendor, id: string | undefined): Refusal | undefined {
  if (vendorOf(id) === vendor) return undefined
  const names = { amd: 'AMD', intel: 'Intel' }
  return {
    code: 'KVM_UNUSABLE',
    reason: `the processor is ${id ?? 'of nobody known'}, and ${names[vendor]}'s was asked for`,
  }
}

async function vendorId(machine: Machine): Promise<string | undefined> {
  return /^vendor_id\s*: (.*)$/m.exec(await readText(machine, '/proc/cpuinfo'))?.[1]
}

/** The same choice for a machine that is not here, by what doctor finds in its facts. */
export function accelByFacts(
  wanted: 'auto' | 'kvm' | 'tcg',
  facts: Facts,
  guests: Arch,
  nested: boolean,
  vendor?: CpuVendor,
): AccelChoice {
  if (wanted === 'tcg') return { accel: 'tcg', reason: 'emulation was asked for' }
  if (facts.arch !== guests) return emulated(wanted, otherArchitecture(guests))
  const other = vendor && otherVendor(vendor, facts.cpu.vendor)
  if (other) return emulated(wanted, other)
  const stop = checkAlone(facts).find(({ stops }) => stops === 'guests' || (nested && stops === 'nesting'))
  if (!stop) return { accel: 'kvm', reason: facts.probe?.reason ?? 'nothing in its facts speaks against KVM' }
  if (wanted === 'auto') return { accel: 'tcg', reason: `KVM is not used: ${stop.seen} (${stop.id})` }
  throw new NestvmError(
    stop.stops === 'nesting' ? 'NESTED_DISABLED' : 'KVM_UNUSABLE',
    `--accel kvm cannot be had: ${stop.seen} (${stop.id})`,
    { hint: stop.mend?.now?.join(' && ') ?? stop.mend?.advice, details: { reason: stop.seen } },
  )
}

/** The parameter reads Y, y or 1 when on (bool in kvm_intel, int in kvm_amd). */
async function nestingRefusal(machine: Machine, { nestingRefused }: KvmAnswer): Promise<Refusal | undefined> {
  if (nestingRefused) {
    return {
      code: 'NESTED_DISABLED',
      reason: `KVM works, but does not let a guest be a hypervisor: ${nestingRefused}`,
      hint: 'nesting takes Linux 6.16 or newer, started with kvm-arm.mode=nested, and a processor with FEAT_NV2',
    }
  }
  const script =
    'for m in kvm_intel kvm_amd; do f=/sys/module/$m/parameters/nested; [ -r $f ] && echo $m $(cat $f); done; true'
  const { stdout } = await run(machine, ['sh', '-c', script], { timeoutMs: 30_000 })
  const [module, value] = stdout.trim().split(' ')
  if (!module || /^[Yy1]$/.test(value ?? '')) return undefined
  return {
    code: 'NESTED_DISABLED',
    reason: `${module} is loaded with nested=${value}, so its guests cannot be hypervisors`,
    hint: `sudo modprobe -r ${module} && sudo modprobe ${module} nested=1`,
  }
}
