import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import { plannedModel } from './cpu-model.ts'

const level = { arch: 'x86_64', accel: 'kvm', nested: false, level: 1 } as const
// No QEMU: nothing of this is to ask one.
const place = { machine: new LocalMachine(), qemu: ['/nonexistent'], signal: new AbortController().signal }

test('an emulated guest of which no model is asked keeps its processor, which is the same everywhere', async () => {
  for (const arch of ['x86_64', 'arm64'] as const)
    assert.equal(await plannedModel(place, { ...level, arch, accel: 'tcg' }, ''), undefined)
})

test('what has no models by name is refused, and so is what is none', async () => {
  const unsupported = { code: 'UNSUPPORTED', hint: 'leave out --migratable' }
  await assert.rejects(plannedModel(place, { ...level, arch: 'arm64' }, ''), unsupported)
  await assert.rejects(plannedModel(place, { ...level, arch: 'arm64', accel: 'tcg' }, 'cortex-a72'), unsupported)
  await assert.rejects(plannedModel(place, { ...level, under: 'acrn' }, ''), unsupported)
  await assert.rejects(plannedModel(place, level, 'EPYC;reboot'), { code: 'BAD_CPU_MODEL' })
})
