import assert from 'node:assert/strict'
import { test } from 'node:test'
import { processorDifference, readProcessor } from './processor.ts'

const amd = (features: string[], model = 107) => {
  const given = Object.fromEntries(features.map((name) => [name, true]))
  return readProcessor({
    model: {
      name: 'base',
      props: { vendor: 'AuthenticAMD', family: 15, model, stepping: 1, avx512f: false, ...given },
    },
  })
}

test('the order of features does not matter, nor what both lack', () => {
  assert.deepEqual(processorDifference(amd(['fpu', 'svm']), amd(['svm', 'fpu'])), {})
})

test('a processor that lacks a feature is wrong, one that has more is untested', () => {
  assert.deepEqual(processorDifference(amd(['fpu', 'svm', 'avx']), amd(['fpu', 'svm'])), { wrong: 'it lacks avx' })
  assert.deepEqual(processorDifference(amd(['fpu']), amd(['avx', 'fpu'])), { untested: 'it also has avx' })
})

test('another model is untested, another maker is wrong', () => {
  assert.deepEqual(processorDifference(amd(['fpu']), amd(['fpu'], 1)), { untested: 'its model is 1, not 107' })
  const intel = readProcessor({ model: { props: { vendor: 'GenuineIntel', fpu: true } } })
  assert.deepEqual(processorDifference(amd(['fpu']), intel), { wrong: 'it is of another maker' })
})

test('arm64 has no models by number', () => {
  const arm = (sve: boolean) => readProcessor({ model: { props: { sve, aarch64: true } } })
  assert.deepEqual(processorDifference(arm(false), arm(false)), {})
  assert.deepEqual(processorDifference(arm(true), arm(false)), { wrong: 'it lacks sve' })
})
