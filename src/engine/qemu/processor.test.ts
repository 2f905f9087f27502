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
  assert.deepEqual(processorDifference(amd(['fpu', 'svm']), amd(['svm', 'fpu'])), { processor: 'same' })
})

test('one that lacks a feature has fewer, whatever else it has', () => {
  assert.deepEqual(processorDifference(amd(['fpu', 'svm', 'avx']), amd(['fpu', 'svm'])), {
    processor: 'fewer',
    what: 'it lacks avx',
  })
  assert.deepEqual(processorDifference(amd(['fpu']), amd(['avx', 'fpu'])), {
    processor: 'more',
    what: 'it also has avx',
  })
})

test('a feature of several spellings is named once', () => {
  const spelled = amd(['avx', 'sse4-1', 'sse4.1', 'sse4_1', 'svm'])
  assert.equal(processorDifference(spelled, amd([])).what, 'it lacks avx, sse4-1, svm')
})

test('another model, and another maker', () => {
  assert.deepEqual(processorDifference(amd(['fpu']), amd(['fpu'], 1)), {
    processor: 'model',
    what: 'its model is 1, not 107',
  })
  const intel = readProcessor({ model: { props: { vendor: 'GenuineIntel', fpu: true } } })
  assert.deepEqual(processorDifference(amd(['fpu']), intel), { processor: 'maker', what: 'it is of another maker' })
})

test('arm64 has no models by number', () => {
  const arm = (sve: boolean) => readProcessor({ model: { props: { sve, aarch64: true } } })
  assert.deepEqual(processorDifference(arm(false), arm(false)), { processor: 'same' })
  assert.deepEqual(processorDifference(arm(true), arm(false)), { processor: 'fewer', what: 'it lacks sve' })
})
