// VMX in VMX, emulated: some minutes on a quiet machine, more on a busy one.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { VmcsResult } from '../../src/bench/vmcs-report.ts'
import { Home } from '../vm/nestvm.ts'

const home = new Home()
after(() => home[Symbol.asyncDispose]())

test('three levels on an Intel processor that Bochs emulates', async () => {
  const options = ['--cpu-vendor', 'intel', '--accel', 'tcg', '--depth', '3']
  const said = await home.ok('run', ...options, '--json', '--', 'uname', '-n')
  const { stdout, levels }: { stdout: string; levels: { accel: string }[] } = JSON.parse(said)
  assert.match(stdout, /-l2-l3\n$/)
  assert.deepEqual(
    levels.map(({ accel }) => accel),
    ['tcg', 'kvm', 'kvm'],
  )
  assert.deepEqual(await home.traces(), [])
})

test('with VMCS shadowing an exit of L3 is fewer exits to L1, and less time by their clock', async () => {
  const { on, off, ratio } = await home.json<VmcsResult>('bench', 'vmcs', '--count', '500')
  assert.ok(on.exits > 1 && off.exits > 2 * on.exits, JSON.stringify({ on, off }))
  assert.ok(ratio.microseconds > 1.2, JSON.stringify({ on, off }))
  assert.deepEqual(await home.traces(), [])
})
