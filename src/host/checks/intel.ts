import { cpuidBit } from '../facts/cpuid.ts'
import { type Check, type Finding, isOn, levelNames, parameter } from './finding.ts'
import { runsUnder } from './hypervisor.ts'
import { extensionFindings, parameterOff, parameterOn } from './x86.ts'

/**
 * Intel's VMX, Zhaoxin's too. Rules: Linux, arch/x86/kvm/vmx/vmx.c and nested.c, arch/x86/kernel/cpu/feat_ctl.c; the bit
 * is CPUID.1:ECX[5] (Intel SDM volume 3, 24.6).
 */
export const checkIntel: Check = (facts) => {
  if (facts.arch !== 'x86_64' || !/GenuineIntel|CentaurHauls|Shanghai/.test(facts.cpu.vendor ?? '')) return []
  const findings = extensionFindings(facts, {
    ...{ prefix: 'intel', flag: 'vmx', name: 'VT-x', module: 'kvm_intel' },
    raw: cpuidBit(facts, 1, 'ecx', 5),
    firmwareLog: /VMX \((outside|inside) TXT\) disabled by BIOS|VMX not enabled \(by BIOS\)|kvm: disabled by bios/i,
    setting: 'Intel Virtualization Technology (VT-x)',
  })
  const { here, guest, nested } = levelNames(facts)
  const off = (name: string, finding: Pick<Finding, 'id' | 'means'> & Partial<Finding>) =>
    parameterOff(facts, 'kvm_intel', name, finding)
  const on = (name: string, id: string, means: string) => parameterOn(facts, 'kvm_intel', name, id, means)
  return [
    ...findings,
    ...on('ept', 'intel-ept', `page tables of guests are walked by the processor; ${guest} can use them for ${nested}`),
    ...off('ept', {
      id: 'intel-ept-off',
      means: `each change of a page table in a guest is an exit: ${guest} is slow, and ${nested} many times slower`,
    }),
    ...off('unrestricted_guest', {
      id: 'intel-unrestricted-guest-off',
      means: `real mode, in which firmware starts, is emulated: ${guest} and ${nested} start slowly, and some do not`,
      // It needs EPT, and goes with it.
      mend: isOn(parameter(facts, 'kvm_intel', 'ept')) ? undefined : { advice: 'it comes with ept=1' },
    }),
    ...on('enable_shadow_vmcs', 'intel-shadow-vmcs', `${guest} reads and writes its VMCS without exits`),
    ...off('enable_shadow_vmcs', {
      id: 'intel-shadow-vmcs-off',
      means: `each VMREAD and VMWRITE of ${guest} is an exit to ${here}, tens of them for one exit of ${nested}`,
      ...lacks('shadow_vmcs'),
    }),
    ...off('enable_apicv', {
      ...{ id: 'intel-apicv-off', means: `interrupts for ${guest} cost exits, and for ${nested} several` },
      ...(lacks('apicv') ?? { severity: 'note' }),
    }),
  ]

  /** Without the hardware's feature the parameter is forced to N, which is nobody's mistake. Haswell and later have both. */
  function lacks(feature: string): Partial<Finding> | undefined {
    const { vmxFlags } = facts.cpu
    if (vmxFlags.length === 0 || vmxFlags.includes(feature)) return undefined
    const under = runsUnder(facts)
    return {
      severity: 'note',
      mend: { advice: under ? `${under.name} does not offer it to this machine` : 'the processor does not have it' },
    }
  }
}
