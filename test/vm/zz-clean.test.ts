import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { test } from 'node:test'
import { enginesOf, serversOf } from './nestvm.ts'

// Comes last, as its name does.
test('after all tests no engine runs, and no temporary file or socket is left', () => {
  const mark = `${tmpdir()}/nvt-`
  assert.deepEqual([...enginesOf(mark), ...serversOf(mark)], [])
  assert.deepEqual(
    readdirSync(tmpdir()).filter((name) => /^(nvt-|nestvm-(probe|cp))/.test(name)),
    [],
  )
})
