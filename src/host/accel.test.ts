import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { accelByFacts } from './accel.ts'
import { readFacts } from './facts/file.ts'

const facts = (name: string) => readFacts(join(import.meta.dirname, '../../test/facts', `${name}.json`))

test('a machine with a KVM that works gets KVM, by its facts; asked for, emulation', async () => {
  assert.equal(accelByFacts('auto', await facts('intel-ready'), 'x86_64', true).accel, 'kvm')
  assert.equal(accelByFacts('auto', await facts('acrn-service-vm'), 'x86_64', true).accel, 'kvm')
  assert.equal(accelByFacts('tcg', await facts('intel-ready'), 'x86_64', true).accel, 'tcg')
})

test('nesting that is off counts only where guests are to nest', async () => {
  const off = await facts('amd-nested-off')
  assert.equal(accelByFacts('auto', off, 'x86_64', false).accel, 'kvm')
  assert.match(accelByFacts('auto', off, 'x86_64', true).reason, /amd-nested-off/)
  assert.throws(() => accelByFacts('kvm', off, 'x86_64', true), { code: 'NESTED_DISABLED', hint: /modprobe/ })
})

test('where no guest runs on KVM it is emulated, and KVM that was asked for is an error', async () => {
  const hidden = await facts('acrn-service-vm-hidden')
  assert.equal(accelByFacts('auto', hidden, 'x86_64', false).accel, 'tcg')
  assert.throws(() => accelByFacts('kvm', hidden, 'x86_64', false), { code: 'KVM_UNUSABLE' })
})

test('a processor of another vendor than the one asked for is no KVM for it', async () => {
  const intel = await facts('intel-ready')
  const amd = await facts('amd-ready')
  assert.equal(accelByFacts('auto', intel, 'x86_64', true, 'intel').accel, 'kvm')
  assert.equal(accelByFacts('auto', amd, 'x86_64', true, 'amd').accel, 'kvm')
  const emulated = accelByFacts('auto', amd, 'x86_64', true, 'intel')
  assert.equal(emulated.accel, 'tcg')
  assert.match(emulated.reason, /AuthenticAMD, and Intel's was asked for/)
  assert.throws(() => accelByFacts('kvm', amd, 'x86_64', true, 'intel'), { code: 'KVM_UNUSABLE' })
})
