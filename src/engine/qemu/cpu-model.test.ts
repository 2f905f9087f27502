import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as z from 'zod'
import type { Accel } from '../architecture.ts'
import {
  checkLacking,
  completed,
  cpuModelText,
  definedModel,
  lacking,
  nearestModel,
  parseCpuModel,
  readOffer,
  switched,
} from './cpu-model.ts'
import { FakeQemu } from './example-qemu.ts'
import { Qmp } from './qmp.ts'

/** What models have by their definition. */
const models: Record<string, string[]> = {
  'Opteron_G2-v1': ['fpu', 'vme'],
  'EPYC-v1': ['fpu', 'vme', 'avx', 'aes', 'nrip-save'],
  'EPYC-v2': ['fpu', 'vme', 'avx', 'aes', 'ibpb', 'nrip-save'],
  'EPYC-v10': ['fpu', 'vme', 'avx', 'aes', 'ibpb', 'nrip-save'],
  'EPYC-Turin-v1': ['fpu', 'vme', 'avx', 'aes', 'ibpb', 'avx512f', 'gfni', 'nrip-save'],
  'Haswell-v4': ['fpu', 'vme', 'avx', 'vmx-ept', 'vmx-vmfunc'],
}
/** The feature that it is a part of. */
const partOf = (name: string) => (/^vmx-/.test(name) ? 'vmx' : name === 'nrip-save' ? 'svm' : undefined)
const modelSchema = z.object({ name: z.string(), props: z.record(z.string(), z.boolean()).default({}) })

/** A QEMU with these models, on a machine whose processor has these features. */
async function qemuOn(vendor: string, has: string[], accel: Accel = 'kvm') {
  const qemu = new FakeQemu(({ execute, arguments: given, id }) => {
    const answer = (value: unknown) => void qemu.say({ return: value, id })
    if (execute === 'query-cpu-definitions') return answer(definitions(has))
    const { name, props } = modelSchema.parse(given.model)
    const all = models[name] ?? has
    // As QEMU does, it leaves out the parts of an extension that is not on.
    const features = all.filter((feature) => all === has || (props[partOf(feature) ?? ''] ?? !partOf(feature)))
    answer({
      model: { props: { vendor, ...Object.fromEntries(features.map((feature) => [feature, true])), ...props } },
    })
  })
  const opening = Qmp.open(qemu.client)
  qemu.greet()
  const qmp = await opening
  return { qmp, offer: await readOffer(qmp, accel) }
}

function definitions(has: string[]) {
  const versions = Object.entries(models).map(([name, features]) => {
    const missing = features.filter((feature) => !has.includes(feature) && partOf(feature) === undefined)
    return { name, 'migration-safe': true, static: false, 'unavailable-features': missing }
  })
  const alias = versions.find(({ name }) => name === 'EPYC-v2')
  const host = { name: 'host', 'migration-safe': false, static: false, 'unavailable-features': [] }
  return [host, ...versions, { ...alias, name: 'EPYC-IBPB', 'alias-of': 'EPYC-v2' }]
}

const zen = ['fpu', 'vme', 'avx', 'aes', 'ibpb', 'svm', 'npt', 'nrip-save', 'tsc-deadline']

test('the nearest model is the one with the fewest differences, the newest of equals, of the same maker', async () => {
  const real = await qemuOn('AuthenticAMD', zen)
  assert.equal(cpuModelText(await nearestModel(real.qmp, real.offer)), 'EPYC-v10')
  const emulated = await qemuOn('AuthenticAMD', ['fpu', 'avx', 'aes', 'svm', 'npt'])
  assert.equal(cpuModelText(await nearestModel(emulated.qmp, emulated.offer)), 'EPYC-v1,vme=off')
  const intel = await qemuOn('GenuineIntel', zen)
  assert.equal((await nearestModel(intel.qmp, intel.offer)).name, 'Haswell-v4')
  const other = await qemuOn('Shanghai', zen)
  await assert.rejects(nearestModel(other.qmp, other.offer), { code: 'CPU_MODEL_NOT_OFFERED' })
})

