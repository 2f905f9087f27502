import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Facts, factsSchema } from '../../src/host/facts/schema.ts'
import { Home } from './nestvm.ts'

test('a KVM that only emulates instructions is not believed in, and the reason is said', async (t) => {
  if (!existsSync('/sys/module/kvm_pvm')) return t.skip('this host has no software-nested KVM (kvm_pvm)')
  await using home = new Home()
  const doctor = async () => {
    const { status, stdout } = await home.run(['doctor', '--json'])
    const { machines, because } = JSON.parse(stdout)
    return { status, because, kvm: machines[0].kvm }
  }
  const { status, because, kvm } = await doctor()
  assert.equal(status, 3)
  assert.ok(because.includes('kvm-software-nested') && because.includes('kvm-unusable'), because.join(' '))
  assert.equal(kvm.usable, false)
  assert.equal(kvm.code, 'KVM_UNUSABLE')
  assert.match(kvm.reason, /40 million instructions did not end within \d+(\.\d)? s/)
  assert.match(kvm.reason, /kvm_pvm is loaded/)
  // The answer is kept: the second one is the first one's.
  assert.deepEqual((await doctor()).kvm, kvm)

  const now = factsSchema.parse(JSON.parse(await home.ok('doctor', '--facts-only')))
  const path = join(import.meta.dirname, '../facts/kvm-pvm-host.json')
  assert.deepEqual(stable(now), stable(factsSchema.parse(JSON.parse(readFileSync(path, 'utf8')))))
})

/** What hosts of this kind have in common. */
function stable({ arch, level, cpu, kvm, probe }: Facts) {
  return {
    ...{ arch, level, createVm: kvm.createVm, registered: kvm.registered, code: probe?.code },
    modules: Object.keys(kvm.modules),
    extension: cpu.flags.filter((flag) => flag === 'vmx' || flag === 'svm'),
  }
}
