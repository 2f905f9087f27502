import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { Home } from './nestvm.ts'

test('a KVM that only emulates instructions is not believed in, and the reason is said', async (t) => {
  if (!existsSync('/sys/module/kvm_pvm')) return t.skip('this host has no software-nested KVM (kvm_pvm)')
  await using home = new Home()
  const { kvm } = await home.json<{ kvm: { usable: boolean; code: string; reason: string; milliseconds: number } }>(
    'doctor',
  )
  assert.equal(kvm.usable, false)
  assert.equal(kvm.code, 'KVM_UNUSABLE')
  assert.match(kvm.reason, /40 million instructions did not end within \d+(\.\d)? s/)
  assert.match(kvm.reason, /kvm_pvm is loaded/)
  // The answer is kept: the second one is the first one's.
  const again = await home.json<{ kvm: { testedAt: string } }>('doctor')
  assert.deepEqual(again.kvm, kvm)
})
