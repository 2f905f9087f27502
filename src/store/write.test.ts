import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, beforeEach, test } from 'node:test'
import * as z from 'zod'
import { NestvmError } from './error.ts'
import { explainWriteError, readJson, removeLeftovers, removeTree, writeFileAtomic } from './write.ts'

const root = mkdtempSync(join(tmpdir(), 'write-'))
const schema = z.object({ level: z.int() })
let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(root, 'case-'))
})
after(() => rmSync(root, { recursive: true }))

test('a file is replaced as a whole, with its mode, and nothing else stays', async () => {
  const path = join(dir, 'deep/record.json')
  await writeFileAtomic(path, 'old', 0o644)
  await writeFileAtomic(path, 'new')
  assert.equal(readFileSync(path, 'utf8'), 'new')
  assert.equal(statSync(path).mode & 0o777, 0o600)
  assert.deepEqual(readdirSync(join(dir, 'deep')), ['record.json'])
})

test('a write that fails leaves no temporary file', async () => {
  mkdirSync(join(dir, 'taken/inside'), { recursive: true })
  await assert.rejects(writeFileAtomic(join(dir, 'taken'), 'x'))
  assert.deepEqual(readdirSync(dir), ['taken'])
})

test('a full disk is told from other errors and says what to do', async () => {
  const full = await writeFile('/dev/full', 'x').catch((error: unknown) => error)
  const error = explainWriteError(full, '/some/file')
  assert.ok(error instanceof NestvmError)
  const { code, hint, details } = error
  assert.deepEqual({ code, hint, details }, { code: 'NO_SPACE', hint: 'nestvm prune', details: { path: '/some/file' } })
  const other = new Error('other')
  assert.equal(explainWriteError(other, '/some/file'), other)
})

test('a record is read through its schema', async () => {
  const path = join(dir, 'record.json')
  assert.equal(await readJson(path, schema), undefined)
  await writeFileAtomic(path, '{"level":2}')
  assert.deepEqual(await readJson(path, schema), { level: 2 })
})

test('a damaged record is an error, not an absent one', async () => {
  const path = join(dir, 'record.json')
  for (const text of ['', '{"level":', '{"level":"two"}']) {
    await writeFileAtomic(path, text)
    await assert.rejects(readJson(path, schema), { code: 'BAD_RECORD', details: { path } })
  }
})

test('a tree is removed even where its directories are read-only; an absent one is no error', async () => {
  mkdirSync(join(dir, 'tree/sub'), { recursive: true })
  await writeFile(join(dir, 'tree/sub/file'), '')
  chmodSync(join(dir, 'tree/sub'), 0o555)
  await removeTree(join(dir, 'tree'))
  await removeTree(join(dir, 'tree'))
  assert.deepEqual(readdirSync(dir), [])
})

test('leftovers of dead processes are removed, those of living ones and other files are not', async () => {
  // Above the kernel's PID_MAX_LIMIT, 4194304.
  await writeFile(join(dir, '.a.4194305.0123abcd.tmp'), '')
  await writeFile(join(dir, `.a.${process.pid}.0123abcd.tmp`), '')
  await writeFile(join(dir, 'a.tmp'), '')
  await removeLeftovers(dir)
  assert.ok(!existsSync(join(dir, '.a.4194305.0123abcd.tmp')))
  assert.equal(readdirSync(dir).length, 2)
})
