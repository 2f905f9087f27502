import assert from 'node:assert/strict'
import { test } from 'node:test'
import { summarizeExec, tableOfExec } from './exec-report.ts'

const level = (number: number, connectedMs: number, newConnectionMs: number, megabytesPerSecond?: number) => {
  return { level: number, connectedMs, newConnectionMs, megabytesPerSecond }
}

test('levels are compared with the outermost, and with what is wanted', () => {
  const result = summarizeExec('tcg', [level(1, 10, 100, 20), level(2, 12, 150, 15), level(3, 20, 301)])
  assert.deepEqual(
    result.ratios.map(({ value, met }) => [value, met]),
    [
      [2, true],
      [3.01, false],
      [0.75, true],
    ],
  )
  assert.match(tableOfExec(result), /L1 {2}10\.0 ms connected, 100\.0 ms with a new connection, 20\.0 MB\/s/)
  assert.match(tableOfExec(result), /new connection.*: 3\.01 \(target: at most 3, missed\)/)
})

test('fewer than three levels cannot be compared', () => {
  assert.throws(() => summarizeExec('kvm', [level(1, 1, 1, 1)]), RangeError)
})
