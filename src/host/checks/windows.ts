import type { Facts } from '../facts/schema.ts'
import { atLeast, type Check, type Finding, type Mend } from './finding.ts'

/**
 * A Hyper-V host's own document, of one VM. Rules: Microsoft, "Run Hyper-V in a Virtual Machine with Nested
 * Virtualization". For AMD its pages name configuration version 9.3 here and 10.0 there: below 9.3 is refused, below
 * 10.0 warned of.
 */
export const checkWindows: Check = ({ windows, cpu }) => {
  if (!windows) return []
  const amd = /AMD|Hygon/i.test(cpu.vendor ?? '')
  return [hostVersion(windows, amd), vmVersion(windows, amd), exposed(windows), ...settings(windows)].filter(
    (finding) => finding !== undefined,
  )
}

type Windows = NonNullable<Facts['windows']>

/** Builds: 14393 is Server 2016, 10240 the first Windows 10; 20348 Server 2022, 22000 the first Windows 11. */
function hostVersion({ build, server }: Windows, amd: boolean): Finding {
  const least = amd ? (server ? 20348 : 22000) : server ? 14393 : 10240
  const name = amd ? 'Windows Server 2022 or Windows 11' : 'Windows Server 2016 or Windows 10'
  const seen = `the Hyper-V host has an ${amd ? 'AMD' : 'Intel'} processor and Windows ${server ? 'Server ' : ''}build ${build}`
  if (build >= least) {
    const means = `it can nest: that takes ${name}`
    return { id: 'windows-version', severity: 'good', sure: 'certain', seen, means }
  }
  return {
    ...{ id: 'windows-old', severity: 'problem', sure: 'certain', stops: 'nesting' },
    seen,
    means: `nesting takes ${name} (build ${least}): its VMs (L1) cannot run guests (L2)`,
    mend: { advice: `upgrade the host to ${name}` },
  }
}

function vmVersion({ vm }: Windows, amd: boolean): Finding | undefined {
  const seen = `the VM ${vm.name} has configuration version ${vm.version}`
  const mend: Mend = {
    shell: 'powershell',
    lasting: [`Stop-VM -Name ${quoted(vm.name)}`, `Update-VMVersion -Name ${quoted(vm.name)}`],
  }
  if (amd ? !atLeast(vm.version, 9, 3) : !atLeast(vm.version, 8, 0)) {
    const means = `nesting takes version ${amd ? '9.3 (10.0 by other pages of Microsoft)' : '8.0'} on this processor`
    return { id: 'windows-vm-old', severity: 'problem', sure: 'certain', seen, means, mend, stops: 'nesting' }
  }
  if (!amd || atLeast(vm.version, 10, 0)) return undefined
  const means = 'Microsoft names both 9.3 and 10.0 as the least version for AMD: it may not nest'
  return { id: 'windows-vm-doubtful', severity: 'warning', sure: 'reported', seen, means, mend }
}

function exposed({ vm }: Windows): Finding {
  if (vm.exposed) {
    const means = `${vm.name} (L1) can run guests of its own (L2)`
    const seen = `ExposeVirtualizationExtensions is on for ${vm.name}`
    return { id: 'windows-exposed', severity: 'good', sure: 'certain', seen, means }
  }
  return {
    ...{ id: 'windows-not-exposed', severity: 'problem', sure: 'certain', stops: 'nesting' },
    seen: `ExposeVirtualizationExtensions is off for ${vm.name}`,
    means: `${vm.name} (L1) sees no virtualization extension, so it cannot run guests (L2)`,
    mend: {
      shell: 'powershell',
      lasting: [
        ...(vm.off ? [] : [`Stop-VM -Name ${quoted(vm.name)}`]),
        `Set-VMProcessor -VMName ${quoted(vm.name)} -ExposeVirtualizationExtensions $true`,
        `Start-VM -Name ${quoted(vm.name)}`,
      ],
    },
  }
}

function settings({ vm }: Windows): Finding[] {
  const findings: Finding[] = []
  if (vm.dynamicMemory) {
    findings.push({
      ...{ id: 'windows-dynamic-memory', severity: 'note', sure: 'certain' },
      seen: `${vm.name} has dynamic memory`,
      means: 'while it runs guests its memory does not change: it keeps what it had when they started',
      mend: { shell: 'powershell', lasting: [`Set-VMMemory -VMName ${quoted(vm.name)} -DynamicMemoryEnabled $false`] },
    })
  }
  if (!vm.macSpoofing) {
    findings.push({
      ...{ id: 'windows-mac', severity: 'note', sure: 'certain' },
      seen: `MacAddressSpoofing is off for ${vm.name}`,
      means: "frames of bridged L2 guests are dropped; guests behind NAT, as nestvm's are, need nothing",
      mend: {
        shell: 'powershell',
        lasting: [`Set-VMNetworkAdapter -VMName ${quoted(vm.name)} -MacAddressSpoofing On`],
      },
    })
  }
  return findings
}

/** As PowerShell takes it literally: these commands are to be copied, and the name may be anybody's. */
function quoted(name: string): string {
  return /^[A-Za-z0-9_-]+$/.test(name) ? name : `'${name.replaceAll("'", "''")}'`
}
