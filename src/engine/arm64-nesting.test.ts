import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judgeNesting } from './arm64-nesting.ts'

const el2 = 'CPU: All CPU(s) started at EL2'
const nested = 'kvm [1]: VHE+NV2 mode initialized successfully'
const printed = (release: string, parameters: string, ...log: string[]) =>
  `${release}\nquiet ${parameters} panic=-1\n${log.join('\n')}\n`

test('a kernel that says that it can nest is taken at its word', () => {
  assert.equal(judgeNesting(printed('7.3.4-cloud-arm64', 'kvm-arm.mode=nested', el2, nested)), undefined)
})

test('of what stands in the way the nearest is named', () => {
  const cases: [string, RegExp][] = [
    [printed('6.1.0', '', 'CPU: All CPU(s) started at EL1', 'kvm [1]: HYP mode not available'), /came up at EL1/],
    [
      printed('6.12.1-arm64', 'kvm-arm.mode=nested', el2, 'kvm [1]: VHE mode initialized'),
      /6\.12\.1-arm64, is too old/,
    ],
    [printed('6.16.0', '', el2, 'kvm [1]: VHE mode initialized'), /without kvm-arm\.mode=nested/],
    [printed('7.3.4', 'kvm-arm.mode=nested', el2, 'kvm [1]: VHE mode initialized'), /no FEAT_NV2/],
    [printed('7.3.4', 'kvm-arm.mode=nested', el2, 'kvm [1]: Hyp nVHE mode initialized'), /no FEAT_NV2/],
  ]
  for (const [output, reason] of cases) assert.match(judgeNesting(output)?.reason ?? '', reason)
})
