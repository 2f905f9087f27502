import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { exampleRecord } from '../stack/example-record.ts'
import { saveRecord } from '../stack/record.ts'
import { levelsOf } from './level.ts'

const home = process.env.XDG_STATE_HOME
let dir: string

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'level-'))
  process.env.XDG_STATE_HOME = dir
  const inner = { level: 2, path: 'a/b', parent: 'a', base: 'a' }
  await saveRecord(exampleRecord('a'))
  await saveRecord(exampleRecord('b', inner))
  await saveRecord(exampleRecord('c', { ...inner, path: 'a/c' }))
  await saveRecord(exampleRecord('d', { ...inner, level: 3, path: 'a/b/d', parent: 'b' }))
  await saveRecord(exampleRecord('far', { host: 'ssh://me@server' }))
})
afterEach(() => {
  rmSync(dir, { recursive: true, force: true })
  if (home === undefined) delete process.env.XDG_STATE_HOME
  else process.env.XDG_STATE_HOME = home
})

const machines = async (...named: string[]) =>
  (await levelsOf(named)).map(({ level, machine }) => `${level} ${machine}`)

test('a machine comes with all that it runs in and all that runs in it, and no other', async () => {
  assert.deepEqual(await machines('a/b'), ['0 host', '1 a', '2 a/b', '3 a/b/d'])
  assert.deepEqual(await machines('a/c', 'a/b/d'), ['0 host', '1 a', '2 a/b', '2 a/c', '3 a/b/d'])
})

test('a guest of another host comes with that one', async () => {
  assert.deepEqual(await machines('far'), ['0 ssh://me@server', '1 far'])
  assert.deepEqual(await machines('ssh://me@server'), ['0 ssh://me@server', '1 far'])
})

test('without a name it is all machines, and this host even where nothing runs', async () => {
  assert.deepEqual((await machines()).sort(), [
    ...['0 host', '0 ssh://me@server', '1 a', '1 far', '2 a/b', '2 a/c', '3 a/b/d'],
  ])
  rmSync(dir, { recursive: true, force: true })
  assert.deepEqual(await machines(), ['0 host'])
  assert.deepEqual(await machines('host'), ['0 host'])
})

test('a machine that is not there is an error', async () => {
  await assert.rejects(machines('nobody'), { code: 'NO_SUCH_MACHINE' })
})