test('a hypervisor gets the extension, others see nothing of it, and what was said of a feature counts', async () => {
  const { offer } = await qemuOn('AuthenticAMD', zen)
  const text = (model: string, nested: boolean) =>
    cpuModelText(completed(definedModel(offer, parseCpuModel(model)), offer, 'kvm', nested))
  assert.equal(text('EPYC-v1', true), 'EPYC-v1,tsc-deadline=on,svm=on,npt=on')
  assert.equal(text('EPYC-v1', false), 'EPYC-v1,svm=off,vmx=off,tsc-deadline=on')
  assert.equal(text('EPYC-IBPB,npt=off', true), 'EPYC-v2,tsc-deadline=on,svm=on,npt=off')
  const vmx = await qemuOn('GenuineIntel', ['fpu', 'vmx'], 'tcg')
  assert.equal(cpuModelText(completed(parseCpuModel('Haswell-v4'), vmx.offer, 'tcg', true)), 'Haswell-v4,vmx=on')
})

test('what a machine lacks of a model is named, the parts of its extension too', async () => {
  const { qmp, offer } = await qemuOn('AuthenticAMD', ['fpu', 'avx', 'aes', 'svm', 'npt'])
  const missing = async (text: string) => lacking(qmp, offer, parseCpuModel(text))
  assert.deepEqual(await missing('EPYC-v1'), ['vme'])
  assert.deepEqual(await missing('EPYC-v1,vme=off,svm=on'), ['nrip-save'])
  assert.deepEqual(await missing('EPYC-v1,vme=off,svm=on,nrip-save=off'), [])
  assert.deepEqual(await missing('EPYC-v1,vme=off,gfni=on'), ['gfni'])
  assert.equal(await missing('EPYC-v99'), undefined)
  const intel = await qemuOn('GenuineIntel', ['fpu', 'vme', 'avx', 'vmx', 'vmx-ept'])
  assert.deepEqual(await lacking(intel.qmp, intel.offer, parseCpuModel('Haswell-v4,vmx=on')), ['vmx-vmfunc'])
})

test('a model that is not there, or not the same everywhere, is refused with those that are whole', async () => {
  const { offer } = await qemuOn('AuthenticAMD', zen)
  const refused = { code: 'CPU_MODEL_NOT_OFFERED', exitStatus: 2 }
  const whole = ['EPYC-v1', 'EPYC-v10', 'EPYC-v2', 'Opteron_G2-v1', 'Haswell-v4'].sort()
  for (const name of ['nope', 'host'])
    assert.throws(() => definedModel(offer, parseCpuModel(name)), {
      ...refused,
      details: { model: name, offered: whole },
    })
  const model = parseCpuModel('EPYC-Turin-v1')
  checkLacking([], model, offer, 'outer')
  assert.throws(() => checkLacking(['avx512f', 'gfni'], model, offer, 'outer'), {
    ...refused,
    message: 'outer cannot offer EPYC-Turin-v1: it lacks avx512f, gfni',
    hint: /^--migratable=EPYC-Turin-v1,avx512f=off,gfni=off, or .*EPYC-v10/,
    details: { model: 'EPYC-Turin-v1', missing: ['avx512f', 'gfni'], offered: whole },
  })
})

test('a model is written as QEMU takes it', () => {
  for (const text of ['EPYC', 'EPYC-Milan-v2', 'Haswell-noTSX-IBRS,vmx=on', 'Opteron_G2,vme=off,sse4.1=on'])
    assert.equal(cpuModelText(parseCpuModel(text)), text)
  for (const text of ['', 'EPYC,', 'EPYC,vme', 'EPYC,+vme', 'EPYC,vme=1', 'a b', '-v1', 'EPYC,enforce', 'x,file=/etc'])
    assert.throws(() => parseCpuModel(text), { code: 'BAD_CPU_MODEL' })
  assert.equal(cpuModelText(switched(parseCpuModel('EPYC,vme=on'), ['vme', 'avx'], false)), 'EPYC,vme=off,avx=off')
})
