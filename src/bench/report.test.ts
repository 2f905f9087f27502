import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Division } from './division.ts'
import { summarize, tableOf } from './report.ts'

const level = { level: 1, engineMs: 30, firmwareMs: 700, kernelMs: 1300, userSpaceMs: 280, sshMs: 260, totalMs: 2570 }

function took(totalMs: number): Division {
  return { totalMs, planMs: 20, levels: [level], commandMs: totalMs - 2590 }
}

test('the medians are compared, and the division is that of the run next to the median', () => {
  const result = summarize(1, [4000, 9000, 5000], [took(2600), took(8000), took(3000)])
  assert.equal(result.plainMs, 5000)
  assert.equal(result.nestvmMs, 3000)
  assert.equal(result.ratio, 0.6)
  assert.equal(result.met, true)
  assert.equal(result.division.totalMs, 3000)
})

test('the median of two is their mean', () => {
  assert.equal(summarize(1, [4000, 6000], [took(2600)]).plainMs, 5000)
})

test('a deeper level than the targets speak of has none', () => {
  assert.equal(summarize(4, [4000], [took(2600)]).met, undefined)
})

test('the table tells the ratio, the target, and how the time divides', () => {
  assert.equal(
    tableOf(summarize(1, [3250], [took(2610)])),
    `depth 1: plain 3.25 s, nestvm 2.61 s, ratio 0.80 (target: at most 0.70, missed)
       engine start  firmware  kernel  user space     SSH  together
  L1           0.03      0.70    1.30        0.28    0.26      2.57
  plan 0.02, command 0.02`,
  )
})
