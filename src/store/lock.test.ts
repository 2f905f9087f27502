import assert from 'node:assert/strict'
// biome-ignore lint/style/noRestrictedImports: contenders must be real processes, and store is below machine
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, beforeEach, test } from 'node:test'
import { withLock } from './lock.ts'

const root = mkdtempSync(join(tmpdir(), 'lock-'))
const lockModule = new URL('./lock.ts', import.meta.url).href
let dir: string
let path: string

beforeEach(() => {
  dir = mkdtempSync(join(root, 'case-'))
  path = join(dir, 'lock')
})
after(() => rmSync(root, { recursive: true }))

test('the result is passed on, and the lock is gone after success and after failure', async () => {
  assert.equal(await withLock(path, async () => 7, { timeoutMs: 1000 }), 7)
  await assert.rejects(
    withLock(path, () => Promise.reject(new Error('inside')), { timeoutMs: 1000 }),
    /inside/,
  )
  assert.deepEqual(readdirSync(dir), [])
})

test('a waiter is told once who holds the lock, and gives up after its limit', async () => {
  const told: number[] = []
  const wait = () => withLock(path, async () => {}, { timeoutMs: 200, onWait: ({ pid }) => told.push(pid) })
  await withLock(path, () => assert.rejects(wait, { code: 'LOCK_TIMEOUT' }), { timeoutMs: 1000 })
  assert.deepEqual(told, [process.pid])
})

test('a waiter stops when its signal says so', async () => {
  const signal = AbortSignal.timeout(100)
  const wait = () => withLock(path, async () => {}, { timeoutMs: 60_000, signal })
  await withLock(path, () => assert.rejects(wait, { name: 'TimeoutError' }), { timeoutMs: 1000 })
})

test('a lock that a crash of the system cut short is taken over', async () => {
  writeFileSync(path, '')
  await withLock(path, async () => {}, { timeoutMs: 1000 })
})

test('callers in one process take turns', async () => {
  let inside = 0
  const turn = async () => {
    assert.equal(++inside, 1)
    await new Promise((resolve) => setTimeout(resolve, 2))
    inside--
  }
  await Promise.all(Array.from({ length: 8 }, () => withLock(path, turn, { timeoutMs: 20_000 })))
})

test('when the holder is killed, the waiting processes take the lock over one at a time', async () => {
  const holder = contender(`await new Promise(() => setInterval(() => {}, 1e6))`)
  await once(holder.stdout ?? assert.fail(), 'data')
  const log = join(dir, 'log')
  const turn = `const { appendFileSync } = await import('node:fs')
    for (const word of ['in', 'out']) {
      appendFileSync(${JSON.stringify(log)}, word + ' ' + process.pid + '\\n')
      await new Promise((resolve) => setTimeout(resolve, 5))
    }`
  const waiters = Array.from({ length: 4 }, () => contender(turn))
  const ends = waiters.map((waiter) => once(waiter, 'exit'))
  await Promise.all(waiters.map((waiter) => once(waiter.stderr ?? assert.fail(), 'data')))
  assert.ok(!existsSync(log))
  holder.kill('SIGKILL')
  for (const end of ends) assert.deepEqual(await end, [0, null])

  const lines = readFileSync(log, 'utf8').trim().split('\n')
  assert.equal(lines.length, 8)
  for (let at = 0; at < lines.length; at += 2) assert.equal(lines[at]?.replace('in', 'out'), lines[at + 1])
  assert.ok(!existsSync(path))
})

/** A process that says `waiting` on stderr and `holding` on stdout. */
function contender(body: string): ChildProcess {
  const program = `const { withLock } = await import(${JSON.stringify(lockModule)})
    await withLock(${JSON.stringify(path)}, async () => { console.log('holding'); ${body} },
      { timeoutMs: 30000, onWait: () => console.error('waiting') })`
  return spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program])
}
