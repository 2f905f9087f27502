import { cpuidBit, hypervisorSignature } from '../facts/cpuid.ts'
import type { Facts } from '../facts/schema.ts'
import type { Finding, Mend } from './finding.ts'

/** What a machine itself runs under. */
export interface Hypervisor {
  id: string
  name: string
  /** What makes it offer nesting to this machine, and how sure that is. */
  mend: Mend
  sure: Finding['sure']
}

interface Known extends Hypervisor {
  is(facts: Facts, signature: string): boolean
}

/** Undefined on bare metal. Names before signatures: clouds and VirtualBox show KVM's. */
export function runsUnder(facts: Facts): Hypervisor | undefined {
  const signature = hypervisorSignature(facts) ?? ''
  if (isMetal(facts)) return undefined
  const known = hypervisors.find((one) => one.is(facts, signature))
  if (known) return known
  const name = facts.detected ?? (signature || (facts.cpu.flags.includes('hypervisor') ? 'an unknown hypervisor' : ''))
  return name ? { id: 'unknown', name, mend: { advice: askOwner }, sure: 'likely' } : undefined
}

/** Of the rule that each platform shares. */
const askOwner = 'whoever runs that hypervisor has to offer nested virtualization to this machine'

/** EC2 calls itself so on bare metal too: the product tells. */
function isMetal({ dmi, cpu }: Facts): boolean {
  return dmi.sys_vendor === 'Amazon EC2' && /metal/.test(dmi.product_name ?? '') && !cpu.flags.includes('hypervisor')
}

const vendor = ({ dmi }: Facts) => `${dmi.sys_vendor ?? ''} ${dmi.board_vendor ?? ''} ${dmi.bios_vendor ?? ''}`

/**
 * Signatures and DMI names: systemd, src/basic/virt.c. How each offers nesting: AWS, ModifyInstanceCpuOptions; Google,
 * "Enable nested virtualization"; Microsoft, "Run Hyper-V in a virtual machine with nested virtualization" and
 * "Advanced settings configuration in WSL"; Linux, Documentation/virt/kvm/x86/running-nested-guests.rst. The ways of
 * VMware, VirtualBox and Xen come from their users rather than from a source that was read.
 */
