import assert from 'node:assert/strict'
import { test } from 'node:test'
import { diffLines } from 'diff'
import type { NestvmError } from '../../store/error.ts'
import { layout2, layout3 } from './example-scenarios.ts'
import { type AcrnRequest, planAcrn } from './plan.ts'

const plan = (text: string, others: Partial<AcrnRequest> = {}) =>
  planAcrn({ scenario: { path: 'a.xml', text }, cpus: new Map(), ...others })

function edited(text: string, others: Partial<AcrnRequest> = {}): string {
  const [step, ...more] = plan(text, others).steps
  assert.deepEqual(more, [])
  assert.ok(step?.kind === 'file' && step.after !== undefined)
  return step.after
}

/** Lines that were taken out and put in, without what surrounds them. */
function changes(before: string, after: string): { out: string[]; in: string[] } {
  const parts = diffLines(before, after)
  const lines = (some: typeof parts) =>
    some.flatMap(({ value }) => value.trimEnd().split('\n')).map((line) => line.trim())
  return { out: lines(parts.filter(({ removed }) => removed)), in: lines(parts.filter(({ added }) => added)) }
}

function reasons(text: string, others: Partial<AcrnRequest> = {}): string[] {
  try {
    plan(text, others)
  } catch (error) {
    const { code, details } = error as NestvmError
    assert.equal(code, 'ACRN_FORBIDDEN')
    return details.reasons as string[]
  }
  assert.fail('it was not refused')
}

test('layout 2: the feature, the scheduler, the flags and the vUARTs change, and nothing else', () => {
  const after = edited(layout2())
  assert.deepEqual(changes(layout2(), after), {
    out: [
      '<SCHEDULER>SCHED_BVT</SCHEDULER>',
      '<NVMX_ENABLED>n</NVMX_ENABLED>',
      '<guest_flag>0</guest_flag>',
      '<base>SERVICE_VM_COM1_BASE</base>',
      '<base>INVALID_PCI_BASE</base>',
    ],
    in: [
      ...['<SCHEDULER>SCHED_NOOP</SCHEDULER>', '<NVMX_ENABLED>y</NVMX_ENABLED>'],
      ...['<guest_flag>GUEST_FLAG_NVMX_ENABLED</guest_flag>', '<guest_flag>GUEST_FLAG_LAPIC_PASSTHROUGH</guest_flag>'],
      ...['<base>INVALID_COM_BASE</base>', '<base>PCI_VUART</base>'],
    ],
  })
  assert.match(
    after,
    /\n {6}<guest_flag>GUEST_FLAG_NVMX_ENABLED<\/guest_flag>\n {6}<guest_flag>GUEST_FLAG_LAPIC_PASSTHROUGH<\/guest_flag>\n {4}<\/guest_flags>/,
  )
  assert.ok(after.includes('<!-- the Service VM: ümläut 𝄞 -->'))
})

test('layout 3: the VM gets the feature, LAPIC passthrough and a PCI console, and the hypervisor its scheduler', () => {
  const after = edited(layout3())
  assert.deepEqual(changes(layout3(), after), {
    out: ['<SCHEDULER>SCHED_BVT</SCHEDULER>', '<console_vuart>COM Port 1</console_vuart>'],
    in: [
      '<SCHEDULER>SCHED_NOOP</SCHEDULER>',
      ...[
        '<nested_virtualization_support>y</nested_virtualization_support>',
        '<lapic_passthrough>y</lapic_passthrough>',
      ],
      '<console_vuart>PCI</console_vuart>',
    ],
  })
})

test('what is edited needs no further edit', () => {
  for (const text of [layout2(), layout3()]) {
    const again = plan(edited(text))
    assert.deepEqual([again.steps, again.effect], [[], 'already'])
  }
})

test('elements that are there with other values, empty or with a comment are set in their place', () => {
  const service = '<lapic_passthrough/><nested_virtualization_support></nested_virtualization_support>'
  const text = layout3({ service }).replace('>SCHED_BVT<', '>\n        <!-- shared -->\n        SCHED_BVT\n      <')
  const after = edited(text)
  assert.ok(
    after.includes(
      '<lapic_passthrough>y</lapic_passthrough><nested_virtualization_support>y</nested_virtualization_support>',
    ),
  )
  assert.ok(after.includes('>\n        <!-- shared -->\n        SCHED_NOOP\n      <'))
})

