/** Whose virtualization extension x86 guests are offered: AMD's SVM or Intel's VMX. */
export const cpuVendors = ['amd', 'intel'] as const
export type CpuVendor = (typeof cpuVendors)[number]

/** By CPUID's name of the vendor, as /proc/cpuinfo shows it: those whose processors have the same extension. */
export function vendorOf(id: string | undefined): CpuVendor | undefined {
  if (/AuthenticAMD|HygonGenuine/.test(id ?? '')) return 'amd'
  return /GenuineIntel|CentaurHauls|Shanghai/.test(id ?? '') ? 'intel' : undefined
}
