import assert from 'node:assert/strict'
import { test } from 'node:test'
import { treeOf } from './tree.ts'

const lines = (...paths: string[]) => treeOf(paths).map(({ label }) => label)

test('what is in a machine is below it, the last of several at a corner', () => {
  assert.deepEqual(lines('b', 'a/l2/l3', 'a', 'a/x', 'a/l2'), ['a', '├─ l2', '│  └─ l3', '└─ x', 'b'])
  assert.deepEqual(lines('a', 'a/b', 'a/b/c', 'a/b/d', 'a/b/c/e'), ['a', '└─ b', '   ├─ c', '   │  └─ e', '   └─ d'])
})

test('a name that begins like another one does not come between that and what is in it', () => {
  assert.deepEqual(lines('web', 'web-2', 'web/l2', 'web-2/l2'), ['web', '└─ l2', 'web-2', '└─ l2'])
})
