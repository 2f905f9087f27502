import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { NestvmError } from '../store/error.ts'
import { machinePaths } from '../store/paths.ts'
import { exampleRecord, exampleStack } from './example-record.ts'
import { descendants, findRecord, lineage, listRecords, loadRecord, runningRecord, saveRecord } from './record.ts'

const home = process.env.XDG_STATE_HOME
let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'record-'))
  process.env.XDG_STATE_HOME = dir
})
afterEach(() => {
  rmSync(dir, { recursive: true })
  if (home === undefined) delete process.env.XDG_STATE_HOME
  else process.env.XDG_STATE_HOME = home
})

const paths = (records: readonly { path: string }[]) => records.map(({ path }) => path)

test('what is saved is what is loaded', async () => {
  const record = exampleRecord('a', { command: ['sh', '-c', 'x'], exitStatus: 3, phase: 'exited' })
  await saveRecord(record)
  assert.deepEqual(await loadRecord('a'), record)
  assert.equal(await loadRecord('b'), undefined)
})

test('where nothing was ever started, there are no machines', async () => {
  assert.deepEqual(await listRecords(), [])
})

test('outer machines come before inner ones, older before newer', async () => {
  const at = (minute: number) => `2025-01-01T00:0${minute}:00.000Z`
  await saveRecord(
    exampleRecord('inner', { level: 2, path: 'old/inner', parent: 'old', base: 'old', createdAt: at(1) }),
  )
  await saveRecord(exampleRecord('new', { createdAt: at(2) }))
  await saveRecord(exampleRecord('old', { createdAt: at(0) }))
  assert.deepEqual(paths(await listRecords()), ['old', 'new', 'old/inner'])
})

test('a record that cannot be read hides none of the others', async () => {
  await saveRecord(exampleRecord('good'))
  for (const [id, text] of Object.entries({ cut: '{"schema":1,', other: '{"schema":2}', empty: '' })) {
    mkdirSync(machinePaths(id).dir, { recursive: true })
    writeFileSync(machinePaths(id).record, text)
  }
  mkdirSync(machinePaths('half-made').dir)
  assert.deepEqual(paths(await listRecords()), ['good'])
  await assert.rejects(loadRecord('cut'), { code: 'BAD_RECORD' })
})

test('a machine is found by its path, not by its id; an unknown one is an error that lists the others', async () => {
  for (const record of exampleStack('outer', 'inner')) await saveRecord(record)
  assert.equal((await findRecord('outer/inner')).id, 'inner')
  const error = await findRecord('inner').catch((thrown: unknown) => thrown)
  assert.ok(error instanceof NestvmError)
  assert.equal(error.code, 'NO_SUCH_MACHINE')
  assert.deepEqual(error.details, { machine: 'inner', machines: ['outer', 'outer/inner'] })
})

test('only a running machine can be used', async () => {
  for (const phase of ['starting', 'running', 'exited'] as const) await saveRecord(exampleRecord(phase, { phase }))
  assert.equal((await runningRecord('running')).phase, 'running')
  await assert.rejects(runningRecord('starting'), { code: 'NOT_RUNNING', message: /is starting$/ })
  await assert.rejects(runningRecord('exited'), { code: 'NOT_RUNNING', hint: 'nestvm logs exited' })
})

test('the lineage goes from level 1 to the guest itself', () => {
  const records = exampleStack('outer', 'a', 'b')
  const [outer, , b] = records
  assert.ok(outer && b)
  assert.deepEqual(paths(lineage(b, records.toReversed())), ['outer', 'outer/a', 'outer/a/b'])
  assert.deepEqual(lineage(outer, records), [outer])
})

test('descendants are all that runs in a guest, and nothing with a similar name', () => {
  const records = [
    ...exampleStack('outer', 'a', 'b'),
    exampleRecord('outer2'),
    exampleRecord('x', { path: 'outer2/a' }),
  ]
  const [outer, a, b] = records
  assert.ok(outer && a && b)
  assert.deepEqual(paths(descendants(outer, records)), ['outer/a', 'outer/a/b'])
  assert.deepEqual(paths(descendants(a, records)), ['outer/a/b'])
  assert.deepEqual(descendants(b, records), [])
})

test('what ran in an earlier guest of the same name is not in this one', () => {
  const before = exampleRecord('old', { path: 'outer/old', level: 2, parent: 'gone', base: 'gone' })
  assert.deepEqual(descendants(exampleRecord('outer'), [before]), [])
})
