import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { NestvmError } from '../store/error.ts'
import { Context } from './context.ts'
import { deadProcess, exampleStack } from './example-record.ts'
import { saveRecord } from './record.ts'
import { watchEngines } from './watch.ts'

test('that an engine ended is told also where its last words cannot be asked for', async () => {
  const before = process.env.XDG_STATE_HOME
  process.env.XDG_STATE_HOME = mkdtempSync(join(tmpdir(), 'watch-'))
  const context = new Context(new AbortController().signal)
  const [outer] = exampleStack('outer')
  assert.ok(outer)
  const record = { ...outer, engineProcess: deadProcess }
  await saveRecord(record)
  // The host is asked whether the engine is alive without a connection to it.
  context.hostNamed = () => Promise.reject(new NestvmError('CONNECT_FAILED', 'it is away'))
  const limit = setTimeout(() => assert.fail('it is not told'), 10_000)
  using watch = watchEngines(context, record)
  await assert.rejects(watch.died, { code: 'GUEST_DIED', message: 'outer: its engine ended' })
  clearTimeout(limit)
  rmSync(process.env.XDG_STATE_HOME, { recursive: true })
  if (before === undefined) delete process.env.XDG_STATE_HOME
  else process.env.XDG_STATE_HOME = before
})
