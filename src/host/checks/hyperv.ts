import { type Check, type Finding, levelNames } from './finding.ts'
import { runsUnder } from './hypervisor.ts'

/**
 * Guests of Hyper-V, of Azure and WSL too; that the extension is hidden is for the processor's own check to say. Rules:
 * Microsoft, "Run Hyper-V in a Virtual Machine with Nested Virtualization"; Hypervisor Top Level Functional
 * Specification, leaves 0x40000003 and 0x4000000a.
 */
export const checkHyperv: Check = (facts) => {
  const under = runsUnder(facts)
  if (!under || !['hyperv', 'hyperv-root', 'azure', 'wsl'].includes(under.id)) return []
  const { here, guest } = levelNames(facts)
  if (under.id === 'hyperv-root') {
    return [
      {
        ...{ id: 'hyperv-root', severity: 'note', sure: 'certain' },
        seen: 'this machine is the root partition of Hyper-V: it may create partitions (CPUID 0x40000003 EBX[0])',
        means: 'its guests are those of Hyper-V (/dev/mshv), not of KVM',
      },
    ]
  }
  const exposed = facts.cpu.flags.some((flag) => flag === 'vmx' || flag === 'svm')
  if (!exposed) return []
  const findings: Finding[] = [
    {
      ...{ id: 'hyperv-exposed', severity: 'good', sure: 'certain' },
      seen: `under ${under.name} the processor shows its virtualization extension`,
      means: `nested virtualization is exposed to ${here}`,
    },
  ]
  if (under.id !== 'hyperv') return findings
  return [
    ...findings,
    {
      ...{ id: 'hyperv-memory', severity: 'note', sure: 'certain' },
      seen: 'this machine runs under Hyper-V',
      means: `while ${here} runs guests, its own memory cannot be changed, neither dynamically nor by hand`,
    },
    {
      ...{ id: 'hyperv-mac', severity: 'note', sure: 'certain' },
      seen: 'this machine runs under Hyper-V',
      means: `frames of a bridged ${guest} are dropped unless the host allows foreign MAC addresses; nestvm's own networks need nothing`,
      mend: { shell: 'powershell', lasting: ['Set-VMNetworkAdapter -VMName NAME -MacAddressSpoofing On'] },
    },
  ]
}
