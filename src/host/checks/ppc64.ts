import { type Check, type Finding, isOn, levelNames, parameter } from './finding.ts'
import { setParameter } from './mend.ts'
import { nestedStateFinding } from './nested-state.ts'

/** ppc64: nesting takes POWER9 or later and radix page tables. Rules: Linux, arch/powerpc/kvm/book3s_hv.c and _nested.c. */
export const checkPpc64: Check = (facts) => {
  if (!/^ppc64/.test(facts.arch)) return []
  const { here, guest, nested } = levelNames(facts)
  const findings: Finding[] = []
  if (!facts.kvm.modules.kvm_hv) {
    const guestMachine = /pSeries/i.test(facts.cpu.platform ?? '')
    findings.push({
      ...{ id: 'ppc64-module-missing', severity: 'problem', sure: 'certain', stops: 'guests' },
      seen: `the module kvm_hv is not loaded${guestMachine ? ', and this machine is itself a guest (pSeries)' : ''}`,
      means: `${here} cannot run guests on KVM`,
      mend: {
        now: ['sudo modprobe kvm_hv'],
        advice: guestMachine
          ? 'its hypervisor has to offer nesting: with QEMU, -M pseries,cap-nested-hv=on'
          : undefined,
      },
    })
    return findings
  }
  if (facts.cpu.mmu && !/radix/i.test(facts.cpu.mmu)) {
    findings.push({
      ...{ id: 'ppc64-hash', severity: 'problem', sure: 'certain', stops: 'nesting' },
      seen: `page tables are ${facts.cpu.mmu}`,
      means: `nesting takes radix page tables: there can be no ${nested} on KVM`,
      mend: { advice: 'boot without disable_radix, on POWER9 or later' },
    })
  }
  const value = parameter(facts, 'kvm_hv', 'nested')
  if (isOn(value)) {
    const means = `${guest} can run KVM where it is started with cap-nested-hv=on`
    const seen = `kvm_hv has nested=${value}`
    findings.push({ id: 'ppc64-nested', severity: 'good', seen, means, sure: 'certain' }, nestedStateFinding(facts))
  } else if (value !== undefined) {
    findings.push({
      ...{ id: 'ppc64-nested-off', severity: 'problem', sure: 'certain', stops: 'nesting' },
      seen: `kvm_hv has nested=${value}`,
      means: `${guest} cannot run KVM, so there can be no ${nested} on it`,
      mend: {
        now: ['echo Y | sudo tee /sys/module/kvm_hv/parameters/nested'],
        lasting: setParameter(facts, 'kvm_hv', 'nested=1').lasting,
      },
    })
  }
  return findings
}
