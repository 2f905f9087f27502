import assert from 'node:assert/strict'
import { test } from 'node:test'
import { processorDifference, readProcessor } from './processor.ts'

const amd = (flags: string, model = '49') =>
  readProcessor(
    `processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: ${model}\nflags\t\t: ${flags}\n`,
  )

test('the order of features does not matter', () => {
  assert.deepEqual(processorDifference(amd('fpu svm'), amd('svm fpu')), {})
})

test('a processor that lacks a feature is wrong, one that has more is untested', () => {
  assert.deepEqual(processorDifference(amd('fpu svm avx'), amd('fpu svm')), { wrong: 'it lacks avx' })
  assert.deepEqual(processorDifference(amd('fpu svm'), amd('avx fpu svm')), { untested: 'it also has avx' })
})

test('another model is untested, another maker is wrong', () => {
  assert.deepEqual(processorDifference(amd('fpu'), amd('fpu', '1')), { untested: 'its model is 1, not 49' })
  const intel = readProcessor('vendor_id\t: GenuineIntel\nflags\t: fpu\n')
  assert.deepEqual(processorDifference(amd('fpu'), intel), { wrong: 'it is of another maker' })
})

test('arm64 has implementers and features', () => {
  const arm = (part: string) => readProcessor(`Features\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: ${part}\n`)
  assert.deepEqual(arm('0xd49').flags, ['asimd', 'fp'])
  assert.deepEqual(processorDifference(arm('0xd49'), arm('0xd4a')), { untested: 'its CPU part is 0xd4a, not 0xd49' })
})
