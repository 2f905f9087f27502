import assert from 'node:assert/strict'
import { test } from 'node:test'
import { percentile } from './warm.ts'

test('a percentile is the nearest rank', () => {
  const values = [5, 1, 4, 2, 3, 10, 9, 8, 7, 6]
  assert.deepEqual(
    [0, 50, 95, 100].map((percent) => percentile(values, percent)),
    [1, 5, 10, 10],
  )
})
