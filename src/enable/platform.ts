import { NestvmError } from '../store/error.ts'
import { planArm64 } from './arm64.ts'
import { planHyperV } from './hyperv.ts'
import { isOutside, planOutside } from './outside.ts'
import { planPermission } from './permission.ts'
import type { Plan, Platform, Request } from './plan.ts'
import { planS390x } from './s390x.ts'
import type { Seen } from './seen.ts'
import { planKvmX86 } from './x86.ts'

/** One platform's plan. ACRN's is not among them: it is about a scenario's file rather than about a machine. */
export function planPlatform(platform: Exclude<Platform, 'acrn'>, request: Request): Plan {
  if (isOutside(platform)) return planOutside(platform, request)
  if (platform === 'intel' || platform === 'amd') return planKvmX86(platform, request)
  return { s390x: planS390x, arm64: planArm64, permission: planPermission, hyperv: planHyperV }[platform](request)
}

/**
 * What a machine needs, found by looking at it: nesting in its KVM, or where it has none, in what is outside of it; and
 * the user's permission. Throws `UNKNOWN_PLATFORM` where that cannot be told, and what the plans throw.
 */
export function choosePlatforms(request: Request): Exclude<Platform, 'acrn'>[] {
  const { seen, user } = request
  const main = mainPlatform(seen)
  const own = main === 'intel' || main === 'amd' || main === 's390x' || main === 'arm64'
  return own && user !== 'root' ? [main, 'permission'] : [main]
}

function mainPlatform(seen: Seen): Exclude<Platform, 'acrn'> {
  if (seen.arch === 's390x') return 's390x'
  if (seen.arch === 'aarch64') return 'arm64'
  if (seen.arch === 'x86_64' || seen.arch === 'i686') {
    if (seen.cpuFlags.has('vmx')) return 'intel'
    if (seen.cpuFlags.has('svm')) return 'amd'
    const above = levelAbove(seen)
    if (above === 'acrn') {
      throw new NestvmError(
        'NO_VIRTUALIZATION',
        'ACRN hides VMX from its Service VM until its scenario turns nesting on',
        {
          hint: 'nestvm enable --platform acrn --scenario FILE, on the machine where ACRN is built',
        },
      )
    }
    // On a machine of its own the firmware is to blame: this says so.
    return above ?? 'intel'
  }
  if (seen.arch === 'ppc64le' || seen.arch === 'ppc64') {
    throw new NestvmError('UNKNOWN_PLATFORM', 'on POWER nesting is on by default, and is written at run time', {
      hint: 'echo Y > /sys/module/kvm_hv/parameters/nested, as root',
    })
  }
  throw new NestvmError('UNKNOWN_PLATFORM', `nestvm knows no way to turn nesting on for ${seen.arch}`)
}

/** The hypervisor that a machine without the extension runs on, by CPUID, else by its firmware's names. */
function levelAbove({
  hypervisor,
  dmi,
  cpuFlags,
}: Seen): Exclude<Platform, 'intel' | 'amd' | 's390x' | 'arm64' | 'permission'> | undefined {
  const vendor = dmi.get('sys_vendor') ?? ''
  const product = dmi.get('product_name') ?? ''
  if (vendor === 'Google' || /Google Compute Engine/.test(product)) return 'gcp'
  if (/Amazon EC2/.test(vendor)) return product.includes('metal') ? undefined : 'aws'
  // The chassis tag that Azure gives its machines.
  if (dmi.get('chassis_asset_tag') === '7783-7084-3265-9085-8269-3286-77') return 'azure'
  if (hypervisor === 'ACRNACRNACRN') return 'acrn'
  if (hypervisor === 'Microsoft Hv' || vendor === 'Microsoft Corporation') return 'hyperv'
  if (/^VMware/.test(hypervisor) || /^VMware/.test(vendor)) return 'vmware'
  if (/VirtualBox|innotek/.test(`${vendor} ${product}`)) return 'virtualbox'
  if (/^Xen/i.test(hypervisor) || vendor === 'Xen') return 'xen'
  if (/^KVMKVMKVM|^Linux KVM|^TCGTCGTCG/.test(hypervisor) || /QEMU|KVM/.test(`${vendor} ${product}`)) return 'kvm'
  return cpuFlags.has('hypervisor') ? 'kvm' : undefined
}
