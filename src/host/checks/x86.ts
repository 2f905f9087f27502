import type { Facts } from '../facts/schema.ts'
import { type Finding, isOn, levelNames, type Mend, parameter } from './finding.ts'
import { runsUnder } from './hypervisor.ts'
import { setParameter } from './mend.ts'
import { nestedStateFinding } from './nested-state.ts'

/** What Intel's and AMD's extension have in common, as far as the checks go. */
export interface Extension {
  /** Begins the ids of its findings. */
  prefix: 'intel' | 'amd'
  flag: 'vmx' | 'svm'
  name: string
  module: 'kvm_intel' | 'kvm_amd'
  /** Its bit in raw CPUID, which firmware does not change. */
  raw: boolean | undefined
  /** What the kernel says when firmware has switched it off. */
  firmwareLog: RegExp
  /** As firmware set-ups call it. */
  setting: string
}

/** Whether the processor offers the extension, KVM has it, and hands it on. */
export function extensionFindings(facts: Facts, extension: Extension): Finding[] {
  const missing = missingExtension(facts, extension)
  if (missing) return [missing]
  return [
    {
      id: `${extension.prefix}-extension`,
      severity: 'good',
      seen: `the processor shows ${extension.flag} (${extension.name})`,
      means: `${levelNames(facts).here} can run guests on KVM`,
      sure: 'certain',
    },
    ...moduleFindings(facts, extension),
  ]
}

/**
 * A flag that is not in /proc/cpuinfo says little: the kernel takes vmx away when firmware has locked it off (Linux,
 * arch/x86/kernel/cpu/feat_ctl.c), and svm too since 6.7 (cpu/amd.c). Raw CPUID tells which it is.
 */
function missingExtension(facts: Facts, { prefix, flag, name, raw, firmwareLog, setting }: Extension) {
  const { here } = levelNames(facts)
  const there = facts.cpu.flags.includes(flag)
  const line = facts.log?.find((text) => firmwareLog.test(text))
  const under = runsUnder(facts)
  if (there && (!line || facts.kvm.device)) return undefined
  const without = `${here} cannot run guests on KVM`
  const stops = 'guests' as const
  if (line || raw) {
    return {
      ...({ id: `${prefix}-firmware-lock`, severity: 'problem', stops } as const),
      seen: line
        ? `the kernel says: ${line.replace(/^\[[^\]]*\]\s*/, '')}`
        : `the processor has ${name} by raw CPUID, but the kernel does not show ${flag}`,
      means: `firmware has switched ${name} off, and locked it until the next reset: ${without}`,
      mend: {
        advice: under
          ? `this machine's firmware is that of ${under.name}: ${under.mend.advice ?? 'it has to switch the extension on'}`
          : `switch "${setting}" on in the firmware's set-up (BIOS, UEFI), and then switch the machine off and on`,
      },
      sure: line ? ('certain' as const) : ('likely' as const),
    }
  }
  if (under) {
    return {
      ...({ id: `${prefix}-hidden`, severity: 'problem', stops } as const),
      seen: `the processor shows no ${flag}${raw === false ? ', in raw CPUID neither' : ''}, and this machine is a guest of ${under.name}`,
      means: `${under.name} does not offer nested virtualization to this machine: ${without}`,
      mend: facts.level > 0 ? startNested : under.mend,
      sure: raw === false ? under.sure : ('likely' as const),
    }
  }
  return {
    ...({ id: `${prefix}-absent`, severity: 'problem', stops } as const),
    seen: `the processor shows no ${flag}${raw === false ? ', in raw CPUID neither' : ''}`,
    means:
      raw === false ? `it does not have ${name}: ${without}` : `it lacks ${name}, or firmware hides it: ${without}`,
    mend: raw === false ? undefined : { advice: `look for "${setting}" in the firmware's set-up` },
    sure: raw === false ? ('certain' as const) : ('likely' as const),
  }
}

/** nestvm shows a guest the extension only when it is to be a hypervisor. */
const startNested: Mend = {
  lasting: ['nestvm run -d --nested --name NAME'],
  advice: 'this guest was not started as a hypervisor: another one has to be',
}

function moduleFindings(facts: Facts, { prefix, module }: Extension): Finding[] {
  const { here, guest, nested } = levelNames(facts)
  const { kvm, kernel } = facts
  if (!kvm.modules[module]) {
    if (facts.container && kvm.registered) return []
    const option = kernel.config[module.toUpperCase()]
    const loadable = kvm.loadable.includes(module)
    return [
      {
        id: `${prefix}-module-missing`,
        severity: 'problem',
        seen: loadable
          ? `the module ${module} is not loaded`
          : option === 'n'
            ? `the kernel ${kernel.release} was built without ${module} (CONFIG_${module.toUpperCase()})`
            : `there is no module ${module} for the kernel ${kernel.release}`,
        means: `${here} has no KVM for this processor`,
        mend: loadable
          ? { now: [`sudo modprobe ${module}`], lasting: [`echo ${module} | sudo tee /etc/modules-load.d/kvm.conf`] }
          : { advice: 'boot a kernel with KVM: those of Debian, Ubuntu, Fedora and SUSE have it' },
        sure: loadable ? 'certain' : 'likely',
        stops: 'guests',
      },
    ]
  }
  const value = parameter(facts, module, 'nested')
  if (value === undefined) return []
  if (isOn(value)) {
    const means = `guests of ${here} (${guest}) can run KVM, and so guests of their own (${nested})`
    const seen = `${module} has nested=${value}`
    return [{ id: `${prefix}-nested`, severity: 'good', seen, means, sure: 'certain' }, nestedStateFinding(facts)]
  }
  return [
    {
      id: `${prefix}-nested-off`,
      severity: 'problem',
      seen: `${module} has nested=${value}`,
      means: `${guest} sees no virtualization extension, so there can be no ${nested} on KVM`,
      mend: setParameter(facts, module, 'nested=1'),
      sure: 'certain',
      stops: 'nesting',
    },
  ]
}

/** A parameter that is off without stopping anything. */
export function parameterOff(
  facts: Facts,
  module: string,
  name: string,
  finding: Pick<Finding, 'id' | 'means'> & Partial<Finding>,
): Finding[] {
  const value = parameter(facts, module, name)
  if (value === undefined || isOn(value)) return []
  const seen = `${module} has ${name}=${value}`
  return [{ severity: 'warning', seen, mend: setParameter(facts, module, `${name}=1`), sure: 'certain', ...finding }]
}

/** A parameter that is on, where that is worth a word. */
export function parameterOn(facts: Facts, module: string, name: string, id: string, means: string): Finding[] {
  const value = parameter(facts, module, name)
  if (!isOn(value)) return []
  return [{ id, severity: 'good', seen: `${module} has ${name}=${value}`, means, sure: 'certain' }]
}
