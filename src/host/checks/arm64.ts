import { atLeast, type Check, type Finding, levelNames, parameter } from './finding.ts'
import { runsUnder } from './hypervisor.ts'
import { bootArgument } from './mend.ts'
import { nestedStateFinding } from './nested-state.ts'

/**
 * arm64: KVM wants to start at EL2, and nesting takes FEAT_NV2 and `kvm-arm.mode=nested`. The kernel's log is the best
 * witness: the ID register of NV is not shown to user space without the argument, and the parameter `mode` is often not
 * in sysfs. Rules: Linux, arch/arm64/kvm/arm.c and 7f3225fe8bc2 (6.16); QEMU 10.1, hw/arm/virt.c.
 */
export const checkArm64: Check = (facts) => {
  if (facts.arch !== 'aarch64') return []
  const noEl2 = withoutEl2(facts)
  return noEl2 ? [noEl2] : [...nesting(facts), ...interrupts(facts), ...tools(facts)]
}

type Facts = Parameters<Check>[0]

const argument = 'kvm-arm.mode=nested'
const saidAtEl2 = /All CPU\(s\) started at EL2/
const saidMode = /kvm \[\d+\]: .*mode initialized successfully/

function withoutEl2(facts: Facts): Finding | undefined {
  const { here } = levelNames(facts)
  const disabled = facts.log?.find((line) => /KVM disabled from command line/.test(line))
  const unavailable = facts.log?.find((line) => /HYP mode not available/.test(line))
  if (disabled || facts.kernel.arguments.includes('kvm-arm.mode=none')) {
    return {
      ...{ id: 'arm64-kvm-disabled', severity: 'problem', sure: 'certain', stops: 'guests' },
      seen: 'the kernel was started with kvm-arm.mode=none',
      means: `${here} has no KVM`,
      mend: {
        lasting: [
          `sudo sed -i 's/kvm-arm.mode=none/${argument}/' /etc/default/grub`,
          'sudo update-grub',
          'sudo reboot',
        ],
      },
    }
  }
  const silent = facts.log !== undefined && !facts.kvm.registered && !facts.log.some((line) => saidAtEl2.test(line))
  if (!unavailable && !silent) return undefined
  const under = runsUnder(facts)
  return {
    ...{ id: 'arm64-no-el2', severity: 'problem', sure: unavailable ? 'certain' : 'likely', stops: 'guests' },
    seen: unavailable
      ? `the kernel says: ${unavailable.replace(/^\[[^\]]*\]\s*/, '')}`
      : 'the kernel says nothing of EL2, and there is no KVM',
    means: under
      ? `${under.name} started this machine at EL1, without virtualization: ${here} cannot run guests on KVM`
      : `firmware started the kernel at EL1: ${here} cannot run guests on KVM`,
    mend: under
      ? {
          advice:
            under.id === 'kvm' || under.id === 'tcg'
              ? `on its host: Linux 6.16 or later started with ${argument}, a processor with FEAT_NV2, and QEMU 10.1 with -M virt,virtualization=on,gic-version=3 -cpu host; or QEMU's emulator with -cpu max`
              : under.id === 'aws'
                ? 'Arm instances offer no nesting: take a .metal type (c7g.metal, c7gn.metal, r7g.metal, c8g.metal)'
                : under.mend.advice,
        }
      : { advice: "boot the kernel at EL2: that is a matter of the machine's firmware or boot loader" },
  }
}

