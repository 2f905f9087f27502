import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exampleRecord } from '../stack/example-record.ts'
import { nestingText, proofs } from './nesting.ts'
import type { Visit } from './visit.ts'

const host: Visit = { level: 0, machine: 'host', files: [], identity: '' }

function guest(level: number, accel: 'kvm' | 'tcg', told: Partial<Visit> = {}): Visit {
  const machine = ['a', 'l2', 'l3'].slice(0, level).join('/')
  const fields = { parent: level > 1 ? `g${level - 1}` : undefined, path: machine, level, accel, accelReason: 'no KVM' }
  return { ...host, level, machine, record: exampleRecord(`g${level}`, fields), ...told }
}

test('KVM on KVM is proven by the counters of KVM, on both levels that count', () => {
  const visits = [
    host,
    guest(1, 'kvm', { counters: { exits: 10, nestedRun: 700 } }),
    guest(2, 'kvm', { counters: { exits: 20, nestedRun: 0 }, signature: 'KVMKVMKVM' }),
  ]
  assert.deepEqual(
    proofs(visits).map(({ on, kvmOnKvm }) => [on, kvmOnKvm]),
    [
      ['kvm', false],
      ['kvm', true],
    ],
  )
  const [setUp, , , second = ''] = nestingText(visits)
  assert.match(setUp ?? '', /nested setup: 2 levels/)
  assert.match(second, /^KVM on KVM: L2 .*L1's KVM counts 20 exits.*L0's KVM entered guests of a 700 times/)
})

test('emulation is named, and a guest of KVM in it is not called KVM on KVM', () => {
  const visits = [host, guest(1, 'tcg'), guest(2, 'kvm', { counters: { exits: 20, nestedRun: 0 } })]
  const [, , first = '', second = ''] = nestingText(visits)
  assert.match(first, /^L1 \(a\) is emulated by QEMU \(TCG\) on L0, not run on its KVM: no KVM/)
  assert.match(second, /^L2 \(a\/l2\) runs on the KVM of L1\. Proof/)
})

test('without counters nothing is said to be proven', () => {
  const texts = nestingText([host, guest(1, 'kvm'), guest(2, 'kvm')])
  assert.match(texts.at(-1) ?? '', /Not proven/)
  assert.match(nestingText([host])[0] ?? '', /No guest/)
})
