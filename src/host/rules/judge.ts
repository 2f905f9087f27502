import type { Arch } from '../arch.ts'
import { atLeast } from '../checks/finding.ts'
import { vendorOf } from '../vendor.ts'
import { type Aspect, type Holds, type Platform, type Rule, rules, type Versions } from './table.ts'

type Facts<T> = { [K in keyof T]-?: NonNullable<T[K]> extends readonly (infer One)[] ? One : string }

/** All that the rules ask; which of it depends on the aspect. */
export type Given = Facts<Holds>

/** What decides about guests in a guest. Versions are as `uname -r` and `qemu --version` have them. */
export type NestedState = Pick<Given, 'platform' | 'accel' | 'guest' | 'kernel' | 'qemu'> & { capability?: boolean }

export function nestedStateRule({ capability = false, ...given }: NestedState): Rule {
  return theRule('nested-state', { ...given, capability })
}

/** Of a guest that QEMU emulates, with AMD's extension on x86, the machine around it does not matter. */
export function emulatedRule(arch: Arch, guest: Given['guest']): Rule {
  const platform = arch === 'arm64' ? 'arm64' : 'amd'
  return nestedStateRule({ platform, accel: 'tcg', guest, kernel: '', qemu: '' })
}

/** What a guest is to the rules, given how many guests run in it. */
export function guestKind(nested: boolean, live: number): Given['guest'] {
  if (live > 0) return 'nesting'
  return nested ? 'hypervisor' : 'plain'
}

export function qemuRule(qemus: Given['qemus']): Rule {
  return theRule('qemu', { qemus })
}

export function processorRule(processor: Given['processor']): Rule {
  return theRule('processor', { processor })
}

function theRule(aspect: Aspect, given: Partial<Given>): Rule {
  const [rule] = rulesFor(aspect, given)
  if (!rule) throw new RangeError(`there is no rule of ${aspect} for ${JSON.stringify(given)}`)
  return rule
}

/** Those that hold: one, or the table is wrong. */
export function rulesFor(aspect: Aspect, given: Partial<Given>): Rule[] {
  return rules.filter((rule) => rule.aspect === aspect && holds(rule.holds, given))
}

function holds(wanted: Holds, given: Partial<Given>): boolean {
  return (
    among(wanted.platform, given.platform) &&
    among(wanted.accel, given.accel) &&
    among(wanted.guest, given.guest) &&
    among(wanted.capability, given.capability) &&
    among(wanted.qemus, given.qemus) &&
    among(wanted.processor, given.processor) &&
    within(wanted.kernel, given.kernel) &&
    within(wanted.qemu, given.qemu)
  )
}

function among<T>(wanted: readonly T[] | undefined, one: T | undefined): boolean {
  return wanted === undefined || (one !== undefined && wanted.includes(one))
}

function within(wanted: Versions | undefined, version = ''): boolean {
  const { from, below } = wanted ?? {}
  return (!from || atLeast(version, ...from)) && (!below || !atLeast(version, ...below))
}

/** Of a machine, by `uname -m` and by the vendor that /proc/cpuinfo names on x86. */
export function platformOf(arch: string, vendor: string | undefined): Platform {
  if (arch === 'aarch64') return 'arm64'
  if (arch === 's390x') return 's390x'
  return arch === 'x86_64' ? (vendorOf(vendor) ?? 'elsewhere') : 'elsewhere'
}