function nesting(facts: Facts): Finding[] {
  const { here, guest, nested } = levelNames(facts)
  const { release } = facts.kernel
  const mode = facts.log?.find((line) => saidMode.test(line))
  const on =
    facts.log?.some((line) => /VHE\+NV\S* mode initialized/.test(line)) ||
    (facts.kvm.capabilities?.armEl2 ?? 0) > 0 ||
    (facts.log === undefined && parameter(facts, 'kvm', 'mode') === 'nested')
  const asked = facts.kernel.arguments.includes(argument)
  const seen = mode ? `the kernel says: ${mode.replace(/^\[[^\]]*\]\s*/, '')}` : `the kernel is ${release}`
  if (on) {
    return [
      {
        ...{ id: 'arm64-nested', severity: 'good', sure: 'certain' },
        seen: mode ? seen : 'KVM offers EL2 to guests (KVM_CAP_ARM_EL2)',
        means: `guests of ${here} (${guest}) can run KVM, and so guests of their own (${nested})`,
      },
      ...youth(facts),
      nestedStateFinding(facts),
    ]
  }
  const stopped = { severity: 'problem', stops: 'nesting' } as const
  const means = `${guest} is started at EL1 and has no /dev/kvm, so there can be no ${nested} on KVM`
  if (!atLeast(release, 6, 16)) {
    return [
      {
        ...{ id: 'arm64-kernel-old', ...stopped, sure: 'certain' },
        seen: `the kernel is ${release}, and nesting is in Linux from 6.16 on`,
        means,
        mend: { lasting: bootArgument(argument), advice: 'first boot Linux 6.18 or later on this machine' },
      },
    ]
  }
  if (/Protected/.test(mode ?? '') || facts.kernel.arguments.includes('kvm-arm.mode=protected')) {
    return [
      {
        ...{ id: 'arm64-protected', ...stopped, sure: 'certain' },
        seen: 'KVM runs in protected mode (pKVM)',
        means: `it keeps guests from the host, and does not nest: ${means}`,
        mend: {
          lasting: [
            `sudo sed -i 's/kvm-arm.mode=protected/${argument}/' /etc/default/grub`,
            'sudo update-grub',
            'sudo reboot',
          ],
        },
      },
    ]
  }
  if (!asked) {
    return [
      {
        ...{ id: 'arm64-argument-missing', ...stopped, sure: 'certain' },
        seen: `${seen}; the kernel was started without ${argument}`,
        means,
        mend: {
          lasting: bootArgument(argument),
          advice: 'the processor needs FEAT_NV2: Neoverse V1, N2 and V2 (Graviton3 and 4), Apple M3, and later ones',
        },
      },
    ]
  }
  return [
    {
      ...{ id: 'arm64-no-nv2', ...stopped, sure: mode ? 'certain' : 'likely' },
      seen: `${seen}, although the kernel was started with ${argument}`,
      means: `the processor${runsUnder(facts) ? ', as this machine sees it,' : ''} lacks FEAT_NV2: ${means}`,
      mend: {
        advice:
          'Neoverse V1 and N2 and later have it (EC2: c7g.metal, r7g.metal); emulated: QEMU 9.0 or later with -cpu max',
      },
    },
  ]
}

/** Told on the kernel's and QEMU's lists rather than in a document. */
function youth(facts: Facts): Finding[] {
  const { release } = facts.kernel
  if (atLeast(release, 7, 1)) return []
  const { nested } = levelNames(facts)
  return [
    {
      ...{ id: 'arm64-young', severity: 'warning', sure: 'reported' },
      seen: `the kernel is ${release}`,
      means: atLeast(release, 6, 19)
        ? `a race with several processors in ${nested} was fixed in 7.1`
        : `interrupts of nested guests were reworked in 6.19, and a race with several processors in ${nested} was fixed in 7.1`,
      mend: { advice: `a newer kernel, or one processor in ${nested} (--cpus 1)` },
    },
  ]
}

/** QEMU: "KVM EL2 is only supported with in-kernel GICv3". */
function interrupts(facts: Facts): Finding[] {
  const { guest } = levelNames(facts)
  if (facts.gic === undefined) return []
  if (facts.gic === 'GICv3' || facts.gic === 'GICv4') {
    const means = `${guest} can have an interrupt controller that nesting works with`
    return [{ id: 'arm64-gic', severity: 'good', sure: 'certain', seen: `the machine has a ${facts.gic}`, means }]
  }
  return [
    {
      ...{ id: 'arm64-gic-old', severity: 'problem', sure: 'certain', stops: 'nesting' },
      seen: `the machine has a ${facts.gic}`,
      means: `EL2 in ${guest} takes an in-kernel GICv3: there can be no nested guests on KVM`,
      mend: { advice: runsUnder(facts) ? 'start this machine with gic-version=3' : 'no setting changes it' },
    },
  ]
}

function tools(facts: Facts): Finding[] {
  return facts.qemu
    .filter(({ path, version }) => /aarch64|qemu-kvm/.test(path) && !atLeast(version, 10, 1))
    .map(({ path, version }) => ({
      ...({ id: 'arm64-qemu-old', severity: 'note', sure: 'certain' } as const),
      seen: `${path} is QEMU ${version}`,
      means: 'it cannot give a guest EL2 on KVM, which takes 10.1; nestvm has its own QEMU',
    }))
}
