/** What stands in the way, and what mends it. */
export interface Refusal {
  reason: string
  hint: string
}

/** What Linux says at its start of the exception level and of KVM, and of a KVM beneath. */
const saidOfNesting = "dmesg | grep -e 'started at EL' -e 'kvm \\[' -e 'smccc: KVM' | sed 's/^\\[[^]]*\\] //'"

/** Prints `nv2` where guests of this one can be hypervisors, then `KVM` where it runs on that, then what its log says. */
export const seeScript = `said=$(${saidOfNesting})
case $said in *VHE+NV*) echo nv2 ;; *) echo ;; esac
case $said in *'smccc: KVM'*) echo KVM ;; *) echo ;; esac
echo "$said"`

/** Prints the kernel's version, its arguments, and what its log says. */
export const nestingScript = `uname -r; cat /proc/cmdline; ${saidOfNesting}`

/**
 * Why the guests of an arm64 guest that printed this cannot be hypervisors, the nearest cause first; undefined where
 * they can. Rules: Linux, arch/arm64/kvm/arm.c and 7f3225fe8bc2 (6.16); QEMU 10.1, hw/arm/virt.c.
 */
export function judgeNesting(output: string): Refusal | undefined {
  const [release = '', parameters = '', ...log] = output.split('\n')
  const said = log.join('\n')
  if (/VHE\+NV\S* mode initialized/.test(said)) return undefined
  if (/started at EL1|HYP mode not available/.test(said)) {
    return {
      reason: 'its kernel came up at EL1, so whoever runs it gave it no EL2',
      hint: 'that takes QEMU 10.1 or newer; and on KVM, in the level below, Linux 6.16 with kvm-arm.mode=nested and FEAT_NV2',
    }
  }
  const [major = 0, minor = 0] = release.split('.').map(Number)
  if (major < 6 || (major === 6 && minor < 16)) {
    return { reason: `its kernel, ${release}, is too old`, hint: 'nesting takes Linux 6.16 or newer' }
  }
  if (!parameters.split(' ').includes('kvm-arm.mode=nested')) {
    return { reason: 'its kernel was started without kvm-arm.mode=nested', hint: 'give the kernel that argument' }
  }
  return {
    reason: 'the processor that it sees has no FEAT_NV2',
    hint: 'leave out --accel to have one emulated; processors: Neoverse V1, N2 and later',
  }
}
