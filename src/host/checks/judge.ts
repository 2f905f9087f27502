import type { Facts } from '../facts/schema.ts'
import { checkAcrn } from './acrn.ts'
import { checkAmd } from './amd.ts'
import { checkArm64 } from './arm64.ts'
import { checkDevice } from './device.ts'
import type { Check, Finding } from './finding.ts'
import { checkHyperv } from './hyperv.ts'
import { checkIntel } from './intel.ts'
import { checkMachine } from './machine.ts'
import { checkPpc64 } from './ppc64.ts'
import { checkRiscv } from './riscv.ts'
import { checkS390x } from './s390x.ts'
import { checkWindows } from './windows.ts'

/** What is asked: whether so many levels of guests can be started on the last of the machines. */
export interface Question {
  depth: number
  /** What the outermost of them takes. */
  neededMiB: number
}

export interface Judgement {
  depth: number
  /** `kvm`: on KVM at every level; `emulated`: with an emulated outermost level; `no`: not at all. */
  reach: 'kvm' | 'emulated' | 'no'
  /** The ids of the findings that keep it from being `kvm`. */
  because: string[]
  machines: { machine: string; level: number; findings: Finding[] }[]
}

/** Judges a chain of machines, outermost first, each a guest of the one before it. */
export function judge(chain: readonly Facts[], question: Question): Judgement {
  const machines = chain.map((facts) => ({
    machine: facts.machine,
    level: facts.level,
    findings: sorted([...checkFacts(facts), ...(facts === chain.at(-1) ? depthFindings(facts, question) : [])]),
  }))
  const here = chain.at(-1)
  const findings = machines.at(-1)?.findings ?? []
  const stops = findings.filter(({ stops }) => stops === 'guests' || (stops === 'nesting' && question.depth > 1))
  const short = findings.some(({ id }) => id === 'depth-memory')
  const kvm = stops.length === 0 && !short
  const emulated = here !== undefined && !short && canEmulate(here)
  return {
    depth: question.depth,
    reach: kvm ? 'kvm' : emulated ? 'emulated' : 'no',
    because: [...stops.map(({ id }) => id), ...(short ? ['depth-memory'] : [])],
    machines,
  }
}

const checks: readonly Check[] = [
  checkIntel,
  checkAmd,
  checkArm64,
  checkS390x,
  checkPpc64,
  checkRiscv,
  checkHyperv,
  checkAcrn,
  checkDevice,
  checkMachine,
]

/** What is to be said of a machine by itself, whatever is to run on it. */
export function checkAlone(facts: Facts): Finding[] {
  return sorted(checkFacts(facts))
}

function checkFacts(facts: Facts): Finding[] {
  if (facts.windows) return checkWindows(facts)
  const findings = checks.flatMap((check) => check(facts))
  // That there is no /dev/kvm is worth a word only where nothing tells why.
  const told = findings.some(({ id, stops }) => stops === 'guests' && id !== 'kvm-absent')
  return findings.filter(({ id }) => id !== 'kvm-absent' || !told)
}

/** nestvm emulates on hosts that it runs on; guests run on KVM. */
function canEmulate({ level, arch, windows }: Facts): boolean {
  return level === 0 && !windows && (arch === 'x86_64' || arch === 'aarch64')
}

function depthFindings(facts: Facts, { depth, neededMiB }: Question): Finding[] {
  if (facts.windows) return []
  const { availableMiB } = facts.memory
  const memory: Finding =
    neededMiB > availableMiB
      ? {
          ...{ id: 'depth-memory', severity: 'problem', sure: 'certain' },
          seen: `${availableMiB} MiB of memory are free`,
          means: `${depth === 1 ? 'a guest takes' : `${depth} levels of guests take`} ${neededMiB} MiB`,
          mend: { advice: 'a smaller --memory or --depth; nestvm ls shows what else runs' },
        }
      : {
          ...{ id: 'depth-memory-enough', severity: 'good', sure: 'certain' },
          seen: `${availableMiB} MiB of memory are free`,
          means: `enough for ${depth === 1 ? 'a guest' : `${depth} levels of guests`}, which take${depth === 1 ? 's' : ''} ${neededMiB} MiB`,
        }
  return depth < 3 ? [memory] : [memory, ...deep(facts, depth)]
}

/** DVH (ASPLOS 2020): a hypercall of L1, L2 and L3 costs 1,575, 37,733 and 857,578 cycles. */
function deep({ level, arch }: Facts, depth: number): Finding[] {
  const findings: Finding[] = [
    {
      ...{ id: 'depth-exits', severity: 'note', sure: 'reported' },
      seen: `${depth} levels were asked for`,
      means: `an exit costs about 23 times as much with each level: L${level + depth} is for computing rather than for I/O`,
    },
  ]
  if (arch === 'aarch64' && level + depth > 3) {
    findings.push({
      ...{ id: 'depth-arm64', severity: 'warning', sure: 'reported' },
      seen: `${depth} levels were asked for`,
      means: 'nesting in nested guests on arm64 (NV2 in NV2) was not seen to boot a fourth level',
    })
  }
  return findings
}

const order: readonly Finding['severity'][] = ['problem', 'warning', 'note', 'good']

function sorted(findings: Finding[]): Finding[] {
  return findings.sort((a, b) => order.indexOf(a.severity) - order.indexOf(b.severity))
}
