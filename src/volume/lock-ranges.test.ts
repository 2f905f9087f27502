import assert from 'node:assert/strict'
import { test } from 'node:test'
import { conflicting, type LockedRange, lock, unlock } from './lock-ranges.ts'

type Range = LockedRange<string>

function range(owner: string, start: number, end: number, exclusive = true): Range {
  return { owner, exclusive, start: BigInt(start), end: BigInt(end) }
}

const shown = (locked: Range[]) =>
  locked.map(({ owner, start, end, exclusive }) => `${owner}${exclusive ? 'w' : 'r'}${start}-${end}`).sort()

test('an owner replaces its own locks, and neighbours become one', () => {
  let locked = lock([], range('a', 0, 10))
  locked = lock(locked, range('a', 10, 20))
  assert.deepEqual(shown(locked), ['aw0-20'])
  locked = lock(locked, range('a', 5, 8, false))
  assert.deepEqual(shown(locked), ['ar5-8', 'aw0-5', 'aw8-20'])
  locked = unlock(locked, range('a', 3, 15))
  assert.deepEqual(shown(locked), ['aw0-3', 'aw15-20'])
})

test('locks of others stay, and are in the way where one of the two is exclusive', () => {
  const locked = lock(lock([], range('a', 0, 10, false)), range('b', 0, 10, false))
  assert.deepEqual(shown(unlock(locked, range('a', 0, 10))), ['br0-10'])
  assert.equal(conflicting(locked, range('c', 5, 6, false)), undefined)
  assert.equal(conflicting(locked, range('c', 5, 6))?.owner, 'a')
  assert.equal(conflicting(locked, range('a', 5, 6))?.owner, 'b')
  assert.equal(conflicting(locked, range('c', 10, 20)), undefined)
})
