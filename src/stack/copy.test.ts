import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Context } from './context.ts'
import { copy } from './copy.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'copy-'))
  mkdirSync(join(dir, 'to'))
})
afterEach(() => rmSync(dir, { recursive: true }))

const context = (signal = new AbortController().signal) => new Context(signal)

test('a large file and a tree arrive whole', async () => {
  const content = Buffer.alloc(8 << 20, 'content')
  mkdirSync(join(dir, 'tree/sub'), { recursive: true })
  writeFileSync(join(dir, 'tree/sub/big'), content)
  await copy(context(), join(dir, 'tree'), join(dir, 'to'))
  assert.deepEqual(readFileSync(join(dir, 'to/tree/sub/big')), content)
  await copy(context(), join(dir, 'tree/sub/big'), join(dir, 'to/other name'))
  assert.deepEqual(readFileSync(join(dir, 'to/other name')), content)
  assert.deepEqual(readdirSync(join(dir, 'to')).sort(), ['other name', 'tree'])
})

test('where nothing can be received, the sender is not waited for', async () => {
  writeFileSync(join(dir, 'big'), Buffer.alloc(8 << 20))
  await assert.rejects(copy(context(), join(dir, 'big'), join(dir, 'absent/place/big')), {
    code: 'COPY_FAILED',
    message: /absent\/place/,
  })
})

test('what the sender could not read whole does not arrive in part', async () => {
  mkdirSync(join(dir, 'tree/locked'), { recursive: true })
  writeFileSync(join(dir, 'tree/file'), 'content')
  await assert.rejects(copy(context(), join(dir, 'absent'), join(dir, 'to')), {
    code: 'COPY_FAILED',
    message: /absent/,
  })
  chmodSync(join(dir, 'tree/locked'), 0)
  if (process.getuid?.() !== 0) await assert.rejects(copy(context(), join(dir, 'tree'), join(dir, 'to')))
  chmodSync(join(dir, 'tree/locked'), 0o700)
  assert.deepEqual(readdirSync(join(dir, 'to')), [])
})

test('a copy that is called off leaves nothing at the destination', async () => {
  const stop = new AbortController()
  // Larger than can be copied before it is called off.
  writeFileSync(join(dir, 'big'), '')
  truncateSync(join(dir, 'big'), 2 ** 33)
  const copying = copy(context(stop.signal), join(dir, 'big'), join(dir, 'to'))
  while (readdirSync(join(dir, 'to')).length === 0) await sleep(5)
  stop.abort(new Error('enough'))
  await assert.rejects(copying)
  assert.deepEqual(readdirSync(join(dir, 'to')), [])
  assert.ok(existsSync(join(dir, 'big')))
})

test('a link that came from the sender is never written through', async () => {
  const outside = join(dir, 'outside')
  mkdirSync(outside)
  writeFileSync(join(outside, 'file'), 'mine')
  mkdirSync(join(dir, 'data'))
  symlinkSync(join(outside, 'file'), join(dir, 'data/file'))
  symlinkSync(outside, join(dir, 'link'))
  await copy(context(), join(dir, 'data'), join(dir, 'to'))
  await copy(context(), join(dir, 'link'), join(dir, 'to'))
  rmSync(join(dir, 'data/file'))
  writeFileSync(join(dir, 'data/file'), 'theirs')
  rmSync(join(dir, 'link'))
  mkdirSync(join(dir, 'link'))
  writeFileSync(join(dir, 'link/file'), 'theirs')
  await copy(context(), join(dir, 'data'), join(dir, 'to'))
  await copy(context(), join(dir, 'link'), join(dir, 'to'))
  assert.equal(readFileSync(join(outside, 'file'), 'utf8'), 'mine')
  for (const path of ['data/file', 'link/file']) assert.equal(readFileSync(join(dir, 'to', path), 'utf8'), 'theirs')
})

test('a path that ends in . or .. names what is in a directory, and goes no further up than the destination', async () => {
  mkdirSync(join(dir, 'from/inner'), { recursive: true })
  writeFileSync(join(dir, 'from/file'), 'content')
  mkdirSync(join(dir, 'above/to'), { recursive: true })
  await copy(context(), `${dir}/from/inner/..`, join(dir, 'above/to'))
  await copy(context(), `${dir}/from/.`, join(dir, 'new'))
  assert.deepEqual(readdirSync(join(dir, 'above')), ['to'])
  assert.deepEqual(readdirSync(join(dir, 'above/to')).sort(), ['file', 'inner'])
  assert.deepEqual(readdirSync(join(dir, 'new')).sort(), ['file', 'inner'])
})

test('a file does not take the place of a directory, nor a link', async () => {
  mkdirSync(join(dir, 'to/name'))
  writeFileSync(join(dir, 'name'), 'content')
  await assert.rejects(copy(context(), join(dir, 'name'), join(dir, 'to')), { message: /is a directory/ })
  assert.deepEqual(readdirSync(join(dir, 'to/name')), [])
})
