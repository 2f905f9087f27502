import type { Facts } from '../facts/schema.ts'

/** One thing that a check has to say. */
export interface Finding {
  /** Stable: scripts match on it. */
  id: string
  /** `problem`: something does not work; `warning`: it works badly or not for long; `good`: looked at, and as it should be. */
  severity: 'problem' | 'warning' | 'note' | 'good'
  /** What was seen on the machine. */
  seen: string
  /** What follows from it, and for which level. */
  means: string
  mend?: Mend
  /** `certain`: the kernel's or the vendor's own rule; `likely`: follows from what was seen; `reported`: by others, not by the source. */
  sure: 'certain' | 'likely' | 'reported'
  /** What cannot be with it: guests of this machine on KVM at all, or that such guests are hypervisors. */
  stops?: 'guests' | 'nesting'
}

export interface Mend {
  /** Commands that help until the next reboot. */
  now?: string[]
  /** Commands after which it stays mended. */
  lasting?: string[]
  /** What the commands are for; a POSIX shell of the machine unless said. */
  shell?: 'powershell'
  /** What no command does. */
  advice?: string
}

/** A pure function of one machine's document. */
export type Check = (facts: Facts) => Finding[]

/** How levels are called, seen from a machine: itself, its guests, and theirs. */
export function levelNames({ level }: Facts): { here: string; guest: string; nested: string } {
  return { here: `L${level}`, guest: `L${level + 1}`, nested: `L${level + 2}` }
}

/** A parameter of a module; undefined when the module is not there, or does not have it. */
export function parameter({ kvm }: Facts, module: string, name: string): string | undefined {
  return kvm.modules[module]?.parameters[name]
}

/** Some are bools, others ints, and which is which has changed between kernels. */
export function isOn(value: string | undefined): boolean | undefined {
  return value === undefined ? undefined : /^[Yy1]$/.test(value)
}

/** Of kernels and of QEMU: `6.16`, and 6.16.0-rc1 too, is at least 6.16. */
export function atLeast(version: string, major: number, minor: number): boolean {
  const [first = 0, second = 0] = version.split('.').map((part) => Number.parseInt(part, 10))
  return first > major || (first === major && second >= minor)
}