test('line ends, a byte order mark and a declaration stay', () => {
  const text = `\ufeff<?xml version="1.0" encoding="UTF-8"?>\n${layout3()}`.replaceAll('\n', '\r\n')
  const after = edited(text)
  assert.equal(after.replaceAll('\r\n', '').includes('\n'), false)
  assert.ok(after.startsWith('\ufeff<?xml version="1.0" encoding="UTF-8"?>\r\n'))
})

test('flags that there are stay; a VM without any gets a list', () => {
  const kept = edited(layout2({ flags: ['GUEST_FLAG_HIDE_MTRR'] }))
  assert.match(
    kept,
    /HIDE_MTRR<\/guest_flag>\n +<guest_flag>GUEST_FLAG_NVMX_ENABLED<\/guest_flag>\n +<guest_flag>GUEST_FLAG_LAPIC/,
  )
  const made = edited(layout2({ flags: [] }))
  assert.match(made, /<name>ACRN_Service_VM<\/name>\n {4}<guest_flags>\n {6}<guest_flag>GUEST_FLAG_NVMX_ENABLED</)
})

test('layout 2: the Service VM gets the CPUs that are named, and other VMs theirs', () => {
  const text = layout2({ userCpus: [2, 3] })
  const after = edited(text, {
    cpus: new Map([
      ['', [1, 2]],
      ['POST_STD_VM1', [3]],
    ]),
  })
  assert.match(
    after,
    /<name>ACRN_Service_VM<\/name>\n {4}<cpu_affinity>\n {6}<pcpu_id>1<\/pcpu_id>\n {6}<pcpu_id>2<\/pcpu_id>\n {4}<\/cpu_affinity>\n/,
  )
  assert.match(
    after,
    /<name>POST_STD_VM1<\/name>\n {4}<cpu_affinity>\n {6}<pcpu_id>3<\/pcpu_id>\n {4}<\/cpu_affinity>\n/,
  )
  assert.throws(() => plan(text, { cpus: new Map([['nobody', [1]]]) }), { code: 'NO_SUCH_VM' })
})

test('layout 3: CPUs of other VMs are written with what they had; the Service VM cannot be given any', () => {
  const after = edited(layout3({ userCpus: [0, 1] }), { cpus: new Map([['1', [2, 3]]]) })
  assert.match(
    after,
    /<pcpu>\n {8}<pcpu_id>3<\/pcpu_id>\n {8}<real_time_vcpu>n<\/real_time_vcpu>\n {6}<\/pcpu>\n {4}<\/cpu_affinity>/,
  )
  assert.match(reasons(layout3(), { cpus: new Map([['', [1]]]) }).join(), /gives the Service VM all/)
})

test('VMs that share CPUs are refused, for they need another scheduler', () => {
  const text = layout2({ userCpus: [2, 3], serviceCpus: [0, 1, 2] })
  assert.deepEqual(reasons(text), [
    'ACRN_Service_VM, POST_STD_VM1 share physical CPU 2: that takes a scheduler that shares CPUs, but nesting goes with SCHED_NOOP alone',
  ])
  assert.deepEqual(plan(text, { cpus: new Map([['', [0, 1]]]) }).steps.length, 1)
})

test('a VM on the CPU that the Service VM is booted on is refused; a pre-launched one has that for itself', () => {
  assert.match(
    reasons(layout3({ userCpus: [0, 1] })).join(),
    /POST_STD_VM1 shares physical CPU 0 with ACRN_Service_VM, which is booted on it/,
  )
  const pre = layout3({ userCpus: [1], preLaunched: true }).replace('<pcpu_id>3<', '<pcpu_id>0<')
  assert.match(reasons(pre).join(), /shares physical CPU 1/)
})

