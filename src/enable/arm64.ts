import { NestvmError } from '../store/error.ts'
import { bootArgument, planBootArguments } from './grub.ts'
import type { Plan, Request } from './plan.ts'
import { atLeast } from './seen.ts'

const argument = { name: 'kvm-arm.mode', value: 'nested' }

/**
 * arm64: KVM runs guest hypervisors when the kernel was started with `kvm-arm.mode=nested` on a processor with
 * FEAT_NV2, which user space cannot see before. Throws `NO_VIRTUALIZATION` when the kernel was not started at EL2.
 */
export function planArm64({ seen, root }: Request): Plan {
  const live = root === '/'
  if (live && /HYP mode not available|started at EL1/.test(seen.log)) {
    throw new NestvmError('NO_VIRTUALIZATION', 'the kernel was started at EL1, so it can run no guests at all', {
      hint: 'in a virtual machine, its hypervisor has to give it EL2; else look at the firmware',
    })
  }
  const running = live ? bootArgument(seen.commandLine, argument.name) : undefined
  const { steps, notes, effect } = planBootArguments(seen, root, [argument], 'KVM is to let guests be hypervisors')
  const initialized = /VHE\+NV/.test(seen.log)
  const more = [
    // Upstream since commit 7f3225fe8bc2.
    ...(live && !atLeast(seen.kernelRelease, 6, 16)
      ? [
          `Linux ${seen.kernelRelease} is older than 6.16, the first that can; unless its maker has added it, a newer one is needed`,
        ]
      : []),
    ...(running === argument.value && live && seen.log !== '' && !initialized
      ? ['the kernel’s log does not say VHE+NV: the processor may lack FEAT_NV2']
      : []),
  ]
  if (running === argument.value) {
    return {
      platform: 'arm64',
      effect: 'already',
      steps: [],
      notes: more,
      summary: 'the kernel was started with kvm-arm.mode=nested',
    }
  }
  return {
    ...{ platform: 'arm64', steps, effect },
    notes: [...notes, ...more, 'whether it counts, the log says after the restart: dmesg | grep VHE+NV'],
    summary:
      running === undefined
        ? 'the kernel was started without kvm-arm.mode'
        : `the kernel was started with kvm-arm.mode=${running}`,
  }
}
