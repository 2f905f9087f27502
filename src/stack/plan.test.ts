import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NestvmError } from '../store/error.ts'
import { leastMiB, levelLimitMs, planStack, type StackRequest } from './plan.ts'

const request: StackRequest = {
  ...{ depth: 3, arch: 'x86_64', cpus: 2, memoryMiB: 512, nested: false, name: 'vm', on: '', onLevel: 0 },
  ...{ accel: 'tcg', accelReason: 'there is no /dev/kvm', availableMiB: 4096 },
}

test('levels are named by their place, and each has room for the ones in it', () => {
  const levels = planStack(request)
  assert.deepEqual(
    levels.map(({ level, path }) => [level, path]),
    [
      [1, 'vm'],
      [2, 'vm/l2'],
      [3, 'vm/l2/l3'],
    ],
  )
  const memory = levels.map(({ memoryMiB }) => memoryMiB)
  assert.equal(memory[2], 512)
  assert.ok(
    memory.every((mib, index) => index === 0 || mib < (memory[index - 1] ?? 0)),
    memory.join(' '),
  )
  assert.ok(levels.every(({ cpus }) => cpus === 2))
})

test('only the outermost level is emulated, and only the innermost is no hypervisor', () => {
  const levels = planStack(request)
  assert.deepEqual(
    levels.map(({ accel, accelReason, nested }) => [accel, accelReason, nested]),
    [
      ['tcg', 'there is no /dev/kvm', true],
      ['kvm', 'L1 offers nested KVM', true],
      ['kvm', 'L2 offers nested KVM', false],
    ],
  )
  assert.equal(planStack({ ...request, nested: true }).at(-1)?.nested, true)
})

test('a stack in a guest goes on from its level and its path', () => {
  const levels = planStack({ ...request, depth: 2, on: 'outer/inner', onLevel: 2, accel: 'kvm' })
  assert.deepEqual(
    levels.map(({ level, path }) => [level, path]),
    [
      [3, 'outer/inner/vm'],
      [4, 'outer/inner/vm/l4'],
    ],
  )
})

test('too little memory for a guest is bad usage, too little on the machine is not', () => {
  assert.throws(() => planStack({ ...request, memoryMiB: leastMiB - 1 }), { code: 'BAD_MEMORY', exitStatus: 2 })
  assert.equal(planStack({ ...request, memoryMiB: leastMiB }).at(-1)?.memoryMiB, leastMiB)

  const needed = planStack(request)[0]?.memoryMiB ?? 0
  assert.equal(planStack({ ...request, availableMiB: needed }).length, 3)
  assert.throws(
    () => planStack({ ...request, availableMiB: needed - 1 }),
    (error) => {
      assert.ok(error instanceof NestvmError)
      assert.equal(error.code, 'NOT_ENOUGH_MEMORY')
      assert.match(error.message, /^3 levels need \d+ MiB, but this host has \d+ MiB free$/)
      assert.deepEqual(error.details, { neededMiB: needed, availableMiB: needed - 1 })
      return error.exitStatus === 125
    },
  )
})

test('a deeper level may take longer, and emulation longer than KVM, but no limit is beyond what a timer can wait', () => {
  for (let level = 1; level < 8; level++) {
    assert.ok(levelLimitMs(level + 1, 'kvm') > levelLimitMs(level, 'kvm'))
    assert.ok(levelLimitMs(level, 'tcg') > levelLimitMs(level, 'kvm'))
  }
  assert.ok(levelLimitMs(40, 'tcg') < 2 ** 31)
})

test('what the machine itself runs under limits the outermost guest on KVM, and none in it or emulated', () => {
  const under = (accel: 'kvm' | 'tcg') => planStack({ ...request, accel, under: 'acrn' }).map((level) => level.under)
  assert.deepEqual(under('kvm'), ['acrn', undefined, undefined])
  assert.deepEqual(under('tcg'), [undefined, undefined, undefined])
})

test('on Bochs the outermost level alone, with room for its kernel, and all levels with more time', () => {
  const levels = planStack({ ...request, outermostEngine: 'bochs' })
  assert.deepEqual(
    levels.map(({ engine }) => engine),
    ['bochs', 'qemu', 'qemu'],
  )
  const others = planStack(request)
  assert.ok(levels.every(({ limitMs }, index) => limitMs > (others[index]?.limitMs ?? 0)))
  assert.equal(planStack({ ...request, depth: 1, memoryMiB: leastMiB, outermostEngine: 'bochs' })[0]?.memoryMiB, 256)
})
