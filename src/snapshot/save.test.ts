import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { exampleRecord } from '../stack/example-record.ts'
import { snapshotFiles } from '../store/paths.ts'
import { temporaryName } from '../store/write.ts'
import { loadSnapshot, snapshotDir, snapshotsDir, touch } from './record.ts'
import { publish, settle } from './save.ts'

const before = process.env.XDG_CACHE_HOME
let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'save-'))
  process.env.XDG_CACHE_HOME = dir
})
afterEach(() => {
  rmSync(dir, { recursive: true })
  if (before === undefined) delete process.env.XDG_CACHE_HOME
  else process.env.XDG_CACHE_HOME = before
})

const id = '0123456789abcdef'

/** Saves what holds this text under the one id. */
async function save(text: string) {
  const made = temporaryName(join(await snapshotsDir(), 'new'))
  mkdirSync(made)
  writeFileSync(snapshotFiles(made).ram, text)
  writeFileSync(snapshotFiles(made).state, text)
  const world = { format: 1, arch: 'x86_64' as const, accelerator: 'tcg', QEMU: 'q', bundle: 'b', CPU: 'c' }
  const request = { id, automatic: true, world, guests: [exampleRecord('outer')], dir: made }
  return publish(request, text)
}

test('two commands that save the same at once leave one whole snapshot, whichever settles last', async () => {
  const first = await save('first')
  const second = await save('second, which is longer')
  await settle(second)
  await settle(first)
  const kept = await loadSnapshot(id)
  assert.equal(kept?.token, 'first')
  assert.equal(kept.boot, undefined)
  assert.equal(second.token, 'first', 'what is restored is what is there')
})

test('what somebody else has saved damaged is replaced', async () => {
  await save('first')
  writeFileSync(snapshotFiles(snapshotDir({ id })).state, 'broken')
  assert.equal((await save('second')).token, 'second')
  assert.equal((await loadSnapshot(id))?.token, 'second')
})

test('a snapshot that is removed while it is being restored is used all the same', async () => {
  const snapshot = await save('text')
  rmSync(snapshotDir(snapshot), { recursive: true })
  await touch(snapshot)
})
