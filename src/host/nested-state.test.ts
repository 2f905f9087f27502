import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ruleFor } from './nested-state.ts'

test('on Intel nested guests can be saved from Linux 5.3 on', () => {
  assert.deepEqual(pick(ruleFor('x86_64', 'GenuineIntel', '5.2.21')), [false, false])
  assert.deepEqual(pick(ruleFor('x86_64', 'GenuineIntel', '5.3.0')), [true, false])
  assert.deepEqual(pick(ruleFor('x86_64', 'GenuineIntel', '6.1.0-50-cloud-amd64')), [true, false])
})

test('on AMD they cannot before Linux 5.8, and from then on only for those who insist', () => {
  assert.deepEqual(pick(ruleFor('x86_64', 'AuthenticAMD', '5.7.1')), [false, false])
  assert.deepEqual(pick(ruleFor('x86_64', 'AuthenticAMD', '6.12.3')), [true, true])
})

test('elsewhere they cannot', () => {
  assert.deepEqual(pick(ruleFor('aarch64', '', '6.18.0')), [false, false])
})

function pick({ known, untested }: ReturnType<typeof ruleFor>) {
  return [known, untested]
}
