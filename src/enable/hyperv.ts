import type { Plan, Request } from './plan.ts'
import { powershellString } from './powershell.ts'

/**
 * Hyper-V: the processor's extensions are exposed to a virtual machine by its host, so this is a script for the host.
 * It checks what it can there before it changes anything.
 */
export function planHyperV({ seen, vm }: Request): Plan {
  const inside = seen.hypervisor === 'Microsoft Hv'
  const exposed = inside && (seen.cpuFlags.has('vmx') || seen.cpuFlags.has('svm'))
  return {
    platform: 'hyperv',
    effect: exposed ? 'already' : 'elsewhere',
    steps: [],
    notes: [
      'run the script on the Hyper-V host, in PowerShell as an administrator',
      ...(vm === undefined ? ['the script asks for the name of the virtual machine; --vm NAME writes it in'] : []),
      'while guests run in it, the memory of the virtual machine cannot be changed',
    ],
    summary: exposed
      ? 'Hyper-V exposes the processor’s extensions to this machine'
      : 'Hyper-V exposes the processor’s extensions to a virtual machine that is off',
    output: script(vm),
  }
}

/**
 * Versions by Microsoft's "Configure nested virtualization": Intel from Windows 10 or Server 2016 (build 14393) and
 * configuration version 8.0, AMD from Windows 11 or Server 2022 (build 20348) and 9.3; one page says 10.0.
 */
const script = (vm: string | undefined) => `#Requires -RunAsAdministrator
#Requires -Modules Hyper-V
param(
    ${vm === undefined ? '[Parameter(Mandatory)][string]$VMName' : `[string]$VMName = ${powershellString(vm)}`},
    # Guests of the machine reach the network with addresses of their own.
    [switch]$MacAddressSpoofing
)
$ErrorActionPreference = 'Stop'

# Get-VM -Name would take wildcards.
$vm = Get-VM | Where-Object { $_.Name -eq $VMName }
if (@($vm).Count -ne 1) { throw "There are $(@($vm).Count) virtual machines named '$VMName'." }

# What has to be so.
if ($vm.State -ne 'Off') {
    throw "'$VMName' is $($vm.State). Shut it down first: Stop-VM -Name '$VMName'. Saved state does not do."
}
$build = [int](Get-CimInstance -ClassName Win32_OperatingSystem).BuildNumber
$processor = @(Get-CimInstance -ClassName Win32_Processor)[0]
$version = [version]$vm.Version
if ($processor.Manufacturer -eq 'GenuineIntel') {
    if ($build -lt 14393) { throw "Windows build $build is too old: Intel needs Windows 10 or Server 2016 (14393)." }
    if ($version -lt [version]'8.0') {
        throw "'$VMName' has configuration version $version; 8.0 is needed: Update-VMVersion -Name '$VMName'"
    }
    if (-not $processor.SecondLevelAddressTranslationExtensions -and -not (Get-CimInstance Win32_ComputerSystem).HypervisorPresent) {
        throw 'The processor has no EPT.'
    }
} elseif ($processor.Manufacturer -eq 'AuthenticAMD') {
    if ($build -lt 20348) { throw "Windows build $build is too old: AMD needs Windows 11 or Server 2022 (20348)." }
    if ($version -lt [version]'9.3') {
        throw "'$VMName' has configuration version $version; 9.3 is needed: Update-VMVersion -Name '$VMName'"
    }
    if ($version -lt [version]'10.0') {
        Write-Warning "Configuration version $version may do; Microsoft's pages disagree whether 10.0 is needed."
    }
} else {
    throw "Nested virtualization needs a processor of Intel or AMD; this one is of $($processor.Manufacturer)."
}
if ((Get-VMMemory -VM $vm).DynamicMemoryEnabled) {
    Write-Warning "'$VMName' has dynamic memory, which does not change while guests run in it: Set-VMMemory -VMName '$VMName' -DynamicMemoryEnabled \`$false"
}
if ((Get-VMProcessor -VM $vm).CompatibilityForMigrationEnabled) {
    throw "Processor compatibility hides the extensions: Set-VMProcessor -VMName '$VMName' -CompatibilityForMigrationEnabled \`$false"
}

# The change, and a look at it.
if ((Get-VMProcessor -VM $vm).ExposeVirtualizationExtensions) {
    Write-Output "'$VMName' has the extensions already."
} else {
    Set-VMProcessor -VM $vm -ExposeVirtualizationExtensions $true
    if (-not (Get-VMProcessor -VM $vm).ExposeVirtualizationExtensions) { throw 'Hyper-V did not take the setting.' }
    Write-Output "'$VMName' has the extensions from its next start: Start-VM -Name '$VMName'"
}
if ($MacAddressSpoofing) {
    Get-VMNetworkAdapter -VM $vm | Set-VMNetworkAdapter -MacAddressSpoofing On
    Write-Output "Guests of '$VMName' may use MAC addresses of their own."
}

# To take it back, with the machine off:
#   Set-VMProcessor -VMName '$VMName' -ExposeVirtualizationExtensions $false
#   Get-VMNetworkAdapter -VMName '$VMName' | Set-VMNetworkAdapter -MacAddressSpoofing Off
`
