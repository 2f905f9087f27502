/** An option of a kernel's configuration that is not as it should be. */
export interface KernelConfigFault {
  option: string
  /** `y`, `m`, a value, or `not set`. */
  found: string
  /** Without it no nested guest starts; else only some do not. */
  required: boolean
  why: string
}

const wanted = [
  { option: 'CONFIG_64BIT', required: true, why: 'KVM has to run in 64-bit mode' },
  { option: 'CONFIG_ACRN_GUEST', required: true, why: 'the kernel has to know ACRN' },
  { option: 'CONFIG_KVM', required: true, why: 'KVM is the only hypervisor that ACRN runs in its Service VM' },
  { option: 'CONFIG_KVM_INTEL', required: true, why: 'KVM for VMX' },
  {
    option: 'CONFIG_VIRTIO_BLK',
    required: false,
    why: 'guests with a virtio disk as their root need it, if they run the same kernel',
  },
]

/** Judges a Service VM's kernel by its `.config`; all of it is to be built in, as ACRN's tutorial says. */
export function kernelConfigFaults(text: string): KernelConfigFault[] {
  const values = new Map(
    [...text.matchAll(/^(CONFIG_\w+)=(.*)$/gm)].map(([, option = '', value = '']) => [option, value.trim()]),
  )
  return wanted.flatMap(({ option, required, why }) => {
    const found = values.get(option) ?? 'not set'
    return found === 'y' ? [] : [{ option, found, required, why }]
  })
}
