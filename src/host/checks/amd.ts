import { cpuidBit } from '../facts/cpuid.ts'
import { type Check, type Finding, levelNames } from './finding.ts'
import { extensionFindings, parameterOff, parameterOn } from './x86.ts'

/**
 * AMD's SVM, Hygon's too. Rules: Linux, arch/x86/kvm/svm/svm.c and nested.c; the bit is CPUID 8000_0001h ECX[2], and
 * firmware's switch VM_CR.SVMDIS (AMD APM volume 2, 15.30.1).
 */
export const checkAmd: Check = (facts) => {
  if (facts.arch !== 'x86_64' || !/AuthenticAMD|HygonGenuine/.test(facts.cpu.vendor ?? '')) return []
  const findings = extensionFindings(facts, {
    ...{ prefix: 'amd', flag: 'svm', name: 'AMD-V', module: 'kvm_amd' },
    raw: cpuidBit(facts, 0x80000001, 'ecx', 2),
    firmwareLog: /SVM disabled \(by BIOS\)|kvm: disabled by bios/i,
    setting: 'SVM Mode',
  })
  const { guest, nested } = levelNames(facts)
  const off = (name: string, finding: Pick<Finding, 'id' | 'means'> & Partial<Finding>) =>
    parameterOff(facts, 'kvm_amd', name, finding)
  // A processor without the feature forces its parameter to 0: then it is no mistake of anybody's.
  const has = (bit: number) => cpuidBit(facts, 0x8000000a, 'edx', bit)
  const feature = (bit: number): Partial<Finding> =>
    has(bit) === false
      ? { severity: 'note', mend: { advice: 'the processor, as this machine sees it, does not have the feature' } }
      : {}
  return [
    ...findings,
    ...parameterOn(
      facts,
      ...(['kvm_amd', 'npt', 'amd-npt'] as const),
      `page tables of guests are walked by the processor; ${guest} can use them for ${nested}`,
    ),
    ...off('npt', {
      id: 'amd-npt-off',
      means: `each change of a page table in a guest is an exit: ${guest} is slow, and ${nested} many times slower`,
    }),
    ...off('vgif', {
      id: 'amd-vgif-off',
      means: `each STGI and CLGI of ${guest} is an exit, two for each entry into ${nested}`,
      ...feature(16),
    }),
    ...off('vls', {
      id: 'amd-vls-off',
      means: `each VMLOAD and VMSAVE of ${guest} is an exit, four for each entry into ${nested}`,
      ...feature(15),
    }),
    ...off('nrips', {
      ...{ id: 'amd-nrips-off', severity: 'note' },
      means: `instructions that cause exits are decoded by software: exits of ${nested} cost more`,
      ...feature(3),
    }),
    ...off('avic', {
      ...{ id: 'amd-avic-off', severity: 'note', mend: undefined },
      means: `interrupts for ${guest} cost exits; the kernel keeps AVIC off where it is unreliable, and never uses it for a guest while that runs guests`,
    }),
  ]
}