const hypervisors: readonly Known[] = [
  {
    id: 'aws',
    name: 'AWS (Nitro)',
    is: (facts) => /^Amazon EC2/.test(facts.dmi.sys_vendor ?? '') || facts.detected === 'amazon',
    mend: {
      lasting: [
        'aws ec2 stop-instances --instance-ids ID',
        'aws ec2 modify-instance-cpu-options --instance-id ID --nested-virtualization enabled',
        'aws ec2 start-instances --instance-ids ID',
      ],
      advice:
        'types such as C8i, M8i and R8i offer it (ask: aws ec2 describe-instance-types --filters Name=processor-info.supported-features,Values=nested-virtualization); of others take a .metal type',
    },
    sure: 'certain',
  },
  {
    id: 'gcp',
    name: 'Google Compute Engine',
    is: ({ dmi }) => /Google/.test(`${dmi.product_name ?? ''} ${dmi.sys_vendor ?? ''}`),
    mend: {
      lasting: ['gcloud compute instances create NAME --enable-nested-virtualization --machine-type=n2-standard-4'],
      advice:
        'Intel Haswell or later only: not E2, and no AMD or Arm machine types; a running instance is changed with gcloud compute instances export, advancedMachineFeatures.enableNestedVirtualization: true, and update-from-file',
    },
    sure: 'certain',
  },
  {
    id: 'azure',
    name: 'Azure',
    is: ({ dmi }) => dmi.chassis_asset_tag === '7783-7084-3265-9085-8269-3286-77',
    mend: {
      lasting: [
        'az vm deallocate -g GROUP -n NAME',
        'az vm resize -g GROUP -n NAME --size Standard_D4s_v5',
        'az vm start -g GROUP -n NAME',
      ],
      advice:
        'Intel sizes of the D and E families from v3 on offer it; the security type must be Standard, not Trusted launch or Confidential',
    },
    sure: 'likely',
  },
  {
    id: 'wsl',
    name: 'WSL 2 (Hyper-V)',
    is: ({ kernel }) => /microsoft/i.test(kernel.release),
    mend: {
      shell: 'powershell',
      lasting: ['Add-Content "$env:USERPROFILE\\.wslconfig" "`n[wsl2]`nnestedVirtualization=true"', 'wsl --shutdown'],
      advice: 'this takes Windows 11, and virtualization switched on in the firmware',
    },
    sure: 'certain',
  },
  {
    id: 'hyperv-root',
    name: 'Hyper-V, as its root partition',
    is: (facts, signature) => signature === 'Microsoft Hv' && cpuidBit(facts, 0x40000003, 'ebx', 0) === true,
    mend: {
      advice:
        "guests of the root partition are Hyper-V's own (/dev/mshv): run KVM in one of them, which Hyper-V exposes the extension to, or start Linux without Hyper-V",
    },
    sure: 'certain',
  },
  {
    id: 'hyperv',
    name: 'Hyper-V',
    is: ({ detected }, signature) => signature === 'Microsoft Hv' || detected === 'microsoft',
    mend: {
      shell: 'powershell',
      lasting: [
        'Stop-VM -Name NAME',
        'Set-VMProcessor -VMName NAME -ExposeVirtualizationExtensions $true',
        'Start-VM -Name NAME',
      ],
      advice:
        'on the Hyper-V host, with the VM off; Intel: Server 2016 or Windows 10 and configuration version 8.0; AMD: Server 2022 or Windows 11 and configuration version 9.3 (10.0 by other pages of Microsoft)',
    },
    sure: 'certain',
  },
  {
    id: 'acrn',
    name: 'ACRN',
    is: ({ detected }, signature) => signature === 'ACRNACRNACRN' || detected === 'acrn',
    mend: {
      advice:
        "in the scenario's XML, for the Service VM only: NVMX_ENABLED y and GUEST_FLAG_NVMX_ENABLED (v3: nested_virtualization_support y), LAPIC passthrough, scheduler SCHED_NOOP, a PCI console vUART; then build and boot ACRN anew",
    },
    sure: 'certain',
  },
  {
    id: 'virtualbox',
    name: 'VirtualBox',
    is: (facts, signature) =>
      /innotek|Oracle Corporation|VirtualBox/.test(`${vendor(facts)} ${facts.dmi.product_name ?? ''}`) ||
      facts.detected === 'oracle' ||
      signature === 'VBoxVBoxVBox',
    mend: { lasting: ['VBoxManage modifyvm NAME --nested-hw-virt on'], advice: 'on its host, with the VM off' },
    sure: 'reported',
  },
  {
    id: 'vmware',
    name: 'VMware',
    is: (facts, signature) =>
      signature === 'VMwareVMware' || /VMware/.test(vendor(facts)) || facts.detected === 'vmware',
    mend: {
      lasting: [`echo 'vhv.enable = "TRUE"' >> NAME.vmx`],
      advice:
        'with the VM off; in the user interface: Processors, "Virtualize Intel VT-x/EPT or AMD-V/RVI"; on Windows it takes that Hyper-V and memory integrity are off',
    },
    sure: 'reported',
  },
  {
    id: 'xen',
    name: 'Xen',
    is: ({ xen, detected }, signature) => signature === 'XenVMMXenVMM' || xen?.type === 'xen' || detected === 'xen',
    mend: {
      advice:
        "HVM guests only, and experimental: nestedhvm=1 and hap=1 in the guest's configuration; PV guests and dom0 have none",
    },
    sure: 'reported',
  },
  {
    id: 'tcg',
    name: "QEMU's emulator (TCG)",
    // On arm64 KVM tells its guests, which their kernels log first of all (drivers/firmware/smccc/kvm_guest.c).
    is: ({ deviceTree, log }, signature) =>
      signature === 'TCGTCGTCGTCG' ||
      (/linux,dummy-virt/.test(deviceTree.compatible ?? '') &&
        log !== undefined &&
        !log.some((line) => line.includes('KVM: hypervisor services detected'))),
    mend: {
      advice:
        'start that QEMU with -cpu max; on x86 that has svm, which a model has with svm=on (it emulates no VMX); on arm64 with -M virtualization=on, too',
    },
    sure: 'certain',
  },
  {
    id: 'parallels',
    name: 'Parallels',
    is: (facts, signature) => /lrpepyh|prl hyperv/.test(signature) || /Parallels/.test(vendor(facts)),
    mend: {
      advice: 'Pro and Business editions on Intel Macs only: Hardware, CPU & Memory, "Enable nested virtualization"',
    },
    sure: 'reported',
  },
  {
    id: 'apple',
    name: "Apple's Virtualization framework",
    is: ({ dmi, detected }) => /^Apple/.test(dmi.sys_vendor ?? '') || detected === 'apple',
    mend: {
      advice:
        'on M3 or later with macOS 15: isNestedVirtualizationEnabled in the platform configuration (Lima: nestedVirtualization: true)',
    },
    sure: 'reported',
  },
  {
    id: 'bhyve',
    name: 'bhyve',
    is: ({ detected }, signature) => signature === 'bhyve bhyve' || detected === 'bhyve',
    mend: { advice: 'bhyve offers no nesting: emulation is what is left' },
    sure: 'reported',
  },
  {
    id: 'zvm',
    name: 'z/VM',
    is: ({ sysinfo, detected }) => /z\/VM/.test(JSON.stringify(sysinfo)) || detected === 'zvm',
    mend: { advice: 'KVM as a guest of z/VM is not supported: use an LPAR, or KVM on KVM' },
    sure: 'likely',
  },
  {
    id: 'kvm',
    name: 'KVM',
    is: ({ detected, dmi, deviceTree, sysinfo, cpu }, signature) =>
      /^(KVMKVMKVM|Linux KVM Hv)$/.test(signature) ||
      detected === 'kvm' ||
      detected === 'qemu' ||
      /^(QEMU|KVM|Red Hat|DigitalOcean|Hetzner|OpenStack|Alibaba Cloud)/.test(dmi.sys_vendor ?? '') ||
      /linux,kvm/.test(deviceTree['hypervisor/compatible'] ?? '') ||
      /linux,dummy-virt/.test(deviceTree.compatible ?? '') ||
      /KVM/.test(JSON.stringify(sysinfo)) ||
      /emulated by qemu|pSeries \(emulated/.test(cpu.platform ?? ''),
    mend: {
      advice:
        "on its host: the module's parameter nested must be on, and the guest must get the extension: -cpu host, or a model plus vmx=on or svm=on (libvirt: <cpu mode='host-passthrough'/>); then stop the guest and start it anew",
    },
    sure: 'certain',
  },
]
