import { type Check, type Finding, isOn, levelNames, parameter } from './finding.ts'
import { runsUnder } from './hypervisor.ts'
import { setParameter } from './mend.ts'
import { nestedStateFinding } from './nested-state.ts'

/**
 * s390x: SIE for KVM, `nested` off by default, and at odds with `hpage`. Rules: Linux,
 * Documentation/virt/kvm/x86/running-nested-guests.rst and arch/s390/kvm/kvm-s390.c; QEMU, target/s390x/gen-features.c.
 */
export const checkS390x: Check = (facts) => {
  if (facts.arch !== 's390x') return []
  const { here, guest, nested } = levelNames(facts)
  const under = runsUnder(facts)
  if (facts.cpu.flags.length > 0 && !facts.cpu.flags.includes('sie')) {
    return [
      {
        ...{ id: 's390x-no-sie', severity: 'problem', sure: 'certain', stops: 'guests' },
        seen: "/proc/cpuinfo's features do not name sie",
        means: `${here} cannot run guests on KVM; QEMU's emulator has no SIE either, so nothing nests here`,
        mend: {
          advice: under
            ? `on its host: the module kvm with nested=1, and this machine started with -cpu host, or a model plus sie=on`
            : 'the LPAR has to be one that may run KVM',
        },
      },
    ]
  }
  const value = parameter(facts, 'kvm', 'nested')
  const hpage = parameter(facts, 'kvm', 'hpage')
  const sie: Finding = {
    ...{ id: 's390x-sie', severity: 'good', sure: 'certain' },
    seen: "/proc/cpuinfo's features name sie",
    means: `${here} can run guests on KVM`,
  }
  if (value === undefined) {
    return [
      sie,
      {
        ...{ id: 's390x-module-missing', severity: 'problem', sure: 'certain', stops: 'guests' },
        seen: 'the module kvm is not loaded',
        means: `${here} has no KVM`,
        mend: { now: ['sudo modprobe kvm nested=1'], lasting: setParameter(facts, 'kvm', 'nested=1').lasting },
      },
    ]
  }
  if (isOn(value)) {
    const means = `${guest} can run KVM where it gets sie (-cpu host), and so guests of its own (${nested})`
    const on: Finding = {
      id: 's390x-nested',
      severity: 'good',
      seen: `kvm has nested=${value}`,
      means,
      sure: 'certain',
    }
    return [sie, on, nestedStateFinding(facts)]
  }
  const huge = isOn(hpage)
  return [
    sie,
    {
      ...{ id: 's390x-nested-off', severity: 'problem', sure: 'certain', stops: 'nesting' },
      seen: `kvm has nested=${value}${huge ? ` and hpage=${hpage}` : ''}`,
      means: `${guest} gets no SIE, so there can be no ${nested} on KVM`,
      mend: setParameter(facts, 'kvm', huge ? 'nested=1 hpage=0' : 'nested=1'),
    },
    ...(huge
      ? [
          {
            ...({ id: 's390x-hpage', severity: 'problem', sure: 'likely', stops: 'nesting' } as const),
            seen: `kvm has hpage=${hpage}`,
            means:
              'nested and hpage exclude each other: the module says "A KVM host that supports nesting cannot back its KVM guests with huge pages"; some newer kernels allow both',
            mend: {
              advice:
                'look for hpage=1 in /etc/modprobe.d and in the kernel arguments, and take it out; guests lose huge pages',
            },
          },
        ]
      : []),
  ]
}