test('only the Service VM gets it: no pre-launched VM, no other, none where there is no Service VM', () => {
  const pre = layout3({ preLaunched: true })
  assert.equal(plan(pre).steps.length, 1)
  assert.match(reasons(pre, { vm: 'SAFETY_VM' }).join(), /SAFETY_VM is a pre-launched VM/)
  assert.match(reasons(layout3(), { vm: 'POST_STD_VM1' }).join(), /post-launched/)
  const nested = pre.replace(
    '<name>SAFETY_VM</name>',
    '<name>SAFETY_VM</name><nested_virtualization_support>y</nested_virtualization_support>',
  )
  assert.match(reasons(nested).join(), /SAFETY_VM.*Service VM alone/)
  const flagged = layout2().replace(/(<vm_type>POST_STD_VM.*?<guest_flag>)0/s, '$1GUEST_FLAG_NVMX_ENABLED')
  assert.match(reasons(flagged).join(), /POST_STD_VM1/)
  const none = layout3().replaceAll('SERVICE_VM<', 'PRE_LAUNCHED_VM<')
  assert.throws(() => plan(none), { code: 'ACRN_FORBIDDEN', message: /no Service VM/ })
})

test('EPT that is turned off in the Service VM is refused', () => {
  for (const argument of ['kvm-intel.ept=0', 'kvm_intel.ept=N']) {
    assert.match(reasons(layout3({ bootargs: `rw ${argument} quiet` })).join(), new RegExp(`${argument}.*EPT`))
  }
  assert.equal(plan(layout3({ bootargs: 'kvm_intel.ept=1' })).steps.length, 1)
})

test('what is no scenario, or of an ACRN without nesting, is said', () => {
  for (const text of ['', '<a>', '<a/>', '<acrn-config><hv/></acrn-config>'])
    assert.throws(() => plan(text), { code: 'BAD_SCENARIO' }, text)
  const old = layout2().replace(/ *<NVMX_ENABLED>.*\n/, '')
  assert.throws(() => plan(old), { code: 'BAD_SCENARIO', message: /before v2\.5/ })
})

test('the console of a debug build, and legacy vUARTs to other VMs, are remarked on', () => {
  assert.match(plan(layout2()).notes.join(), /physical CPU 0.*--cpus/)
  assert.doesNotMatch(plan(layout2({ release: true })).notes.join(), /physical CPU 0/)
  assert.doesNotMatch(plan(layout2(), { cpus: new Map([['', [1]]]) }).notes.join(), /physical CPU 0/)
  assert.match(plan(layout3({ connection: true })).notes.join(), /legacy vUART to another VM/)
  assert.doesNotMatch(plan(layout3()).notes.join(), /legacy vUART to another VM/)
})

test("the Service VM's kernel is checked by its configuration", () => {
  const config = ['64BIT', 'ACRN_GUEST', 'KVM', 'KVM_INTEL', 'VIRTIO_BLK'].map((name) => `CONFIG_${name}=y\n`).join('')
  const check = (text: string) => planAcrn({ cpus: new Map(), kernelConfig: { path: '.config', text } })
  assert.deepEqual(check(config).notes, [])
  assert.match(check(config.replace('VIRTIO_BLK=y', 'VIRTIO_BLK=m')).notes.join(), /VIRTIO_BLK is m/)
  for (const [before, after, said] of [
    ['CONFIG_KVM=y', '# CONFIG_KVM is not set', /CONFIG_KVM is not set/],
    ['CONFIG_KVM_INTEL=y', 'CONFIG_KVM_INTEL=m', /CONFIG_KVM_INTEL is m/],
    ['CONFIG_ACRN_GUEST=y\n', '', /CONFIG_ACRN_GUEST is not set/],
  ] as const)
    assert.throws(() => check(config.replace(before, after)), {
      code: 'ACRN_KERNEL_CONFIG',
      message: said,
      hint: /--enable/,
    })
})

test('with an output the scenario stays as it is', () => {
  const [step] = plan(layout3(), { output: { path: 'b.xml', text: undefined } }).steps
  assert.ok(step?.kind === 'file')
  assert.deepEqual([step.path, step.before], ['b.xml', undefined])
})
