import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'

export interface NestedStateRule {
  /** Whether there is a way to save it at all. */
  known: boolean
  /** There is, but nobody vouches for it. */
  untested: boolean
  why: string
}

/**
 * What becomes of guests that run in a guest when that is saved, restored or moved, under a machine's KVM. The QEMU is
 * nestvm's own or no older than 10.2 (bundle/own-qemu.ts), which is newer than all that these rules ask of one.
 *
 * | processor | saved with live nested guests | source |
 * |---|---|---|
 * | Intel | from Linux 5.3 on, with QEMU 4.2 | KVM_CAP_NESTED_STATE; QEMU commit ebbfef2f34cf |
 * | AMD | from Linux 5.8 on, with QEMU 5.2, but restores were still being mended in 2026 | Linux commit cc440cdad5b7; QEMU commit b16c0e20c742; Documentation/virt/kvm/x86/running-nested-guests.rst calls it undefined |
 * | arm64 | never: nested virtualization there has no state that can be saved | Documentation/virt/kvm/arm/ |
 *
 * An emulated level has no such limit: all its state is the emulator's.
 */
export async function nestedStateRule(machine: Machine): Promise<NestedStateRule> {
  const { stdout } = await run(machine, ['sh', '-c', 'uname -mr; cat /proc/cpuinfo'], { timeoutMs: 60_000 })
  const [kernel = '', arch = ''] = stdout.split(/\s+/, 2)
  return ruleFor(arch, /^vendor_id\s*: (\w+)/m.exec(stdout)?.[1] ?? '', kernel)
}

/** `machine` as uname -m names it, `vendor` as /proc/cpuinfo does, `kernel` as uname -r does. */
export function ruleFor(machine: string, vendor: string, kernel: string): NestedStateRule {
  const [major = 0, minor = 0] = kernel.split('.').map(Number.parseFloat)
  const since = (wantedMajor: number, wantedMinor: number) =>
    major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
  if (machine !== 'x86_64')
    return { known: false, untested: false, why: `KVM on ${machine} cannot save a nested guest` }
  if (vendor === 'GenuineIntel') {
    return since(5, 3)
      ? { known: true, untested: false, why: 'Linux 5.3 and newer save the state of VMX' }
      : {
          known: false,
          untested: false,
          why: `Linux ${kernel} cannot save the state of VMX; 5.3 is the first that does`,
        }
  }
  return since(5, 8)
    ? { known: true, untested: true, why: 'saving the state of SVM is not known to be safe on AMD processors' }
    : { known: false, untested: false, why: `Linux ${kernel} cannot save the state of SVM; 5.8 is the first that does` }
}
