import { cpuidBit } from '../facts/cpuid.ts'
import { type Check, type Finding, isOn, levelNames, parameter } from './finding.ts'
import { runsUnder } from './hypervisor.ts'
import { setParameter } from './mend.ts'

/**
 * ACRN: it hides VMX from its VMs unless nesting is on, which only the Service VM may have. Rules: ACRN, "Enable Nested
 * Virtualization"; bit 0 of CPUID 0x40000001 EAX tells the Service VM (Linux, arch/x86/include/asm/acrn.h).
 */
export const checkAcrn: Check = (facts) => {
  const under = runsUnder(facts)
  if (under?.id !== 'acrn') return []
  const { here, guest } = levelNames(facts)
  const service = facts.devices.includes('/dev/acrn_hsm') || cpuidBit(facts, 0x40000001, 'eax', 0)
  if (!service) {
    return [
      {
        ...{ id: 'acrn-not-service-vm', severity: 'problem', sure: 'certain', stops: 'guests' },
        seen: 'this machine runs under ACRN, but is not its Service VM',
        means: 'ACRN nests in the Service VM only: pre-launched and post-launched VMs cannot run guests',
        mend: { advice: 'run guests from the Service VM' },
      },
    ]
  }
  const findings = kernelFindings(facts)
  if (!facts.cpu.flags.includes('vmx')) return findings
  findings.push(
    {
      ...{ id: 'acrn-exposed', severity: 'good', sure: 'certain' },
      seen: 'this machine is the Service VM of ACRN, and its processor shows vmx',
      means: `nested virtualization is on: ${here} can run guests (${guest}) on KVM`,
    },
    {
      ...{ id: 'acrn-restrictions', severity: 'warning', sure: 'certain' },
      seen: 'this machine is the Service VM of ACRN',
      means: `nesting is experimental there, tested on Tiger Lake and Kaby Lake only; ${guest} takes 64-bit KVM, EPT, QEMU with -cpu host and -nographic, and does not show in ACRN's vm_list`,
    },
  )
  if (parameter(facts, 'kvm_intel', 'ept') !== undefined && !isOn(parameter(facts, 'kvm_intel', 'ept'))) {
    findings.push({
      ...{ id: 'acrn-ept-off', severity: 'problem', sure: 'certain', stops: 'guests' },
      seen: `kvm_intel has ept=${parameter(facts, 'kvm_intel', 'ept')}`,
      means: `ACRN runs nested guests with EPT only: ${guest} does not start`,
      mend: setParameter(facts, 'kvm_intel', 'ept=1'),
    })
  }
  return findings
}

/** The kernel of acrn-kernel needs these set by hand. */
function kernelFindings({ kernel }: Parameters<Check>[0]): Finding[] {
  if (Object.keys(kernel.config).length === 0) return []
  const value = (option: string) => kernel.config[option.replace('CONFIG_', '')] ?? 'n'
  const wanted = ['CONFIG_KVM', 'CONFIG_KVM_INTEL', 'CONFIG_ACRN_GUEST', 'CONFIG_VIRTIO_BLK']
  const missing = wanted.filter((option) => value(option) !== 'y')
  if (missing.length === 0) return []
  const listed = missing.map((option) => `${option}=${value(option)}`).join(', ')
  const absent = missing.some((option) => option !== 'CONFIG_VIRTIO_BLK' && value(option) === 'n')
  return [
    {
      ...{ id: 'acrn-kernel-config', severity: absent ? 'problem' : 'note', sure: 'certain' },
      ...(absent ? { stops: 'guests' } : {}),
      seen: `the Service VM's kernel has ${listed}`,
      means:
        "ACRN's document asks for CONFIG_KVM, CONFIG_KVM_INTEL and CONFIG_ACRN_GUEST built in, and CONFIG_VIRTIO_BLK for guests whose root is on a virtio disk",
      mend: {
        lasting: [
          `./scripts/config ${missing.map((option) => `--enable ${option}`).join(' ')}`,
          'make olddefconfig && make all && sudo make modules_install install',
        ],
        advice: "in the directory of the kernel's source (acrn-kernel)",
      },
    },
  ]
}
