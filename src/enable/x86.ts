import { NestvmError } from '../store/error.ts'
import { isOn, persistedOptions } from './modprobe.ts'
import { planNesting } from './nesting.ts'
import type { Plan, Request } from './plan.ts'
import { atLeast, type Seen } from './seen.ts'

/**
 * Intel and AMD: parameter `nested` of kvm_intel or kvm_amd. It cannot be written at run time, so the module is loaded
 * anew where nobody uses it. Throws `NO_VIRTUALIZATION` when the running machine's processor shows no such extension.
 */
export function planKvmX86(vendor: 'intel' | 'amd', { seen, root }: Request): Plan {
  const flag = vendor === 'intel' ? 'vmx' : 'svm'
  if (root === '/' && !seen.cpuFlags.has(flag)) throw noExtension(seen, flag)
  const name = `kvm_${vendor}`
  const slowdowns = vendor === 'intel' ? intelSlowdowns(seen) : amdSlowdowns(seen)
  return planNesting(vendor, seen, root, {
    name,
    wanted: { nested: '1', ...slowdowns },
    // Linux 4.20, commit 1e58e5e59148; kvm_amd has had it on since long before.
    onByDefault: vendor === 'amd' || atLeast(seen.kernelRelease, 4, 20),
  })
}

/** On by default where the processor can: off means that somebody said so. Guests of guests are slow without. */
function intelSlowdowns(seen: Seen): Record<string, string> {
  const off = turnedOff(seen, 'kvm_intel')
  return {
    ...(off('ept') && (seen.cpuFlags.has('ept') || seen.vmxFlags.has('ept')) ? { ept: '1' } : {}),
    ...(off('enable_shadow_vmcs') && seen.vmxFlags.has('shadow_vmcs') ? { enable_shadow_vmcs: '1' } : {}),
  }
}

function amdSlowdowns(seen: Seen): Record<string, string> {
  return turnedOff(seen, 'kvm_amd')('npt') && seen.cpuFlags.has('npt') ? { npt: '1' } : {}
}

const turnedOff = (seen: Seen, module: string) => (parameter: string) => {
  const value = seen.modules.get(module)?.parameters.get(parameter) ?? persistedOptions(seen, module).get(parameter)
  return value !== undefined && !isOn(value)
}

/** Linux hides a flag that the firmware has locked, and says so in its log. */
function noExtension({ log, cpuFlags }: Seen, flag: string): NestvmError {
  const firmware = log.split('\n').find((line) => /(VMX|SVM).*disabled .*BIOS|disabled by bios/i.test(line))
  if (firmware) {
    return new NestvmError(
      'NO_VIRTUALIZATION',
      `the firmware has turned ${flag} off: ${firmware.replace(/^\[[^\]]*\] /, '')}`,
      {
        hint: 'turn virtualization (VT-x, SVM) on in the firmware’s settings',
      },
    )
  }
  const inGuest = cpuFlags.has('hypervisor')
  return new NestvmError(
    'NO_VIRTUALIZATION',
    `the processor shows no ${flag}${inGuest ? ': this is a virtual machine, whose hypervisor does not offer it' : ''}`,
    {
      hint: inGuest
        ? 'nestvm enable, without --platform, tells what to do on the level above'
        : 'turn it on in the firmware’s settings',
    },
  )
}
