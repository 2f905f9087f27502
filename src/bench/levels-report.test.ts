import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compareLevels, tableOfLevels } from './levels-report.ts'

const read = { what: 'read', unit: 'MB/s', values: [60, 30, 5] } as const
const stat = { what: 'stat', unit: 'ms', values: [100, 250, 450] } as const

test('each level is compared with the outermost, and with what the CPU explains', () => {
  const [cpu, ...works] = compareLevels([1000, 2000, 3000], [read, stat], { 2: 1.2, 3: 2 })
  assert.deepEqual(
    cpu?.levels.map(({ slowdown }) => slowdown),
    [1, 2, 3],
  )
  assert.deepEqual(
    works.map(({ levels }) => levels.slice(1).map(({ slowdown, beyondCpu, met }) => [slowdown, beyondCpu, met])),
    [
      [
        [2, 1, true],
        [12, 4, false],
      ],
      [
        [2.5, 1.25, false],
        [4.5, 1.5, true],
      ],
    ],
  )
})

test('a loop that ran faster in a deeper level makes nothing better or worse', () => {
  const [, work] = compareLevels([1000, 500], [{ what: 'x', unit: 'ms', values: [10, 15] }])
  assert.equal(work?.levels[1]?.beyondCpu, 1.5)
})

test('what the outermost level does not have is compared with the next', () => {
  const [, work] = compareLevels([1000, 1000, 2000], [{ what: 'x', unit: 'ms', values: [undefined, 10, 40] }])
  assert.deepEqual(
    work?.levels.map(({ level, slowdown, beyondCpu }) => [level, slowdown, beyondCpu]),
    [
      [2, 1, 1],
      [3, 4, 2],
    ],
  )
})

test('the table marks what misses its target', () => {
  assert.equal(
    tableOfLevels(compareLevels([1000, 2000], [read, stat].map(outer), { 2: 1.2 })),
    [
      '                                L1         L2  L2 slower beyond CPU',
      'loop that only computes    1000 ms    2000 ms       2.00',
      'read                     60.0 MB/s  30.0 MB/s       2.00       1.00',
      'stat                        100 ms     250 ms       2.50      1.25*',
      'target: at most 1.2 at L2',
    ].join('\n'),
  )
})

function outer<T extends { values: readonly number[] }>(measurement: T) {
  return { ...measurement, values: measurement.values.slice(0, 2) }
}
