import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exampleSeen } from './example-seen.ts'
import { planPermission } from './permission.ts'
import { platforms } from './plan.ts'
import { choosePlatforms, planPlatform } from './platform.ts'
import { powershellString } from './powershell.ts'
import type { Seen } from './seen.ts'

const choose = (changes: Partial<Seen>, user = 'root') =>
  choosePlatforms({ seen: exampleSeen(changes), root: '/', user })
const dmi = (sys_vendor: string, others: Record<string, string> = {}) => ({
  dmi: new Map(Object.entries({ sys_vendor, ...others })),
})

test('the platform is found by the processor, else by what is around the machine', () => {
  assert.deepEqual(choose({ cpuFlags: new Set(['vmx']) }), ['intel'])
  assert.deepEqual(choose({ cpuFlags: new Set(['svm']) }, 'me'), ['amd', 'permission'])
  assert.deepEqual(choose({ arch: 'aarch64' }), ['arm64'])
  assert.deepEqual(choose({ arch: 's390x' }), ['s390x'])
  assert.deepEqual(choose(dmi('Google')), ['gcp'])
  assert.deepEqual(choose(dmi('Amazon EC2', { product_name: 'm5.large' })), ['aws'])
  const azure = dmi('Microsoft Corporation', { chassis_asset_tag: '7783-7084-3265-9085-8269-3286-77' })
  assert.deepEqual(choose(azure), ['azure'])
  assert.deepEqual(choose({ hypervisor: 'Microsoft Hv', ...dmi('Microsoft Corporation') }), ['hyperv'])
  assert.deepEqual(choose(dmi('VMware, Inc.')), ['vmware'])
  assert.deepEqual(choose(dmi('innotek GmbH', { product_name: 'VirtualBox' })), ['virtualbox'])
  assert.deepEqual(choose({ hypervisor: 'XenVMMXenVMM' }), ['xen'])
  assert.deepEqual(choose(dmi('QEMU')), ['kvm'])
  assert.throws(() => choose({ hypervisor: 'ACRNACRNACRN' }), { code: 'NO_VIRTUALIZATION', hint: /--scenario/ })
  assert.throws(() => choose({ arch: 'riscv64' }), { code: 'UNKNOWN_PLATFORM' })
})

test('a platform whose switch is outside gets commands with the name of the machine, as one word of a shell', () => {
  for (const platform of ['aws', 'gcp', 'azure', 'vmware', 'virtualbox', 'kvm'] as const) {
    const plan = planPlatform(platform, { seen: exampleSeen(), root: '/', user: 'root', vm: "a b'c" })
    assert.deepEqual([plan.effect, plan.steps], ['elsewhere', []])
    assert.ok(plan.output?.includes("'a b'\\''c'"), platform)
  }
  const gcp = planPlatform('gcp', { seen: exampleSeen(), root: '/', user: 'root', vm: 'x' }).output ?? ''
  assert.match(gcp, /printf 'advancedMachineFeatures:\\n {2}enableNestedVirtualization: true\\n' >> x\.yaml/)
})

test('every platform but ACRN plans by the same request', () => {
  const seen = exampleSeen({ cpuFlags: new Set(['vmx', 'svm']) })
  for (const platform of platforms) {
    if (platform !== 'acrn') assert.equal(planPlatform(platform, { seen, root: '/', user: 'root' }).platform, platform)
  }
})

test('the script for Hyper-V has the name as a literal, and checks before it changes', () => {
  const { output = '' } = planPlatform('hyperv', { seen: exampleSeen(), root: '/', user: 'root', vm: "it's ’$(calc)`" })
  assert.match(output, /\[string\]\$VMName = 'it''s ’’\$\(calc\)`',/)
  const order = [
    "$vm.State -ne 'Off'",
    '14393',
    "[version]'8.0'",
    '20348',
    "[version]'9.3'",
    'Set-VMProcessor -VM $vm -Expose',
    'MacAddressSpoofing On',
  ]
  const places = order.map((part) => output.indexOf(part))
  assert.ok(
    places.every((place, index) => place > (places[index - 1] ?? 0)),
    places.join(),
  )
  assert.equal(output.split('{').length, output.split('}').length)
  const asking = planPlatform('hyperv', { seen: exampleSeen(), root: '/', user: 'root' }).output ?? ''
  assert.match(asking, /\[Parameter\(Mandatory\)\]\[string\]\$VMName,/)
})

test("PowerShell's other quotes are quotes too", () => {
  assert.equal(powershellString("a'b‘c’d‚e‛f"), "'a''b‘‘c’’d‚‚e‛‛f'")
})

const permission = (changes: Partial<Seen>, user = 'me', root = '/') => {
  const plan = planPermission({ seen: exampleSeen({ userName: user, ...changes }), root, user })
  const commands = plan.steps.flatMap((step) => (step.kind === 'command' ? [step.argv.join(' ')] : []))
  const files = plan.steps.flatMap((step) => (step.kind === 'file' ? [step.path] : []))
  return { ...plan, commands, files }
}
const rule = '/etc/udev/rules.d/65-nestvm-kvm.rules'

test('where a group may open /dev/kvm, the user joins it', () => {
  const { commands, files, effect } = permission({ device: { mode: '660', owner: 'root', group: 'kvm' } })
  assert.deepEqual([commands, files, effect], [['usermod -aG kvm me'], [], 'login'])
})

test('who may open it already needs nothing', () => {
  const device = { mode: '660', owner: 'root', group: 'kvm' }
  for (const seen of [
    { device, groups: ['me', 'kvm'] },
    { device: { ...device, mode: '666' } },
    { device: { ...device, owner: 'me' } },
  ])
    assert.equal(permission(seen).effect, 'already')
  assert.equal(permission({}, 'root').effect, 'already')
})

test("where the device is root's alone, a rule of udev gives it to the group kvm, which is made if need be", () => {
  const device = { mode: '600', owner: 'root', group: 'root' }
  const programs = new Set(['usermod', 'gpasswd', 'groupadd', 'udevadm'])
  const made = permission({ device, programs })
  assert.deepEqual(made.files, [rule])
  assert.deepEqual(made.commands, [
    ...['groupadd --system kvm', 'udevadm control --reload', 'udevadm trigger --action=add --sysname-match=kvm'],
    'usermod -aG kvm me',
  ])
  const there = permission({ device, programs, files: new Map([['/etc/group', 'root:x:0:\nkvm:x:104:\n']]) })
  assert.ok(!there.commands.includes('groupadd --system kvm'))
  const withoutUdev = permission({ device, programs: new Set(['addgroup']) })
  assert.deepEqual(withoutUdev.commands.slice(1), ['chown root:kvm /dev/kvm', 'chmod 0660 /dev/kvm', 'addgroup me kvm'])
})

test('a user that is not there, and tools that are not, are errors; in another directory commands are said', () => {
  assert.throws(() => permission({ groups: undefined }), { code: 'NO_SUCH_USER' })
  assert.throws(() => permission({ device: { mode: '660', owner: 'root', group: 'kvm' }, programs: new Set() }), {
    code: 'NO_TOOL',
  })
  const elsewhere = permission({ programs: new Set(['usermod', 'groupadd']) }, 'me', '/mnt')
  assert.deepEqual([elsewhere.files, elsewhere.commands], [[`/mnt${rule}`], []])
  assert.match(elsewhere.notes.join(), /usermod -aG kvm me/)
})
