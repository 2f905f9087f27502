import { quote } from '../../machine/quote.ts'
import type { Facts } from '../facts/schema.ts'
import { type Check, type Finding, levelNames } from './finding.ts'

/**
 * /dev/kvm: there, for this user, not taken by another hypervisor, and, what alone counts, able to run a tiny guest.
 */
export const checkDevice: Check = (facts) => {
  const { kvm } = facts
  if (!kvm.device) return [absent(facts)]
  if (!kvm.device.readable || !kvm.device.writable || kvm.openError === 'EACCES') {
    return [permission(facts, kvm.device), ...software(facts)]
  }
  const findings = [...opens(facts), ...busy(facts), ...software(facts)]
  return [...findings, ...probe(facts)]
}

function absent(facts: Facts): Finding {
  const { here } = levelNames(facts)
  const problem = { severity: 'problem', stops: 'guests' } as const
  if (facts.container && facts.kvm.registered) {
    return {
      ...{ id: 'kvm-not-in-container', ...problem, sure: 'certain' },
      seen: `KVM is in the kernel, but this ${facts.container} container has no /dev/kvm`,
      means: `${here} cannot run guests on KVM`,
      mend: { lasting: ['docker run --device /dev/kvm ...'], advice: 'in Kubernetes: a device plugin for /dev/kvm' },
    }
  }
  if (facts.kvm.registered) {
    return {
      ...{ id: 'kvm-no-device-file', ...problem, sure: 'certain' },
      seen: 'KVM is in the kernel, but there is no /dev/kvm',
      means: `${here} cannot run guests on KVM`,
      mend: { now: ['sudo mknod -m 0660 /dev/kvm c 10 232'], lasting: ['sudo udevadm trigger --name-match=kvm'] },
    }
  }
  return {
    ...{ id: 'kvm-absent', ...problem, sure: 'certain' },
    seen: 'there is no /dev/kvm',
    means: `${here} cannot run guests on KVM`,
  }
}

/** Whoever may open /dev/kvm for anybody (mode 0666) lets every program in: a group does. */
function permission({ user, kvm }: Facts, device: NonNullable<Facts['kvm']['device']>): Finding {
  const name = user?.name ?? 'this user'
  const grouped = device.group === 'kvm' && /^crw.rw/.test(device.mode)
  const member = user?.groups.includes('kvm') === true
  const rule = `echo 'KERNEL=="kvm", GROUP="kvm", MODE="0660", OPTIONS+="static_node=kvm"' | sudo tee /etc/udev/rules.d/65-kvm.rules`
  return {
    ...{ id: 'kvm-permission', severity: 'problem', sure: 'certain', stops: 'guests' },
    seen: `/dev/kvm is ${device.mode} ${device.owner} ${device.group}, and ${name}${member ? ', though in the group kvm,' : ''} may not open it`,
    means: `KVM is there, but not for ${name}${kvm.openError ? ` (${kvm.openError})` : ''}`,
    mend: {
      now: [`sudo setfacl -m ${quote(`u:${name}:rw`)} /dev/kvm`],
      lasting: [
        ...(grouped
          ? []
          : [
              'sudo groupadd --system --force kvm',
              rule,
              'sudo udevadm control --reload',
              'sudo udevadm trigger --name-match=kvm',
            ]),
        `sudo usermod -aG kvm ${quote(name)}`,
      ],
      advice: 'log in again for the group to count',
    },
  }
}

function opens({ kvm }: Facts): Finding[] {
  if (!kvm.openError) return []
  return [
    {
      ...{ id: 'kvm-does-not-open', severity: 'problem', sure: 'certain', stops: 'guests' },
      seen: `opening /dev/kvm fails: ${kvm.openError}`,
      means: 'the device file is there, but no KVM answers behind it',
      mend: { advice: 'the other findings, or the kernel log (dmesg), tell why its module does not serve it' },
    },
  ]
}

/** KVM_CREATE_VM: EBUSY where another hypervisor has the processor's extension (Linux, virt/kvm/kvm_main.c). */
function busy({ kvm, otherModules }: Facts): Finding[] {
  if (kvm.createVm === undefined || kvm.createVm === 'ok') return []
  const other = otherModules.filter((name) => name === 'vboxdrv' || name === 'vmmon')
  const isBusy = kvm.createVm === 'EBUSY'
  return [
    {
      ...{ id: isBusy ? 'kvm-busy' : 'kvm-refuses', severity: 'problem', sure: 'certain', stops: 'guests' },
      seen: `KVM_CREATE_VM fails: ${kvm.createVm}${other.length > 0 ? `; ${other.join(' and ')} is loaded` : ''}`,
      means: isBusy
        ? "another hypervisor has the processor's extension, which serves one at a time"
        : 'KVM is there, but creates no VM',
      mend: isBusy
        ? {
            now: other.map((name) => `sudo modprobe -r ${name}`),
            advice: 'end the VMs of the other hypervisor (VirtualBox, VMware), then load KVM again',
          }
        : undefined,
    },
  ]
}

/** All of KVM's calls work there, and yet stock guests hang: measured. */
function software({ kvm, cpu, arch }: Facts): Finding[] {
  const pvm = 'kvm_pvm' in kvm.modules
  const hardware = cpu.flags.some((flag) => flag === 'vmx' || flag === 'svm')
  if (arch !== 'x86_64' || (!pvm && hardware)) return []
  return [
    {
      ...{ id: 'kvm-software-nested', severity: 'problem', sure: pvm ? 'certain' : 'likely', stops: 'guests' },
      seen: pvm ? 'the module kvm_pvm is in the kernel' : 'there is a KVM, but the processor shows neither vmx nor svm',
      means:
        'this KVM does without the hardware: it runs only kernels made for it, and stock guests hang although every call to /dev/kvm works',
      mend: { advice: 'none on this machine: nestvm emulates the first level, with nesting, instead (--accel auto)' },
    },
  ]
}

function probe({ probe, probeError, arch }: Facts): Finding[] {
  if (!probe) {
    // There is no guest to try on other processors.
    if (arch !== 'x86_64' && arch !== 'aarch64') return []
    return [
      {
        ...{ id: 'kvm-untested', severity: 'problem', sure: 'certain', stops: 'guests' },
        seen: probeError ? `no tiny guest could be run: ${probeError}` : 'no tiny guest was run',
        means: 'a /dev/kvm that is there, and even creates VMs, proves nothing: nestvm does not count on it',
        mend: { advice: 'nestvm setup gets a QEMU to try it with; nestvm doctor tries it' },
      },
    ]
  }
  const took = probe.milliseconds === undefined ? '' : ` in ${probe.milliseconds} ms`
  if (probe.usable) {
    const means = 'KVM really runs guests'
    return [{ id: 'kvm-works', severity: 'good', sure: 'certain', seen: `${probe.reason}${took}`, means }]
  }
  // What the device check has said already is not said again.
  if (probe.code !== 'KVM_UNUSABLE') return []
  return [
    {
      ...{ id: 'kvm-unusable', severity: 'problem', sure: 'certain', stops: 'guests' },
      seen: probe.reason,
      means: 'guests do not come up on this KVM',
      mend: probe.hint ? { now: [probe.hint] } : undefined,
    },
  ]
}
